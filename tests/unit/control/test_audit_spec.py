"""docs/spec/audit-event-v1.md is true: its example is an event, and its tables name every verb and fact that there is."""

from __future__ import annotations

import json
import re
from pathlib import Path

from control.journal.event import ActorKind, Event, Source
from control.journal.vocabulary import FACTS, KINDS, Kind, Verb

TEXT = (Path(__file__).parents[3] / "docs/spec/audit-event-v1.md").read_text("utf-8")


def section(number: int) -> str:
    return TEXT.split(f"## {number}. ")[1].split("\n## ")[0]


def rows(number: int) -> dict[str, set[str]]:
    """Return the words in quotes of each row of a section's table, by its first one."""
    found = {}
    for line in section(number).splitlines():
        if line.startswith("| `"):
            first, *words = re.findall(r"`([a-z0-9_.-]+)`", line)
            found[first] = set(words)
    return found


def test_the_example_is_an_event_and_has_its_digest() -> None:
    (block,) = re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)
    event = Event.parse(json.loads(block))
    (digest,) = re.findall(r"its digest is `([0-9a-f]{64})`", TEXT)
    assert event.digest == digest
    assert json.loads(event.canonical_bytes()) == json.loads(block)


def test_the_tables_name_every_field_verb_and_fact() -> None:
    fields = set(re.findall(r"`([a-z_.]+)`", section(2)))
    assert {*Event.model_fields} - {"actor", "object"} <= fields
    assert {*(kind.value for kind in ActorKind), *(source.value for source in Source)} <= fields
    verbs = rows(3)
    assert set(verbs) == {kind.value for kind in Kind}
    for verb in Verb:
        assert verb.value in verbs[KINDS[verb].value]
    facts = rows(4)
    for kind, known in FACTS.items():
        assert {name for name in known if not name.startswith("limits.")} <= facts[kind.value] | {""}
    assert "limits." in section(4)
