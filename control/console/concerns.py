"""What is late or wrong right now, the worst first, each with what to do next; and the first steps while there is nothing yet."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from django.db.models import Count, Max
from django.urls import reverse

from control.audit.alarms import ADVICE
from control.audit.models import Alarm, AlarmKind
from control.console.condition import NodeView

RECENT: Final = timedelta(days=7)  # alarms stay for ever; what is older has been seen
_ORDER: Final = ("bad", "warn")


class Concern(NamedTuple):
    """Something that an operator should look at.

    Attributes:
        level: bad or warn.
        title, detail, do: What it is, what it means, what to do next.
        url: Where to see it.
    """

    level: str
    title: str
    detail: str
    do: str
    url: str


class Start(NamedTuple):
    """A first step.

    Attributes:
        title, text: What to do.
        done: It was done.
        url: Where, if the console can; a command otherwise.
        command: On the management machine.
    """

    title: str
    text: str
    done: bool
    url: str = ""
    command: str = ""


def concerns_of(nodes: list[NodeView], head: dict[str, Any] | None, now: datetime) -> list[Concern]:
    """Return what is late or wrong.

    Args:
        nodes: All of them.
        head: Of the log (`describe_head`); None for a role that does not see it.
        now: The time.
    """
    found = [*_alarms(now), *_nodes(nodes), *(_log(head) if head else ())]
    return sorted(found, key=lambda concern: _ORDER.index(concern.level))


def _alarms(now: datetime) -> Iterator[Concern]:
    recent = Alarm.objects.filter(raised_at__gte=now - RECENT).order_by()
    for row in recent.values("kind").annotate(times=Count("pk"), last=Max("raised_at")).order_by("-last"):
        advice = ADVICE[AlarmKind(row["kind"])]
        title = advice.title if row["times"] == 1 else f"{advice.title} ({row['times']:,} alarms)"
        url = f"{reverse('console:alarms')}?kind={row['kind']}"
        yield Concern("bad", title, advice.meaning, advice.do, url)


def _nodes(nodes: list[NodeView]) -> Iterator[Concern]:
    for view in nodes:
        state = view.condition
        if state.level != "good":
            url = reverse("console:node", args=[view.node.name])
            yield Concern(state.level, f"{view.node.name}: {state.word}", state.detail, state.do, url)


def _log(head: dict[str, Any]) -> Iterator[Concern]:
    if head["late"]:
        yield Concern(
            "bad",
            "The log is late",
            "Receipts wait, and the newest head is older than it should be: one is due each minute.",
            "Look at the reconciler's service and its log.",
            reverse("console:log"),
        )


def first_steps(*, nodes: bool, pins: bool, clients: bool, devices: bool) -> list[Start]:
    """Return the way from an empty control to the first session."""
    return [
        Start(
            "Add a node",
            "Control reaches it over SSH and learns its keys.",
            nodes,
            command="appliance control node add --help",
        ),
        Start(
            "Import a model",
            "Clients get exactly these bytes, or nothing.",
            pins,
            command="appliance control model import, verify, activate",
        ),
        Start(
            "Create a client",
            "The unit of isolation: one process, one memory.",
            clients,
            reverse("console:client-add"),
        ),
        Start(
            "Add a device to it",
            "Its key is made on the client's computer.",
            devices,
            reverse("console:clients"),
        ),
    ]
