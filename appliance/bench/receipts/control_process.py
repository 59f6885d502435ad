"""A control process under measurement: `python -m appliance.bench.receipts.control_process make|measure FOLDER ...`.

`make FOLDER LEAVES ADMISSIONS` fills it (`grown`). `measure FOLDER` answers each line on its standard input, a count, with a `Took` object
for so many receipts that were pulled, admitted and logged; when its input ends, with a `Proofs` object. One process for each size,
since Django has one database and the memory of a process one peak.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.bench.receipts.grown import make_grown
from appliance.bench.serve.memory import cpu_s, peak_bytes
from appliance.core.errors import HostError
from appliance.core.receipt import Keyring
from appliance.transparency.checkpoint import Cosigner, Policy
from appliance.transparency.errors import InclusionError
from appliance.transparency.note import Note
from appliance.transparency.proof import Proof
from provisioning.node import NodeClient

if TYPE_CHECKING:
    from control.audit.models import ReceiptRecord
    from control.config import ControlPaths
    from control.fleet.models import Node

_BARE: Final = 500
PROVEN: Final = 200  # proofs that are made, and as many that are verified


@dataclass(frozen=True)
class Took:
    """How long it took to admit some receipts.

    Attributes:
        wall_s: Seconds by the clock.
        cpu_s: Seconds of the processor, of this process and its verifier, which other processes of the machine lengthen less.
        bare_s: Seconds of the processor for one bare Ed25519 verification, right afterwards: what no admission can do without.
    """

    wall_s: float
    cpu_s: float
    bare_s: float


@dataclass(frozen=True)
class Proofs:
    """What was seen of one log after its last admission.

    Attributes:
        size: Leaves.
        rows: Receipts in the database.
        proven, verified: Proofs that were made, and those of them that were verified.
        proof_bytes: The largest proof.
        witness_bytes: What a witness adds to one.
        prove_ms, verify_ms: Medians.
        receipt_bytes: What the database grew by for each receipt that was admitted.
        leaf_bytes: Of the log's folder on the disk, for each leaf.
        peak_bytes: The largest resident set of the process that admitted, and of its verifier.
        refused_other: No proof of another leaf verified.
        refused_changed: A receipt that was changed after it was signed got an alarm and no place.
    """

    size: int
    rows: int
    proven: int
    verified: int
    proof_bytes: int
    witness_bytes: int
    prove_ms: float
    verify_ms: float
    receipt_bytes: float
    leaf_bytes: float
    peak_bytes: int
    refused_other: bool
    refused_changed: bool


class Journal:
    """A node that hands out a file's entries in the real protocol, as far as they are shown; `provisioning.channel.Connection`."""

    def __init__(self, path: Path) -> None:
        self._entries = path.open("rb")
        self._given = self._shown = 0
        self._asked: dict[str, Any] = {}

    def show(self, count: int) -> None:
        """Let the next entries be seen."""
        self._shown += count

    def open_channel(self) -> Journal:
        return self

    def close(self) -> None:
        self._entries.close()

    def send(self, data: bytes, timeout_s: float) -> None:  # noqa: ARG002
        self._asked = json.loads(data)

    def receive_line(self, limit: int, timeout_s: float) -> bytes:  # noqa: ARG002
        if self._asked["op"] != "receipts" or self._asked["after"] != self._given:
            raise HostError("the journal under measurement is read in order")
        count = min(self._asked["limit"], self._shown - self._given)
        entries = b",".join(self._entries.readline() for _ in range(count))
        self._given += count
        return b'{"id":%d,"ok":true,"result":{"entries":[%b],"next":%d}}' % (
            self._asked["id"],
            entries,
            self._given,
        )


class Admission:
    """A control that pulls from a journal and keeps its log."""

    def __init__(self, folder: Path, paths: ControlPaths) -> None:
        from control.fleet.models import Node
        from control.reconciler.keys import read_keys
        from control.transparency.keeper import Keeper

        self._paths = paths
        self._signer = read_keys(paths).checkpoints
        self._policy = Policy(*self._signer.verifier_keys)
        self._journal = Journal(folder / "journal")
        self._client = NodeClient(self._journal)
        self._keyring = Keyring.parse_canonical(paths.keyring.read_bytes())
        self._keeper = Keeper(paths.log, self._signer)
        self._node: Node = Node.objects.get()
        self._database_bytes = self._checkpointed_bytes()
        self._admitted = 0

    def admit(self, count: int) -> Took:
        """Pull, verify and store so many receipts and give them their places in the log.

        Raises:
            HostError: If not all of them were.
        """
        from control.reconciler.receipts import pull_receipts

        self._journal.show(count)
        started, worked = time.perf_counter(), _cpu_s()
        new = pull_receipts(self._node, self._client, self._keyring)
        kept = 0
        while added := self._keeper.keep():
            kept += added
        wall_s, cpu_s = time.perf_counter() - started, _cpu_s() - worked
        if (new, kept) != (count, count):
            raise HostError(f"of {count} receipts {new} were stored and {kept} logged")
        self._admitted += count
        return Took(wall_s, cpu_s, _bare_verification_s())

    def observe(self) -> Proofs:
        """Return everything but the time of admission."""
        from control.audit.models import ReceiptRecord
        from control.transparency.proofs import newest_checkpoint

        peak = sum(map(peak_bytes, _pids()))
        receipt_bytes = (self._checkpointed_bytes() - self._database_bytes) / self._admitted
        size = self._policy.verify(newest_checkpoint()).size
        step = max(1, size // PROVEN)
        anywhere = [ReceiptRecord.objects.get(place=place) for place in range(0, size, step)]
        newest = list(ReceiptRecord.objects.order_by("-pk")[: min(PROVEN, self._admitted)])
        proofs, prove_ms = _time([partial(self._prove, record) for record in anywhere + newest])
        entries = [record.signed().canonical_bytes() for record in newest]
        ours = list(zip(proofs[len(anywhere) :], entries, strict=True))
        _, verify_ms = _time([partial(self._verify, proof, entry) for proof, entry in ours])
        others = zip(proofs[len(anywhere) :], entries[1:] + entries[:1], strict=True)
        return Proofs(
            size=size,
            rows=ReceiptRecord.objects.count(),
            proven=len(proofs),
            verified=len(ours),
            proof_bytes=max(map(len, proofs)),
            witness_bytes=self._witness_bytes(proofs[0]),
            prove_ms=prove_ms,
            verify_ms=verify_ms,
            receipt_bytes=receipt_bytes,
            leaf_bytes=_disk_bytes(self._paths.log) / size,
            peak_bytes=peak,
            refused_other=not any(self._verifies(proof, entry) for proof, entry in others),
            refused_changed=self._refuses_changed(),
        )

    def _prove(self, record: ReceiptRecord) -> bytes:
        from control.transparency.proofs import prove

        return prove(record, self._paths.log).render()

    def _verify(self, proof: bytes, entry: bytes) -> None:
        Proof.parse(proof).verify(entry, self._policy)

    def _verifies(self, proof: bytes, entry: bytes) -> bool:
        try:
            self._verify(proof, entry)
        except InclusionError:
            return False
        return True

    def _witness_bytes(self, data: bytes) -> int:
        from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey

        proof = Proof.parse(data)
        witness = Cosigner("witness.example/bench", MLDSA44PrivateKey.generate())
        made = witness.cosign(self._policy.verify(proof.checkpoint), int(time.time()))
        note = Note(proof.checkpoint.text, (*proof.checkpoint.signatures, made))
        return len(Proof(proof.index, proof.hashes, note).render()) - len(data)

    def _refuses_changed(self) -> bool:
        """Pull the journal's last entry, whose receipt was changed."""
        from control.audit.models import Alarm, AlarmKind
        from control.reconciler.receipts import pull_receipts
        from control.transparency.keeper import waiting

        if Alarm.objects.exists():
            return False
        self._journal.show(1)
        pull_receipts(self._node, self._client, self._keyring)
        return Alarm.objects.filter(kind=AlarmKind.BAD_SIGNATURE).count() == 1 and not waiting().exists()

    def _checkpointed_bytes(self) -> int:
        """Move SQLite's write-ahead log into the database; return the database's size."""
        from django.db import connection

        with connection.cursor() as cursor:
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return self._paths.database.stat().st_size


def _pids() -> list[int]:
    """Return this process and the one that it has verify receipts."""
    return [os.getpid(), *(child.pid for child in multiprocessing.active_children() if child.pid)]


def _cpu_s() -> float:
    return sum(map(cpu_s, _pids()))


def _bare_verification_s() -> float:
    key = Ed25519PrivateKey.generate()
    public, message = key.public_key(), bytes(64)
    signature = key.sign(message)
    started = time.process_time()
    for _ in range(_BARE):
        public.verify(signature, message)
    return (time.process_time() - started) / _BARE


def _time(calls: Sequence[Callable[[], Any]]) -> tuple[list[Any], float]:
    """Return what some calls return, and the median of the milliseconds that each took."""
    returned, took = [], []
    for call in calls:
        started = time.perf_counter()
        returned.append(call())
        took.append((time.perf_counter() - started) * 1000)
    return returned, statistics.median(took)


def _disk_bytes(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def main(argv: Sequence[str]) -> None:
    """Fill or measure."""
    verb, folder = argv[0], Path(argv[1])
    if verb == "make":
        make_grown(folder, int(argv[2]), int(argv[3]))
        return
    from control.config import read_config
    from control.startup import start_django

    config = folder / "control/control.json"
    start_django(config)
    admission = Admission(folder, read_config(config).paths)
    for line in sys.stdin:
        print(json.dumps(asdict(admission.admit(int(line)))), flush=True)
    print(json.dumps(asdict(admission.observe())), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
