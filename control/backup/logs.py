"""Lets the log of receipts go on after a restore, without a fork.

The restored log may be shorter than what was published. It goes on from the newest head that anybody shows: nodes hand over the hashes,
each of them verified by that head, and the log is again exactly what it was. Receipts that the database lost get their places back when
their nodes hand them over (`UnclaimedPlace`); those that nobody has any more stay as hashes, as old receipts do that were deleted.

If the hashes are nowhere the log is over. Another begins with keys and a name of its own (`succeed`): the old log's beginning, then, at
every place that was lost and once more, the old log's last known head.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from django.db import transaction

from appliance.core.errors import HostError, RefusedError
from appliance.transparency import merkle
from appliance.transparency.checkpoint import Checkpoint, LogSigner, Policy
from appliance.transparency.errors import LogError
from appliance.transparency.merkle import EMPTY_ROOT, leaf_hash
from appliance.transparency.note import Note
from appliance.transparency.tiles import CHECKPOINT, RESTORE, Load, TileReader, Tiles, load_tile
from control.backup.manifest import Restored
from control.backup.models import LogRelease, UnclaimedPlace
from control.backup.tree import verify_tree
from control.journal.services import record
from control.journal.vocabulary import Verb
from control.transparency.models import CheckpointRecord
from control.transparency.witnesses import Witness

_BATCH = 1000


@dataclass(frozen=True)
class Place:
    """Somewhere the log is published.

    Attributes:
        name: Of a node, or of a folder.
        load: Returns a file of it.
    """

    name: str
    load: Load


@dataclass(frozen=True)
class Shown:
    """A head that somebody shows, signed with the log's keys, and where its tiles are."""

    place: Place
    head: Checkpoint
    note: Note


@dataclass(frozen=True)
class FrozenLog:
    """The log of a control that was restored.

    Attributes:
        folder: Of its tiles.
        signer: Its keys.
        restored: What the restore left.
    """

    folder: Path
    signer: LogSigner
    restored: Restored

    def compare(self, places: Sequence[Place], witnesses: Sequence[Witness], without: Sequence[str]) -> int:
        """Go on from the newest head that anybody shows; return how many receipts the database lost.

        Args:
            places: Where the log is published.
            witnesses: Who cosigned it.
            without: Names of those that were not asked, by an operator's word.

        Raises:
            RefusedError: If a head is not signed with the log's keys, two are not of one tree, or a witness has seen a larger one.
            UnavailableError: If a witness does not answer.
            HostError: If hashes are missing or are not those of the head.
        """
        own = self._own()
        shown = [*own, *filter(None, (self._look(place) for place in places))]
        asked = [place.name for place in places] + [witness.key.name for witness in witnesses]
        if not shown:
            self._ask(witnesses, TileReader(_nothing, 0), self.signer.sign(0, EMPTY_ROOT, int(time.time())))
            self._release(Verb.LOG_COMPARE, 0, asked, without)
            return 0
        newest = max(shown, key=lambda one: one.head.size)
        tree = verify_tree(newest.place.load, newest.head)
        _verify_one_tree(tree, shown)
        self._ask(witnesses, tree, newest.note)
        size = own[0].head.size if own else 0
        self._catch_up(size, tree, newest, asked, without)
        return newest.head.size - size

    def succeed(
        self,
        places: Sequence[Place],
        least: int,
        replace_keys: Callable[[], LogSigner],
        without: Sequence[str],
    ) -> int:
        """Begin another log in the place of this one, which is over; return its size.

        Its size is above all that was ever seen of the old one, so that nobody who counts takes it for a shrunken log.

        Args:
            places: Where the old log is published.
            least: A size of the old log that is known otherwise, for example a witness's.
            replace_keys: Makes the keys of the new one, and removes the old ones.
            without: Names of those that were not asked.

        Raises:
            RefusedError: If a head is not signed with the old log's keys.
            HostError: If the tiles cannot be read or written.
        """
        own = self._own()
        shown = [*own, *filter(None, (self._look(place) for place in places))]
        newest = max(shown, key=lambda one: one.head.size, default=None)
        tiles = Tiles(self.folder, own[0].head.size if own else 0)
        signer = replace_keys()
        if newest is not None:
            last = leaf_hash(newest.note.render())
            tiles.append([last] * (max(newest.head.size, least) + 1 - tiles.size))
            tiles.publish()
            note = signer.sign(tiles.size, merkle.root(tiles, tiles.size), int(time.time()))
            with transaction.atomic():
                CheckpointRecord.objects.create(size=tiles.size, note=note.render().decode("utf-8"))
                self._release(Verb.LOG_SUCCEED, tiles.size, [place.name for place in places], without)
            tiles.write_checkpoint(note.render())
        else:
            self._release(Verb.LOG_SUCCEED, 0, [place.name for place in places], without)
        return tiles.size

    def _own(self) -> list[Shown]:
        """Return the database's last head, if there is one."""
        last = CheckpointRecord.objects.last()
        if last is None:
            return []
        note = Note.parse(last.note.encode("utf-8"))
        place = Place("this control", lambda path: load_tile(self.folder, path))
        return [Shown(place, Checkpoint.parse(note.text), note)]

    def _look(self, place: Place) -> Shown | None:
        data = place.load(CHECKPOINT)
        if not data:
            return None
        try:
            note = Note.parse(data)
            return Shown(place, Policy(*self.signer.verifier_keys).verify(note), note)
        except LogError as error:
            raise RefusedError(
                f"{place.name} shows a head that is not signed with this log's keys",
                field="checkpoint",
                hint="were the keys rotated since the backup? put the newer keys/checkpoint*.key back",
            ) from error

    def _ask(self, witnesses: Sequence[Witness], tree: TileReader, note: Note) -> None:
        """Have each witness say that it has seen nothing else: it cosigns what continues what it saw, and nothing besides."""
        for witness in witnesses:
            witness.cosign(note, tree, self.signer.verifier_keys)

    def _catch_up(
        self, size: int, tree: TileReader, newest: Shown, asked: Sequence[str], without: Sequence[str]
    ) -> None:
        """Write the tree up to the newest head, then keep the head, what was lost, and that the log may go on."""
        tiles = Tiles(self.folder, size)
        lost = [tree.subtree(0, place) for place in range(size, newest.head.size)]
        tiles.append(lost)
        tiles.publish()
        if merkle.root(tiles, tiles.size) != newest.head.root:
            raise HostError("ALARM: the log's tiles are not the tree that was signed", hint=RESTORE)
        note = newest.note.render()
        rows = [UnclaimedPlace(place=size + n, leaf=leaf.hex()) for n, leaf in enumerate(lost)]
        with transaction.atomic():
            if lost:
                UnclaimedPlace.objects.bulk_create(rows, batch_size=_BATCH)
                CheckpointRecord.objects.create(size=tiles.size, note=note.decode("utf-8"))
            self._release(Verb.LOG_COMPARE, tiles.size, asked, without)
        tiles.write_checkpoint(note)

    def _release(self, verb: Verb, size: int, asked: Sequence[str], without: Sequence[str]) -> None:
        with transaction.atomic():
            LogRelease.objects.create(
                backup=self.restored.backup, size=size, asked=list(asked), without=list(without)
            )
            record(verb, "log", {"size": (None, size)})


def _verify_one_tree(tree: TileReader, shown: Sequence[Shown]) -> None:
    for one in shown:
        if merkle.root(tree, one.head.size) != one.head.root:
            raise RefusedError(
                f"ALARM: {one.place.name} shows another log, signed with this one's keys",
                field="log",
                hint="keep what the nodes show as evidence; then: appliance control log succeed",
            )


def _nothing(_path: str) -> bytes | None:
    return None
