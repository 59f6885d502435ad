"""The common form of every `audit` and `bench` verb."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Check:
    """One figure.

    Attributes:
        name: What was measured.
        value: The figure.
        bound: The largest value that is good enough, None where it is only reported.
        unit: Of value and bound.
        n: How many samples are behind it.
        at_least: The bound is the smallest value that is good enough.
    """

    name: str
    value: float
    bound: float | None
    unit: str
    n: int
    at_least: bool = False

    @property
    def ok(self) -> bool:
        """True if the figure keeps its bound."""
        if self.bound is None:
            return True
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def json(self) -> dict[str, Any]:
        """Return the figure in the common form."""
        value = asdict(self)
        del value["at_least"]
        return {**value, "ok": self.ok}


@dataclass(frozen=True)
class Report:
    """A run of figures with its positive control."""

    checks: tuple[Check, ...]
    control_name: str
    control_ok: bool

    @property
    def ok(self) -> bool:
        """True if every bound is kept and the control shows that the run could have failed."""
        return self.control_ok and all(check.ok for check in self.checks)

    def json(self) -> dict[str, Any]:
        """Return the common form."""
        return {
            "ok": self.ok,
            "checks": [check.json() for check in self.checks],
            "control": {"name": self.control_name, "ok": self.control_ok},
        }

    def lines(self) -> list[str]:
        """Return it for people."""
        width = max(len(check.name) for check in self.checks)
        rows = [
            f"  {'ok ' if check.ok else 'OUT'}  {check.name:{width}}  {check.value:>10.2f} {check.unit:4}"
            + (
                f"  (at {'least' if check.at_least else 'most'} {check.bound:g})"
                if check.bound is not None
                else ""
            )
            for check in self.checks
        ]
        return [*rows, f"  {'ok ' if self.control_ok else 'OUT'}  control: {self.control_name}"]
