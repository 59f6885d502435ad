"""What is wrong with a node now: each condition is an alarm when it begins, and stands in the node's row until it ends."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from appliance.core.health import Health
from control.audit.models import AlarmKind
from control.audit.services import raise_alarm
from control.fleet.models import Duty, Node

FULL_PERMILLE: Final = 100  # free space below this is a condition,
EMPTIED_PERMILLE: Final = (
    120  # and one that has begun ends above this: a disk at the limit is one alarm, not hundreds
)
CLOCK_OFF_MS: Final = 2000
UNREACHABLE: Final = timedelta(minutes=2)  # a machine that reboots is back by then
DRIFT_PASSES: Final = 5

OF_HEALTH: Final = frozenset(
    {AlarmKind.DISK_FULL, AlarmKind.CLOCK_OFF, AlarmKind.DIGEST_FAILED, AlarmKind.SEATS_EXHAUSTED}
)
OF_PASSES: Final = frozenset({AlarmKind.NODE_UNREACHABLE, AlarmKind.NODE_DRIFTED})


class Condition(NamedTuple):
    """Something that is wrong: the kind of alarm, and with what (a disk, the beginning of a digest)."""

    kind: AlarmKind
    what: str = ""

    @property
    def key(self) -> str:
        """As the node's row names it."""
        return f"{self.kind.value} {self.what}".strip()


def judge_health(health: Health, clock_offset_ms: int, held: Collection[str]) -> set[Condition]:
    """Return what a report says is wrong. Pure.

    Args:
        health: The report.
        clock_offset_ms: Of the node's clock from control's.
        held: Keys of the conditions that hold already.
    """
    found = {
        Condition(AlarmKind.DIGEST_FAILED, model.sha256[:16])
        for model in health.models
        if model.state == "failed"
    }
    for disk in health.disks:
        full = Condition(AlarmKind.DISK_FULL, disk.name)
        limit = EMPTIED_PERMILLE if full.key in held else FULL_PERMILLE
        if 1000 * disk.free_bytes < limit * disk.total_bytes:
            found.add(full)
    if abs(clock_offset_ms) > CLOCK_OFF_MS:
        found.add(Condition(AlarmKind.CLOCK_OFF))
    if health.queue and health.seats.taken >= health.seats.total > 0:
        found.add(Condition(AlarmKind.SEATS_EXHAUSTED))
    return found


def judge_passes(node: Node, now: datetime) -> set[Condition]:
    """Return what the last passes over a node say is wrong. Pure."""
    found = set()
    if now - (node.last_seen_at or node.created_at) > UNREACHABLE:
        found.add(Condition(AlarmKind.NODE_UNREACHABLE))
    if node.drift_passes > DRIFT_PASSES:
        found.add(Condition(AlarmKind.NODE_DRIFTED))
    return found


def note_conditions(
    node: Node, judged: Collection[AlarmKind], found: Collection[Condition], now: datetime
) -> None:
    """Keep what is wrong now in the node's row, and raise an alarm over each condition that was not there before.

    A condition that comes again on the same day counts on the same alarm, so alarms grow by one a day at most.

    Args:
        node: As the database has it now.
        judged: The kinds that were looked at; conditions of other kinds stay.
        found: Conditions of those kinds.
        now: When.
    """
    if node.duty == Duty.MAINTENANCE:  # somebody works on it, and knows
        found = ()
    kinds = {kind.value for kind in judged}
    kept = {key: since for key, since in node.conditions.items() if key.partition(" ")[0] not in kinds}
    for condition in sorted(found):
        since = node.conditions.get(condition.key)
        kept[condition.key] = since or now.isoformat(timespec="seconds")
        if since is None:
            raise_alarm(node, condition.kind, f"{condition.what} {now:%Y-%m-%d}".strip())
    if kept != node.conditions:
        node.conditions = kept
        Node.objects.filter(pk=node.pk).update(conditions=kept)
