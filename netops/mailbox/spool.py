"""Letters on the disk: written by the mailbox, read and cleared by the agent.

One file for each invitation that was redeemed, `<digest of its secret>.json`, 0600, in a folder of the mailbox's user. The agent is root
and trusts nothing there: it opens without following links, reads a bounded number of bytes of regular files, and takes what parses.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import StringConstraints

from appliance.core.bundle import MAX_GUESTS
from appliance.core.enrolment import MAX_LETTER_CHARACTERS
from appliance.core.errors import RefusedError
from appliance.core.names import Digest
from appliance.core.schema import Closed
from appliance.core.storage import read_or_none, write_atomic

MAX_FILE_BYTES: Final = 2 * MAX_LETTER_CHARACTERS
_FILE: Final = re.compile(r"[0-9a-f]{64}\.json")


class Progress(StrEnum):
    """How far an exchange is."""

    REDEEMED = "redeemed"  # the letter is here
    DELIVERED = "delivered"  # the answer was handed out at least once
    CONFIRMED = "confirmed"  # the device has what it needs


class Letter(Closed):
    """What was posted for one invitation, and how far its exchange is."""

    box: Annotated[
        str,
        StringConstraints(min_length=40, max_length=MAX_LETTER_CHARACTERS, pattern=r"^[A-Za-z0-9+/]+={0,2}$"),
    ]
    progress: Progress
    secret_sha256: Digest
    v: Literal[1] = 1


class Spool:
    """The mailbox's side."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, secret_sha256: str) -> Letter | None:
        """Return the letter of an invitation."""
        data = read_or_none(self._folder / f"{secret_sha256}.json")
        return None if data is None else Letter.parse_canonical(data)

    def keep(self, letter: Letter) -> None:
        """Keep a letter; it is on the disk when this returns."""
        path = self._folder / f"{letter.secret_sha256}.json"
        write_atomic(path, letter.canonical_bytes(), 0o600, durable=True)


def read_letters(folder: Path) -> list[Letter]:
    """Return the letters in a folder that somebody else writes, sorted, as many as there can be guests."""
    with _opened(folder) as descriptor:
        if descriptor is None:
            return []
        names = sorted(name for name in os.listdir(descriptor) if _FILE.fullmatch(name))[:MAX_GUESTS]
        found = (_read_letter(name, descriptor) for name in names)
        return [letter for letter in found if letter is not None]


def clear_letters(folder: Path, keep: AbstractSet[str]) -> None:
    """Remove every file but the letters of these invitations, and those that the mailbox is writing at this moment."""
    with _opened(folder) as descriptor:
        for name in os.listdir(descriptor) if descriptor is not None else ():
            # `write_atomic` writes `.<name>.<random>` and renames it.
            if name.removeprefix(".").partition(".json")[0] not in keep:
                with contextlib.suppress(OSError):  # a folder, or gone meanwhile
                    os.unlink(name, dir_fd=descriptor)


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[int | None]:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:  # no mailbox on this node
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _read_letter(name: str, folder: int) -> Letter | None:
    try:
        # O_NONBLOCK: a named pipe would hold up the agent for ever.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with os.fdopen(os.open(name, flags, dir_fd=folder), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return None
            letter = Letter.parse_canonical(file.read(MAX_FILE_BYTES + 1))
    except (OSError, RefusedError):
        return None
    return letter if letter.secret_sha256 == name.removesuffix(".json") else None
