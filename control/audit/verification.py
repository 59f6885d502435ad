"""Verifies a stored receipt again, step by step, as its client would: from the stored bytes, the published keys and the log's files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import NamedTuple

from appliance.core.errors import ApplianceError, HostError, RefusedError, UnavailableError
from appliance.core.receipt import Keyring, certify
from appliance.transparency.checkpoint import Policy
from appliance.transparency.merkle import leaf_hash, verify_inclusion
from appliance.transparency.note import VerifierKey
from appliance.transparency.proof import Proof
from control.audit.models import ReceiptRecord
from control.config import ControlPaths, WitnessConfig
from control.transparency.proofs import prove


class Outcome(StrEnum):
    """What came of a step."""

    PASSED = "passed"
    FAILED = "failed"
    WAITING = "waiting"  # nothing is wrong; it cannot be known yet
    SKIPPED = "not tried"  # a step before it did not pass


class Step(NamedTuple):
    """One step of a verification.

    Attributes:
        title: What is checked.
        outcome: What came of it.
        detail: What was found, or why it did not pass.
    """

    title: str
    outcome: Outcome
    detail: str


class Verification:
    """One receipt under examination. Each method is a step: it returns what it found, or raises.

    Args:
        record: The stored receipt.
        paths: Where keys and log are.
        witnesses: Who cosigns.
    """

    def __init__(
        self, record: ReceiptRecord, paths: ControlPaths, witnesses: Iterable[WitnessConfig]
    ) -> None:
        self._record = record
        self._paths = paths
        self._witnesses = tuple(VerifierKey.parse(witness.key) for witness in witnesses)
        self._proof: Proof | None = None

    def steps(self) -> tuple[Step, ...]:
        """Take every step in order; after one that does not pass the others are not tried."""
        done: list[Step] = []
        stopped = False
        for title, check in self._plan():
            if stopped:
                done.append(Step(title, Outcome.SKIPPED, ""))
                continue
            outcome, detail = _try(check)
            stopped = outcome is not Outcome.PASSED
            done.append(Step(title, outcome, detail))
        return tuple(done)

    def _plan(self) -> list[tuple[str, Callable[[], str]]]:
        return [
            ("What is stored is what was signed", self._stored),
            ("The node's key is certified, and its signature verifies", self._signed),
            ("The log gave it a place", self._placed),
            ("The head of the log is signed with both of its keys", self._head),
            ("The proof leads from the receipt to that head", self._included),
            *([("Witnesses cosigned the head", self._cosigned)] if self._witnesses else []),
        ]

    def _stored(self) -> str:
        if self._record.signed().receipt.digest != self._record.digest:
            raise RefusedError("the text has another digest than when it came in", field="digest")
        return f"SHA-256 {self._record.digest}"

    def _signed(self) -> str:
        signed = self._record.signed()
        keyring = Keyring.parse_canonical(_read(self._paths))
        certify(keyring).verify(
            node=signed.receipt.node,
            key=signed.key,
            content=signed.receipt.canonical_bytes(),
            signature=signed.signature,
        )
        return f"Ed25519, key {signed.key} of {signed.receipt.node}"

    def _placed(self) -> str:
        self._proof = prove(self._record, self._paths.log)
        return f"Place {self._proof.index:,}, counted from 0"

    def _head(self) -> str:
        checkpoint = self._policy().verify(self._proven().checkpoint)
        return f"Ed25519 and ML-DSA-44 over a tree of {checkpoint.size:,} receipts"

    def _included(self) -> str:
        proof = self._proven()
        checkpoint = self._policy().verify(proof.checkpoint)
        leaf = leaf_hash(self._record.signed().canonical_bytes())
        verify_inclusion(leaf, proof.index, checkpoint.size, proof.hashes, checkpoint.root)
        return f"{len(proof.hashes)} hashes from leaf to root"

    def _cosigned(self) -> str:
        count = self._policy(self._witnesses).count_witnesses(self._proven().checkpoint)
        if not count:
            raise UnavailableError(
                "no witness has cosigned this head", hint="see that witnesses answer control"
            )
        return f"{count} of {len(self._witnesses)}"

    def _proven(self) -> Proof:
        if self._proof is None:
            raise RefusedError("there is no proof yet", field="proof")
        return self._proof

    def _policy(self, witnesses: tuple[VerifierKey, ...] = ()) -> Policy:
        ed25519, mldsa44 = map(VerifierKey.parse, self._paths.log_keys.read_text("utf-8").split())
        return Policy(ed25519, mldsa44, witnesses)


def _try(check: Callable[[], str]) -> tuple[Outcome, str]:
    try:
        return Outcome.PASSED, check()
    except UnavailableError as waiting:
        return Outcome.WAITING, _said(waiting)
    except ApplianceError as error:
        return Outcome.FAILED, _said(error)


def _said(error: ApplianceError) -> str:
    return f"{error.reason}; {error.hint}" if error.hint else error.reason


def _read(paths: ControlPaths) -> bytes:
    try:
        return paths.keyring.read_bytes()
    except OSError as error:
        raise HostError(
            "the published keys cannot be read", hint="restart the reconciler; it writes them"
        ) from error
