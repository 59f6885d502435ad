"""The open sessions of one client: each has its KV streams, a receipt under way, and an end.

A session holds no text: ids, counts and deadlines only.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from appliance import __version__
from appliance.core.budget import Allowance, Asks
from appliance.core.bundle import MAX_COUNTED, Limits
from appliance.core.errors import ApplianceError
from appliance.core.names import random_id
from appliance.core.policy import DeviceAccess
from appliance.core.receipt import Confinement, Draft, End, Erase, Opening, RuntimeFacts, SignedReceipt
from inference.cell.engine_protocol import CellEngine
from inference.cell.errors import DRAINED_RETRY_AFTER_S, Refusal
from inference.cell.notary import Notary, NotaryUnavailableError, Opened, QuotaError
from inference.cell.policy_file import PolicyFile
from inference.cell.work import Work
from inference.engine.errors import TryLater
from inference.engine.sampling import Sampling

WAIT_S: Final = 20.0
"""How long a request waits for a free stream before it is told to come again; client libraries wait a minute and more."""
_DAY_S: Final = 86_400
_NOTHING_ERASED: Final = Erase(bytes=0, verified=False)
# What a client is told when the engine gives no stream now.
_LATER: Final = {"no_free_stream": "no_stream", "queue_full": "queue_full", "draining": "draining"}


@dataclass(eq=False)
class Session:
    """One session.

    Attributes:
        id: 128 random bits; the handle of a kept session.
        kept: Opened with POST /v1/sessions; otherwise it lives for one request.
        opener: The request that opened it.
        streams: Its KV streams: one, or one for each choice of a request that wants several.
        receipt: Id of its receipt.
        expires_at: Unix time at which it ends at the latest.
        deadline: The same on the monotonic clock, in seconds.
        idle_deadline: When it ends if no request comes, on the monotonic clock.
        grant: What it may use of the client's budgets of the day, None if there are none.
    """

    id: str
    kept: bool
    opener: Work
    streams: tuple[int, ...]
    receipt: str
    expires_at: int
    deadline: float
    idle_deadline: float
    grant: Allowance | None = None
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    ending: asyncio.Task[SignedReceipt | None] | None = None
    _work: Work | None = None
    _free: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def device(self) -> DeviceAccess:
        """Who opened it."""
        return self.opener.device

    @contextlib.contextmanager
    def turn(self, work: Work, *, idle_s: float) -> Iterator[None]:
        """Hold the session for one request.

        Raises:
            Refusal: `session_busy` if another request holds it, `session_not_found` if it is ending.
        """
        if self.ending is not None:
            raise Refusal("session_not_found")
        if self._work is not None:
            raise Refusal("session_busy", receipt=self.receipt)
        self._work = work
        self.requests += 1
        self._free.clear()
        try:
            yield
        finally:
            self._work = None
            self.idle_deadline = time.monotonic() + idle_s
            self._free.set()

    def clip(self, samplings: tuple[Sampling, ...], prompt_tokens: int) -> tuple[Sampling, ...]:
        """Return the samplings of a request's choices, no longer than what is left of the grant.

        Raises:
            Refusal: `session_quota` if there is no request left, or not a token for each choice.
        """
        grant = self.grant
        if grant is None:
            return samplings
        if grant.requests is not None and self.requests >= grant.requests:
            raise Refusal("session_quota")
        if grant.tokens is None:
            return samplings
        left = grant.tokens - self.prompt_tokens - self.completion_tokens - prompt_tokens
        if left < len(samplings):
            raise Refusal("session_quota")
        most = left // len(samplings)
        return tuple(replace(sampling, max_tokens=min(sampling.max_tokens, most)) for sampling in samplings)

    def is_expired(self, now: float) -> bool:
        """Whether its time is over: the absolute one always, the idle one while no request runs."""
        idle = self.kept and self._work is None and now >= self.idle_deadline
        return now >= self.deadline or idle

    async def stop_request(self, reason: End) -> None:
        """Stop the request that holds the session, if one does, and wait until it has let go."""
        if self._work is not None:
            self._work.stop(reason)
            await self._free.wait()


class Sessions:
    """The table of open sessions, and the order of their two ends.

    Opening: limit, streams, the notary's record. Ending: stop the request, erase, the notary's receipt.

    Attributes:
        last_end: When a session ended last, on the monotonic clock; None before the first.
        untrusted: An erase failed or could not be verified; the cell must not go on.
    """

    def __init__(
        self, engine: CellEngine, notary: Notary, policy: PolicyFile, pin_id: str, confinement: Confinement
    ) -> None:
        self._engine = engine
        self._notary = notary
        self._policy = policy
        self._pin_id = pin_id
        self._confinement = confinement
        self._open: dict[str, Session] = {}
        self._opening = 0
        self.last_end: float | None = None
        self.untrusted = False

    def __len__(self) -> int:
        return len(self._open) + self._opening

    def __iter__(self) -> Iterator[Session]:
        return iter(tuple(self._open.values()))

    def find(self, session_id: str) -> Session:
        """Return an open, kept session.

        Raises:
            Refusal: `session_not_found`.
        """
        session = self._open.get(session_id)
        if session is None or not session.kept or session.ending is not None:
            raise Refusal("session_not_found")
        return session

    async def open(
        self, work: Work, *, kept: bool, ttl_s: int | None = None, streams: int = 1, asks: Asks | None = None
    ) -> Session:
        """Open a session: nothing may be decoded for it before this returns.

        Args:
            work: The request that asks for it. If it is stopped meanwhile, it waits for a stream no longer; a session
                that has its streams is opened and ended in order.
            kept: It outlives the request.
            ttl_s: Seconds until it ends at the latest; None means what the policy allows.
            streams: How many it needs; each counts as a session of the client's limit.
            asks: What it needs of the client's budgets of the day; None: its share of them.

        Raises:
            Refusal: `node_drained`, `too_many_sessions`, `no_stream`, `queue_full`, `draining`, `notary_unavailable`,
                `insufficient_quota`.
        """
        if self._policy.current.draining:
            raise Refusal("node_drained", retry_after_s=DRAINED_RETRY_AFTER_S)
        taken = self._opening + sum(len(session.streams) for session in self)
        if taken + streams > self._policy.current.limits.sessions:
            raise Refusal("too_many_sessions")
        work.in_line = True
        try:
            claimed = await self._claim_streams(streams)
        finally:
            work.in_line = False
        opening = asyncio.create_task(self._begin(work, claimed, asks, kept=kept, ttl_s=ttl_s))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            with contextlib.suppress(Refusal):
                await self.end(await opening, work.stopped or End.DISCONNECTED)
            raise

    async def end(self, session: Session, reason: End) -> SignedReceipt | None:
        """End a session once; the first reason counts. Whoever waits may be cancelled, the ending is not.

        Returns:
            Its receipt, or None if the notary could not make it durable.
        """
        return await asyncio.shield(self.start_end(session, reason))

    def start_end(self, session: Session, reason: End) -> asyncio.Task[SignedReceipt | None]:
        """Begin to end a session, without waiting."""
        if session.ending is None:
            session.ending = asyncio.create_task(self._finish(session, reason))
        return session.ending

    def end_orphans(self, work: Work) -> None:
        """End what a request opened for itself alone and left behind. Nothing does; this holds if something ever did."""
        for session in self:
            if session.opener is work and not session.kept:
                self.start_end(session, work.stopped or End.FAILED)

    async def end_all(self, reason: End) -> None:
        """End every session and wait for it."""
        endings = [self.start_end(session, reason) for session in self]
        if endings:
            await asyncio.wait(endings)

    async def _begin(
        self, work: Work, streams: tuple[int, ...], asks: Asks | None, *, kept: bool, ttl_s: int | None
    ) -> Session:
        limits = self._policy.current.limits
        session_id = random_id()
        try:
            opened = await self._record(session_id, asks or self._share(limits), limits)
        except Refusal:
            await self._erase(streams)
            raise
        finally:
            self._opening -= len(streams)
        now, left = time.monotonic(), min(ttl_s or limits.session_max_s, limits.session_max_s)
        session = Session(
            id=session_id,
            kept=kept,
            opener=work,
            streams=streams,
            receipt=opened.receipt,
            grant=opened.grant,
            expires_at=int(time.time()) + left,
            deadline=now + left,
            idle_deadline=now + limits.session_idle_s,
        )
        self._open[session_id] = session
        return session

    async def _record(self, session_id: str, asks: Asks, limits: Limits) -> Opened:
        """Have the notary record that a session opens, and grant what it asks for where there is a budget."""
        budgeted = limits.requests_per_day is not None or limits.tokens_per_day is not None
        try:
            return await self._notary.open(self._describe(session_id), asks if budgeted else None)
        except QuotaError:
            raise Refusal("insufficient_quota", retry_after_s=_until_midnight_s(time.time())) from None
        except NotaryUnavailableError:
            raise Refusal("notary_unavailable") from None

    def _share(self, limits: Limits) -> Asks:
        """Return what a kept session asks for, since nobody knows what it will need: as many of them fit into a day as may be open at once."""
        context_tokens = self._engine.context_tokens
        return Asks(
            requests=max(1, (limits.requests_per_day or MAX_COUNTED) // limits.sessions),
            tokens=max(context_tokens, (limits.tokens_per_day or MAX_COUNTED) // limits.sessions),
            least_tokens=1,
        )

    async def _claim_streams(self, count: int) -> tuple[int, ...]:
        """Wait for streams. They count as opening until `_begin` has made a session of them."""
        self._opening += count
        claimed = False
        try:
            streams = await self._engine.open_streams(count, WAIT_S)
            claimed = True
        except TryLater as error:
            code = _LATER.get(error.code, "no_stream")
            raise Refusal(code, retry_after_s=error.retry_after_s) from None
        except ApplianceError:
            raise Refusal("engine_failed") from None
        finally:
            if not claimed:
                self._opening -= count
        return streams

    async def _finish(self, session: Session, reason: End) -> SignedReceipt | None:
        await session.stop_request(reason)
        erased = await self._erase(session.streams)
        draft = Draft(
            end=reason,
            requests=session.requests,
            prompt_tokens=session.prompt_tokens,
            completion_tokens=session.completion_tokens,
            retrieved_chunks=0,
            corpora=(),
            erase=erased,
        )
        try:
            return await self._notary.close(session.receipt, draft)
        except ApplianceError:
            return None  # the connection ends with this process, and the notary closes the session as crashed
        finally:
            del self._open[session.id]
            self.last_end = time.monotonic()

    async def _erase(self, streams: Iterable[int]) -> Erase:
        """Erase every stream, whatever becomes of the others; verified if all are."""
        ends = [await self._erase_stream(stream) for stream in streams]
        verified = all(end.verified for end in ends)
        self.untrusted |= not verified
        return Erase(bytes=sum(end.bytes for end in ends), verified=verified)

    async def _erase_stream(self, stream: int) -> Erase:
        try:
            erased = await self._engine.close_stream(stream)
        except ApplianceError:
            return _NOTHING_ERASED
        return Erase(bytes=erased.bytes, verified=erased.verified)

    def _describe(self, session_id: str) -> Opening:
        return Opening(
            session=session_id,
            models=(self._pin_id,),
            runtime=RuntimeFacts(
                appliance=__version__,
                llama_cpp=self._engine.runtime_digest,
                generation=self._policy.current.generation,
            ),
            confinement=self._confinement,
        )


def _until_midnight_s(now: float) -> int:
    """Return the seconds from a time, in seconds since 1970, to the next midnight UTC: at least 1."""
    return max(1, math.ceil(_DAY_S - now % _DAY_S))
