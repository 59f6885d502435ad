"""The log of receipts in control: places, checkpoints and proofs, and every stop harmless."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from control_cast import stored_node
from django.conf import settings
from django.contrib.auth.models import User
from rest_framework.test import APIClient
from simulated_node import SimulatedNode

from appliance.core.errors import HostError, RefusedError
from appliance.core.receipt import NodeKey, make_keyring
from appliance.core.signing import public_text
from appliance.transparency.checkpoint import Checkpoint, Policy
from appliance.transparency.errors import NotLoggedError
from appliance.transparency.note import Note
from appliance.transparency.proof import Continuation
from appliance.transparency.tiles import read_checkpoint
from control.audit.models import ReceiptRecord
from control.audit.services import admit_receipt
from control.fleet.models import Node
from control.reconciler.keys import ReconcilerKeys
from control.transparency import keeper as module
from control.transparency.archive import make_archive
from control.transparency.keeper import Keeper
from control.transparency.models import CheckpointRecord
from control.transparency.proofs import prove, prove_continuation

pytestmark = pytest.mark.django_db

PSEUDONYM = "ab" * 32
Issue = Callable[[int], list[ReceiptRecord]]


@pytest.fixture
def node_row(db: None) -> Node:
    return stored_node()


@pytest.fixture
def issue(node_row: Node, keys: ReconcilerKeys) -> Issue:
    """Receipts as a node signs them, admitted."""
    simulated = SimulatedNode("node-a", public_text(keys.bundle))
    certified = NodeKey(node="node-a", public_key=public_text(simulated.receipt_key))
    keyring = make_keyring((certified,), keys.log)
    settings.PATHS.keyring.write_bytes(keyring.canonical_bytes())

    def admit(count: int) -> list[ReceiptRecord]:
        signed = [simulated.issue_receipt(PSEUDONYM) for _ in range(count)]
        for receipt in signed:
            assert admit_receipt(node_row, receipt, keyring)
        return list(ReceiptRecord.objects.order_by("-pk")[:count])[::-1]

    return admit


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "log"


def keeper(folder: Path, keys: ReconcilerKeys) -> Keeper:
    return Keeper(folder, keys.checkpoints)


def policy(keys: ReconcilerKeys) -> Policy:
    return Policy(*keys.checkpoints.verifier_keys)


def test_verified_receipts_get_their_places_in_the_order_in_which_they_came(
    issue: Issue, folder: Path, keys: ReconcilerKeys
) -> None:
    issue(3)
    ReceiptRecord.objects.filter(seq=2).update(verified=False)
    assert keeper(folder, keys).keep() == 2
    assert list(ReceiptRecord.objects.order_by("pk").values_list("place", flat=True)) == [0, None, 1]


def test_every_receipt_is_proven_and_every_head_continues_every_earlier_one(
    issue: Issue, folder: Path, keys: ReconcilerKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "INTERVAL_S", 0.0)
    kept = keeper(folder, keys)
    for count in (1, 2, 5):
        issue(count)
        assert kept.keep() == count
    for record in ReceiptRecord.objects.all():
        record_bytes = record.signed().canonical_bytes()
        assert prove(record, folder).verify(record_bytes, policy(keys)).size == 8
    heads = [Checkpoint.parse(Note.parse(row.note.encode()).text) for row in CheckpointRecord.objects.all()]
    assert [head.size for head in heads] == [1, 3, 8]
    for head in heads:
        assert prove_continuation(head.size, folder).verify(head, policy(keys)) == heads[-1]


def test_heads_are_signed_once_a_minute_or_when_a_thousand_wait(
    issue: Issue, folder: Path, keys: ReconcilerKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FULL", 4)
    kept = keeper(folder, keys)
    issue(2)
    assert kept.keep() == 2  # the first at once
    issue(3)
    assert kept.keep() == 0
    issue(1)
    assert kept.keep() == 4
    assert kept.keep() == 0


@pytest.mark.parametrize("stage", ["publish", "commit"])
def test_a_stop_between_files_and_database_loses_and_doubles_nothing(
    stage: str, issue: Issue, folder: Path, keys: ReconcilerKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "INTERVAL_S", 0.0)
    kept = keeper(folder, keys)
    issue(300)
    kept.keep()
    issue(300)

    class Stopped(BaseException):
        pass

    def stop(*_: object, **__: object) -> None:
        raise Stopped

    with monkeypatch.context() as patched:
        if stage == "publish":
            patched.setattr(module.Tiles, "publish", stop)
        else:
            patched.setattr(CheckpointRecord.objects, "create", stop)
        with pytest.raises(Stopped):
            kept.keep()
    assert CheckpointRecord.objects.count() == 1
    # Some of them turn out to be forged meanwhile: what was written before must not count.
    ReceiptRecord.objects.filter(place__isnull=True, seq__lte=310).update(verified=False)
    for one in (kept, keeper(folder, keys)):
        one.keep()
    places = ReceiptRecord.objects.filter(verified=True).order_by("pk").values_list("place", flat=True)
    assert list(places) == list(range(590))
    for record in ReceiptRecord.objects.filter(place__in=(0, 255, 256, 299, 300, 511, 589)):
        prove(record, folder).verify(record.signed().canonical_bytes(), policy(keys))


def test_tiles_that_are_not_what_was_signed_raise_the_alarm(
    issue: Issue, folder: Path, keys: ReconcilerKeys
) -> None:
    issue(3)
    keeper(folder, keys).keep()
    tile = folder / "tile/0/000.p/3"
    tile.write_bytes(bytes(96))
    issue(1)
    with pytest.raises(HostError, match="ALARM"):
        keeper(folder, keys).keep()
    assert CheckpointRecord.objects.count() == 1


def test_a_database_from_a_backup_does_not_sign_a_fork(
    issue: Issue, folder: Path, keys: ReconcilerKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "INTERVAL_S", 0.0)
    kept = keeper(folder, keys)
    issue(2)
    kept.keep()
    issue(3)
    kept.keep()
    CheckpointRecord.objects.filter(size=5).delete()
    ReceiptRecord.objects.filter(place__gte=2).delete()
    issue(1)
    with pytest.raises(HostError, match="more receipts than the database knows"):
        keeper(folder, keys).keep()
    assert CheckpointRecord.objects.count() == 1


def test_the_checkpoint_beside_the_tiles_may_lag_behind_the_database(
    issue: Issue, folder: Path, keys: ReconcilerKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "INTERVAL_S", 0.0)
    issue(2)
    keeper(folder, keys).keep()
    earlier = read_checkpoint(folder)
    issue(3)
    keeper(folder, keys).keep()
    (folder / "checkpoint").write_bytes(earlier)  # stopped between commit and file
    issue(1)
    assert keeper(folder, keys).keep() == 1
    assert policy(keys).verify(Note.parse(read_checkpoint(folder))).size == 6


def test_other_keys_do_not_go_on_with_a_log(
    issue: Issue, folder: Path, keys: ReconcilerKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    issue(1)
    keeper(folder, keys).keep()
    issue(1)
    with pytest.raises(HostError, match="other keys"):
        Keeper(folder, replace(keys.checkpoints, origin="elsewhere.example/log")).keep()


def test_a_receipt_without_a_place_has_no_proof(issue: Issue, folder: Path) -> None:
    (record,) = issue(1)
    with pytest.raises(NotLoggedError):
        prove(record, folder)
    record.verified = False
    with pytest.raises(RefusedError):
        prove(record, folder)


def test_the_archive_verifies_with_what_is_in_it_and_the_root_key(
    issue: Issue, keys: ReconcilerKeys, operator: User, tmp_path: Path
) -> None:
    (record,) = issue(1)
    api = APIClient()
    api.force_authenticate(operator)
    assert api.get(f"/api/v1/receipts/{record.pk}/archive", secure=True).status_code == 503
    write_log_keys(keys)
    keeper(settings.PATHS.log, keys).keep()
    answer = api.get(f"/api/v1/receipts/{record.pk}/archive", secure=True)
    assert (answer.status_code, answer["Content-Type"]) == (200, "application/zip")
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        archive.extractall(tmp_path)
    proof = api.get(f"/api/v1/receipts/{record.pk}/proof", secure=True)
    assert proof.content == (tmp_path / "receipt.tlog-proof").read_bytes()
    shown = verify_as_shown(tmp_path)
    assert [way.returncode for way in shown] == [0, 0, 0], [way.stderr for way in shown]
    assert shown[0].stdout == "valid\n"


@pytest.mark.parametrize("name", ["receipt.json", "keyring.json", "receipt.tlog-proof"])
def test_every_way_that_the_archive_shows_refuses_a_changed_file(
    issue: Issue, keys: ReconcilerKeys, name: str, tmp_path: Path
) -> None:
    (record,) = issue(1)
    write_log_keys(keys)
    keeper(settings.PATHS.log, keys).keep()
    record.refresh_from_db()
    with zipfile.ZipFile(io.BytesIO(make_archive(record, settings.PATHS))) as archive:
        archive.extractall(tmp_path)
    file = tmp_path / name
    old, new = CHANGES[name]
    assert old in file.read_bytes()
    file.write_bytes(file.read_bytes().replace(old, new, 1))
    python, openssh, openssl = (way.returncode != 0 for way in verify_as_shown(tmp_path))
    assert python
    assert openssl
    assert openssh is (name != "receipt.tlog-proof"), (
        "the head of the log is not signed with OpenSSH's format"
    )


CHANGES = {
    "receipt.json": (b'"seq":1', b'"seq":2'),
    "keyring.json": (b'"node":"node-a"', b'"node":"node-b"'),
    "receipt.tlog-proof": (b"\n1\n", b"\n2\n"),
}


def write_log_keys(keys: ReconcilerKeys) -> None:
    lines = (f"{key.render()}\n" for key in keys.checkpoints.verifier_keys)
    settings.PATHS.log_keys.write_text("".join(lines), "utf-8")


def verify_as_shown(folder: Path) -> list[subprocess.CompletedProcess[str]]:
    """Run the three blocks of commands in VERIFY.md, word for word."""
    page = (folder / "VERIFY.md").read_text("utf-8")
    environment = {
        "ROOT": json.loads((folder / "keyring.json").read_bytes())["log_key"],
        "LOG": "log.vkey",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    blocks = re.findall(r"^```sh\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    return [
        subprocess.run(
            ["sh", "-c", block], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        for block in blocks
    ]


def test_heads_and_continuations_are_handed_out(
    issue: Issue, keys: ReconcilerKeys, operator: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "INTERVAL_S", 0.0)
    api = APIClient()
    api.force_authenticate(operator)
    assert api.get("/api/v1/log/checkpoint", secure=True).status_code == 503
    kept = keeper(settings.PATHS.log, keys)
    issue(2)
    kept.keep()
    first = policy(keys).verify(Note.parse(api.get("/api/v1/log/checkpoint", secure=True).content))
    issue(3)
    kept.keep()
    answer = api.get("/api/v1/log/continuation?old=2", secure=True)
    assert Continuation.parse(answer.content).verify(first, policy(keys)).size == 5
    for query in ("old=6", "old=-1", "old=02", "old=x", "new=1", "old=1&old=2"):
        assert api.get(f"/api/v1/log/continuation?{query}", secure=True).status_code == 400
    assert APIClient().get("/api/v1/log/checkpoint", secure=True).status_code in {401, 403}
