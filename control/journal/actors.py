"""Who acts: set at the edges (the middleware, the command line, the reconciler), asked where an event is recorded, passed by nobody."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.core.names import random_id
from control.journal.event import Actor, ActorKind, Source

_NO_LOGIN: Final = 2**32 - 1  # (uid_t) -1: of processes that no login started, proc_pid_loginuid(5)


class NoActorError(RuntimeError):
    """Something changed and nobody did it: a way into the services that says nothing of who goes it. A fault in our code."""


@dataclass(frozen=True)
class Acting:
    """On whose behalf this thread works.

    Attributes:
        source: By which way.
        who: Returns the actor, once one is needed: of an API request that is known only after its token was read.
        request: Id of the request, command or pass.
    """

    source: Source
    who: Callable[[], Actor | None]
    request: str


_acting: ContextVar[Acting | None] = ContextVar("acting", default=None)


@contextmanager
def acting(
    source: Source, who: Actor | Callable[[], Actor | None], *, request: str | None = None
) -> Iterator[None]:
    """Say who acts in what runs inside; an inner one covers an outer one.

    Args:
        source: By which way.
        who: The actor, or what finds it out.
        request: Id of the request; None: a new one.
    """
    ask = (lambda: who) if isinstance(who, Actor) else who
    token = _acting.set(Acting(source, ask, request or random_id()))
    try:
        yield
    finally:
        _acting.reset(token)


def current() -> tuple[Actor, Acting]:
    """Return who acts.

    Raises:
        NoActorError: If nobody does.
    """
    found = _acting.get()
    actor = found.who() if found else None
    if found is None or actor is None:
        raise NoActorError("nobody acts here: see control.journal.actors")
    return actor, found


def request_id() -> str | None:
    """Return the id of the request that is being answered, None outside of one."""
    found = _acting.get()
    return found.request if found else None


def unix_actor() -> Actor:
    """Return whoever runs this process: who logged in, where a login began it, since `sudo` hides that from everything else."""
    uid = os.getuid()
    with suppress(OSError, ValueError):
        login = int(Path("/proc/self/loginuid").read_text("ascii"))
        uid = uid if login == _NO_LOGIN else login
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = f"uid-{uid}"
    return Actor(kind=ActorKind.UNIX, name=name)


def process_actor(name: str) -> Actor:
    """Return a process of control's own."""
    return Actor(kind=ActorKind.PROCESS, name=name)


NOBODY: Final = Actor(kind=ActorKind.NOBODY, name="")
