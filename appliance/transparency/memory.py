"""What a client or a witness remembers of a log: the last head it saw. Every later one must continue it.

The memory is one file with the signed checkpoint, durable before anybody is told that it was accepted: who forgets would
accept a fork.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from appliance.core.errors import HostError
from appliance.core.storage import write_atomic
from appliance.transparency.checkpoint import Checkpoint, Policy
from appliance.transparency.merkle import EMPTY_ROOT
from appliance.transparency.note import Note
from appliance.transparency.proof import Continuation


class Memory:
    """The last head of one log.

    Args:
        path: The file; it need not be there yet. Its folder must.
        policy: Whose signatures a head needs.
    """

    def __init__(self, path: Path, policy: Policy) -> None:
        self._path = path
        self._policy = policy

    @property
    def seen(self) -> Checkpoint:
        """The last head; that of the empty tree if there is none yet.

        Raises:
            LogError: If what is remembered does not verify.
            HostError: If it cannot be read.
        """
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return Checkpoint(self._policy.ed25519.name, 0, EMPTY_ROOT)
        except OSError as error:
            raise HostError(f"cannot read {self._path}", hint="it holds the last checkpoint") from error
        # How many witnesses there must be now says nothing of what was accepted then.
        return replace(self._policy, quorum=0).verify(Note.parse(data))

    def advance(self, continuation: Continuation) -> Checkpoint:
        """Accept a head that continues the last one, and remember it; return it. Two at once take turns.

        Raises:
            LogError: If it does not verify or does not continue; the memory is as it was.
            HostError: If it cannot be written.
        """
        with self._locked():
            checkpoint = continuation.verify(self.seen, self._policy)
            try:
                write_atomic(self._path, continuation.checkpoint.render(), 0o644, durable=True)
            except OSError as error:
                raise HostError(f"cannot write {self._path}", hint="free disk space") from error
        return checkpoint

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise HostError(f"cannot open {self._path.parent}") from error
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)
