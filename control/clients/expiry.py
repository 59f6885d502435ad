"""When clients and keys end by themselves: which dates an operator may say, and what is told ahead of them. Pure.

A key ends, not a device: the next key of the same device is added beside it, and both work for a while (`rotation`).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from appliance.core.errors import RefusedError

LONGEST = timedelta(days=3660)  # ten years: a date beyond that is a slip of the finger
WARN_AHEAD = timedelta(days=14)


def parse_end(end: datetime | None, now: datetime) -> datetime | None:
    """Return an end that an operator asked for, in UTC and whole seconds; None for none.

    Raises:
        RefusedError: If it has passed or is more than ten years ahead.
    """
    if end is None:
        return None
    # The node counts in whole seconds, and a key must not outlive what the operator was shown.
    end = end.replace(microsecond=0)
    if end <= now:
        raise RefusedError(
            "has passed", field="expires_at", hint="to cut somebody off now: suspend or revoke"
        )
    if end - now > LONGEST:
        raise RefusedError("more than ten years ahead", field="expires_at", hint="leave it out for no end")
    return end.astimezone(UTC)  # not before: a date at the edge of the calendar has no other zone


def earliest(*ends: datetime | None) -> datetime | None:
    """Return the end that comes first; None if nothing ends."""
    return min((end for end in ends if end is not None), default=None)


def warn(end: datetime | None, now: datetime) -> str | None:
    """Return what to say of an end that is near or has passed: `expires in 6 days`; None of any other."""
    if end is None or end - now > WARN_AHEAD:
        return None
    left = end - now
    if left <= timedelta(0):
        return "expired"
    for unit, length in (("day", timedelta(days=1)), ("hour", timedelta(hours=1))):
        if count := left // length:
            return f"expires in {count} {unit}{'s' if count > 1 else ''}"
    return "expires within the hour"
