"""A client's budgets of a day: what its sessions have spent of them, and what another one may have. Pure.

A day is one of UTC. A session counts on the day on which it was opened: first with all that it was granted, and once it has ended with
what it used. One whose cell said nothing of that used its grant.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date

from appliance.core.budget import Allowance, Asks
from appliance.core.errors import RefusedError, UnavailableError


class QuotaError(UnavailableError):
    """The day's budget is used up."""

    code = "quota_exceeded"


@dataclass(frozen=True)
class Budget:
    """What a client may use of a day; None: any number."""

    requests_per_day: int | None = None
    tokens_per_day: int | None = None

    def __bool__(self) -> bool:
        return self.requests_per_day is not None or self.tokens_per_day is not None


@dataclass(frozen=True)
class Spent:
    """What a client's sessions of one day have used or may still use.

    Attributes:
        day: Counted from the first day of the year 1 (`date.toordinal`).
    """

    day: int = 0
    requests: int = 0
    tokens: int = 0

    def on(self, day: int) -> Spent:
        """Return the count that a session belongs to which is opened on this day."""
        # A clock that was set back over midnight gives no budget twice. One that was set back further was wrong before.
        return self if self.day - 1 <= day <= self.day else Spent(day)

    def replayed(self, day: int, requests: int, tokens: int) -> Spent:
        """Return the count with a session of the journal, unless a later day has begun: sessions of days before may end on it."""
        if day < self.day:
            return self
        return (self if day == self.day else Spent(day)).plus(requests, tokens)

    def plus(self, requests: int, tokens: int) -> Spent:
        """Return the count with these."""
        return replace(self, requests=self.requests + requests, tokens=self.tokens + tokens)


def day_of(timestamp: str) -> int:
    """Return the day of a timestamp's text."""
    return date.fromisoformat(timestamp[:10]).toordinal()


def grant(asks: Asks | None, budget: Budget, spent: Spent) -> Allowance | None:
    """Return what a session is granted; None if its client has no budget.

    Raises:
        QuotaError: If there is less left than it needs at least.
        RefusedError: If it does not say what it asks for.
    """
    if not budget:
        return None
    if asks is None:
        raise RefusedError("this client has a budget", field="asks")
    return Allowance(
        requests=_part(budget.requests_per_day, spent.requests, asks.requests, least=1),
        tokens=_part(budget.tokens_per_day, spent.tokens, asks.tokens, least=asks.least_tokens),
    )


def used(granted: Allowance | None, requests: int, tokens: int, *, told: bool) -> tuple[int, int]:
    """Return the requests and tokens that an ended session counts for.

    Args:
        granted: What it was granted.
        requests, tokens: What its receipt says.
        told: Its cell said so; otherwise the receipt counts nothing, and nobody knows.
    """
    if told or granted is None:
        return requests, tokens
    return held(granted)


def is_told(requests: int, *, verified: bool) -> bool:
    """Return whether a receipt's counts are its cell's: the one that the notary writes for a lost cell claims nothing (`lost_draft`)."""
    return requests > 0 or verified


def held(granted: Allowance | None) -> tuple[int, int]:
    """Return the requests and tokens that an open session counts for."""
    return (granted.requests or 0, granted.tokens or 0) if granted else (0, 0)


def _part(per_day: int | None, spent: int, asked: int, *, least: int) -> int | None:
    if per_day is None:
        return None
    left = min(per_day - spent, asked)
    if left < least:
        raise QuotaError("the budget of the day is used up", hint="it begins anew at midnight UTC")
    return left
