"""Prometheus' text exposition format, version 0.0.4. Pure.

Source: prometheus.io/docs/instrumenting/exposition_formats, and /docs/practices/naming for names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")
_ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


@dataclass
class Family:
    """A metric: its name, what it is, and one value for each set of labels.

    Attributes:
        name: With its unit, in base units; a counter's ends in `_total`.
        help: One sentence.
        kind: What its value does.
    """

    name: str
    help: str
    kind: Literal["gauge", "counter"] = "gauge"
    samples: list[tuple[Mapping[str, str], float]] = field(default_factory=list)

    def add(self, value: float | None, **labels: str) -> None:
        """Add a value; None is one that nobody knows, and is left out."""
        if value is not None:
            self.samples.append((labels, value))


def render(families: Iterable[Family]) -> str:
    """Return the families as text, those without a value left out.

    Raises:
        ValueError: If a name is none.
    """
    return "".join(_render(family) for family in families if family.samples)


def _render(family: Family) -> str:
    if not _NAME.fullmatch(family.name):
        raise ValueError("not the name of a metric")
    help_text = family.help.replace("\\", r"\\").replace("\n", r"\n")
    lines = [f"# HELP {family.name} {help_text}", f"# TYPE {family.name} {family.kind}"]
    lines += [f"{family.name}{_labels(labels)} {_number(value)}" for labels, value in family.samples]
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    pairs = [f'{name}="{value.translate(_ESCAPES)}"' for name, value in labels.items()]
    return f"{{{','.join(pairs)}}}" if pairs else ""


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))
