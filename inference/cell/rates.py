"""The client's rates: requests and tokens of a minute, as token buckets, and what answers say of them.

A bucket holds what one minute allows. It begins full and fills evenly, so a client may use a minute's worth at once, and over any time t
no more than that and t minutes' worth. Names and forms are the OpenAI API's ("Rate limits" in its documentation).

A request reserves the tokens of its prompt and of the longest answer it may get, and gives back what it did not use.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from math import ceil

from appliance.core.budget import Used
from appliance.core.bundle import Limits
from inference.cell.errors import Refusal

_MINUTE_S = 60.0
Clock = Callable[[], float]


class Bucket:
    """One bucket; without a capacity it holds any amount.

    Args:
        capacity: What it holds, and gets in a minute.
        clock: Monotonic, in seconds.
    """

    def __init__(self, capacity: int | None, clock: Clock) -> None:
        self._capacity = capacity
        self._clock = clock
        self._missing = 0.0  # of a full one
        self._at = clock()

    @property
    def capacity(self) -> int | None:
        """What it holds, and gets in a minute."""
        return self._capacity

    @capacity.setter
    def capacity(self, capacity: int | None) -> None:
        self._fill()
        self._capacity = capacity
        self._missing = min(self._missing, float(capacity)) if capacity is not None else 0.0

    @property
    def left(self) -> int:
        """What can be taken now; 0 where there is no capacity."""
        self._fill()
        return max(0, int((self._capacity or 0) - self._missing))

    @property
    def full_in_s(self) -> float:
        """Seconds until it is full."""
        return self.wait_s(self._capacity or 0)

    def wait_s(self, amount: int) -> float:
        """Return the seconds until this amount can be taken: 0 for now, infinity for never."""
        if self._capacity is None:
            return 0.0
        if amount > self._capacity:
            return float("inf")
        self._fill()
        return max(0.0, (self._missing + amount - self._capacity) * _MINUTE_S / self._capacity)

    def take(self, amount: int) -> None:
        """Take an amount, whether it is there or not; a negative one is given back."""
        if self._capacity is not None:
            self._fill()
            self._missing = max(0.0, self._missing + amount)

    def _fill(self) -> None:
        now = self._clock()
        if self._capacity is not None:
            self._missing = max(0.0, self._missing - (now - self._at) * self._capacity / _MINUTE_S)
        self._at = now


class Rates:
    """The buckets of one client.

    Args:
        limits: Of the client.
        clock: Monotonic, in seconds.
    """

    def __init__(self, limits: Limits, clock: Clock = time.monotonic) -> None:
        self._requests = Bucket(limits.requests_per_minute, clock)
        self._tokens = Bucket(limits.tokens_per_minute, clock)

    @property
    def tokens(self) -> int | None:
        """Most tokens that one request can have; None: any number."""
        return self._tokens.capacity

    def follow(self, limits: Limits) -> None:
        """Take up other limits; what was used of late still counts."""
        self._requests.capacity = limits.requests_per_minute
        self._tokens.capacity = limits.tokens_per_minute

    def count(self, used: Used) -> None:
        """Count what the client used before this cell, up to a whole bucket."""
        for bucket, amount in ((self._requests, used.requests), (self._tokens, used.tokens)):
            bucket.take(min(amount, bucket.capacity or 0))

    def take_request(self) -> None:
        """Count a request, whatever becomes of it.

        Raises:
            Refusal: `rate_limit_requests`.
        """
        _take(self._requests, 1, "rate_limit_requests")

    def reserve(self, tokens: int) -> None:
        """Take the tokens that a request may need; `settle` it once it is answered.

        Raises:
            Refusal: `rate_limit_tokens`, or `request_above_rate` if no waiting helps.
        """
        _take(self._tokens, tokens, "rate_limit_tokens")

    def settle(self, reserved: int, used: int) -> None:
        """Give back what was reserved and not used."""
        self._tokens.take(used - reserved)

    def headers(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield what an answer says of those rates that there are."""
        for name, bucket in ((b"requests", self._requests), (b"tokens", self._tokens)):
            if bucket.capacity is not None:
                yield b"x-ratelimit-limit-" + name, b"%d" % bucket.capacity
                yield b"x-ratelimit-remaining-" + name, b"%d" % bucket.left
                yield b"x-ratelimit-reset-" + name, render_duration(bucket.full_in_s).encode("ascii")


def render_duration(seconds: float) -> str:
    """Return a duration as the OpenAI API spells it: `6m0s`, `1s`, `17ms`. Never less than what it is."""
    milliseconds = ceil(seconds * 1000)
    if milliseconds < 1000:
        return f"{milliseconds}ms" if milliseconds else "0s"
    minutes, rest = divmod(ceil(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def _take(bucket: Bucket, amount: int, code: str) -> None:
    wait_s = bucket.wait_s(amount)
    if wait_s == float("inf"):
        raise Refusal("request_above_rate")
    if wait_s > 0:
        raise Refusal(code, retry_after_s=ceil(wait_s))
    bucket.take(amount)
