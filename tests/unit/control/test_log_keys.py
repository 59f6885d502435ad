"""The log's keys are rotated in place: whoever trusts the old ones or the new ones goes on, until the old ones retire."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from control_cast import stored_node
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from django.conf import settings
from simulated_node import SimulatedNode

from appliance.core.errors import HostError, RefusedError
from appliance.core.receipt import NodeKey, make_keyring
from appliance.core.signing import public_text
from appliance.core.storage import read_or_none
from appliance.transparency.checkpoint import Cosigner, Policy
from appliance.transparency.errors import LogSignatureError
from appliance.transparency.memory import Memory
from appliance.transparency.note import Note, VerifierKey
from appliance.transparency.tiles import read_checkpoint
from control import keyfiles
from control.audit.models import ReceiptRecord
from control.audit.services import admit_receipt
from control.config import ControlPaths
from control.keyfiles import (
    make_keys,
    publish,
    publish_log_keys,
    read_log_signer,
    retire_log_keys,
    rotate_log_keys,
)
from control.reconciler.keys import ReconcilerKeys, read_keys
from control.reconciler.service import Reconciler
from control.transparency import keeper as module
from control.transparency.keeper import Keeper
from control.transparency.models import CheckpointRecord
from control.transparency.proofs import prove, prove_continuation

pytestmark = pytest.mark.django_db

Issue = Callable[[], ReceiptRecord]


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Sign at once; leave behind the keys that were there."""
    monkeypatch.setattr(module, "INTERVAL_S", 0.0)
    paths = settings.PATHS
    shutil.copytree(paths.keys, tmp_path / "keys")
    before = read_or_none(paths.log_keys)
    publish_log_keys(paths, read_log_signer(paths))
    yield
    shutil.rmtree(paths.keys)
    shutil.copytree(tmp_path / "keys", paths.keys)
    paths.log_keys.unlink() if before is None else paths.log_keys.write_bytes(before)


@pytest.fixture
def issue(keys: ReconcilerKeys) -> Issue:
    row = stored_node()
    simulated = SimulatedNode("node-a", public_text(keys.bundle))
    keyring = make_keyring((NodeKey(node="node-a", public_key=public_text(simulated.receipt_key)),), keys.log)

    def admit() -> ReceiptRecord:
        assert admit_receipt(row, simulated.issue_receipt("ab" * 32), keyring)
        return ReceiptRecord.objects.latest("pk")

    return admit


def reconcile() -> None:
    """Restart the reconciler and let it work once."""
    Reconciler(settings.PATHS, read_keys(settings.PATHS), 60.0)._keep_log()


def shown() -> Policy:
    """Return what an operator hands out now."""
    keys = [VerifierKey.parse(line) for line in settings.PATHS.log_keys.read_text("ascii").splitlines()]
    return Policy(keys[0], keys[1])


def head() -> Note:
    text = read_checkpoint(settings.PATHS.log)
    assert text is not None
    return Note.parse(text)


def test_both_keys_verify_until_the_old_ones_retire(issue: Issue, tmp_path: Path) -> None:
    issue()
    reconcile()
    old = shown()
    watching = Memory(tmp_path / "seen", old)
    watching.advance(prove_continuation(0, settings.PATHS.log))

    rotate_log_keys(settings.PATHS)
    assert shown() == old, "nobody is given keys with which nothing is signed"
    reconcile()
    new = shown()
    assert new.ed25519.name == old.ed25519.name, "it is the same log"
    assert {new.ed25519.public, new.mldsa44.public}.isdisjoint({old.ed25519.public, old.mldsa44.public})
    assert old.verify(head()) == new.verify(head()), "the head is signed again, though nothing was added"
    record = issue()
    reconcile()
    assert watching.advance(prove_continuation(1, settings.PATHS.log)).size == 2
    record.refresh_from_db()
    for policy in (old, new):
        prove(record, settings.PATHS.log).verify(record.signed().canonical_bytes(), policy)

    retire_log_keys(settings.PATHS)
    issue()
    reconcile()
    assert new.verify(head()).size == 3
    with pytest.raises(LogSignatureError):
        old.verify(head())
    followed = Memory(tmp_path / "seen", new)
    assert followed.advance(prove_continuation(2, settings.PATHS.log)).size == 3, "the memory goes on"


def test_a_thief_of_retired_keys_convinces_nobody_who_has_the_new_ones(issue: Issue) -> None:
    issue()
    reconcile()
    stolen = read_log_signer(settings.PATHS)
    rotate_log_keys(settings.PATHS)
    reconcile()
    retire_log_keys(settings.PATHS)
    reconcile()
    forged = stolen.sign(5, bytes(32), int(time.time()))
    Policy(*stolen.verifier_keys).verify(forged)
    with pytest.raises(LogSignatureError):
        shown().verify(forged)


def test_a_log_is_rotated_again_only_when_the_keys_before_have_retired(issue: Issue) -> None:
    issue()
    rotate_log_keys(settings.PATHS)
    with pytest.raises(RefusedError):
        rotate_log_keys(settings.PATHS)
    retire_log_keys(settings.PATHS)
    with pytest.raises(RefusedError):
        retire_log_keys(settings.PATHS)
    rotate_log_keys(settings.PATHS)
    reconcile()
    assert shown().verify(head()).size == 1


def test_another_user_than_the_keys_owner_rotates_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else root would write a key that the reconciler cannot read."""
    before = sorted(path.name for path in settings.PATHS.keys.iterdir())
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    for verb in (rotate_log_keys, retire_log_keys):
        with pytest.raises(HostError) as refused:
            verb(settings.PATHS)
        assert str(owner) in str(refused.value.hint)
    assert sorted(path.name for path in settings.PATHS.keys.iterdir()) == before


class StoppedError(Exception):
    """The machine stops here."""


STEPS = [
    (os, "link", 1),
    (os, "link", 2),
    (keyfiles, "sync_folder", 1),
    (keyfiles, "write_atomic", 1),
    (keyfiles, "write_atomic", 2),
]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: f"{step[1]}-{step[2]}")
def test_a_rotation_that_was_cut_off_anywhere_is_ended_by_the_next(
    step: tuple[object, str, int], issue: Issue, monkeypatch: pytest.MonkeyPatch
) -> None:
    issue()
    reconcile()
    old = shown()
    where, name, stop_at = step
    real, made = getattr(where, name), 0

    def stopping(*args: object, **named: object) -> object:
        nonlocal made
        made += 1
        if made == stop_at:
            raise StoppedError
        return real(*args, **named)

    with monkeypatch.context() as patched:
        patched.setattr(where, name, stopping)
        with pytest.raises(StoppedError):
            rotate_log_keys(settings.PATHS)
    reconcile()
    old.verify(head())
    between = shown()
    between.verify(head())
    with pytest.raises(RefusedError):
        retire_log_keys(settings.PATHS)

    rotate_log_keys(settings.PATHS)
    reconcile()
    new = shown()
    assert {new.ed25519.public, new.mldsa44.public}.isdisjoint({old.ed25519.public, old.mldsa44.public})
    assert old.verify(head()) == between.verify(head()) == new.verify(head())


@pytest.mark.parametrize("verb", [rotate_log_keys, retire_log_keys])
def test_a_retirement_that_was_cut_off_keeps_no_key_from_being_replaced(
    verb: Callable[[ControlPaths], None], issue: Issue
) -> None:
    issue()
    rotate_log_keys(settings.PATHS)
    reconcile()
    old = shown()
    (settings.PATHS.keys / "retiring-checkpoint.key").unlink()  # and here it was cut off
    verb(settings.PATHS)
    if verb is retire_log_keys:
        rotate_log_keys(settings.PATHS)
    reconcile()
    new = shown()
    assert {new.ed25519.public, new.mldsa44.public}.isdisjoint({old.ed25519.public, old.mldsa44.public})
    assert old.verify(head()) == new.verify(head())


def test_witnesses_are_asked_about_a_head_that_was_signed_again(issue: Issue) -> None:
    issue()
    witnessed = Keeper(settings.PATHS.log, read_log_signer(settings.PATHS), witnessed=True)
    assert witnessed.keep() == 1
    made = Cosigner("witness.example", MLDSA44PrivateKey.generate())
    last = CheckpointRecord.objects.get()
    note = Note.parse(last.note.encode())
    cosigned = note.cosigned(made.cosign(shown().verify(note), 1))
    CheckpointRecord.objects.update(note=cosigned.render().decode(), settled=True)

    rotate_log_keys(settings.PATHS)
    Keeper(settings.PATHS.log, read_log_signer(settings.PATHS), witnessed=True).keep()
    assert CheckpointRecord.settled_last() is None
    assert read_checkpoint(settings.PATHS.log) == b"", "who reads the folder waits for the witnesses"


def test_keys_of_another_log_are_refused(issue: Issue, tmp_path: Path) -> None:
    issue()
    reconcile()
    for name in keyfiles.LOG_KEYS:
        (settings.PATHS.keys / name).rename(tmp_path / name)
    settings.PATHS.log_keys.unlink()
    make_keys(settings.PATHS)
    publish(settings.PATHS)
    with pytest.raises(HostError):
        Keeper(settings.PATHS.log, read_log_signer(settings.PATHS)).keep()
