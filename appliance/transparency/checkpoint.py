"""Checkpoints: the size and root of the log's tree, signed by the log and cosigned by witnesses.

Each checkpoint has two signatures of the log: Ed25519 over the note's text (c2sp.org/tlog-checkpoint), which everybody's
tools verify, and ML-DSA-44 over the tree head (c2sp.org/tlog-cosignature, FIPS 204), which a quantum computer does not forge.
A verifier asks for both, so that neither can be left out. Witnesses cosign with ML-DSA-44.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA44PublicKey

from appliance.transparency.errors import (
    LogFormatError,
    LogSignatureError,
    OtherLogError,
    WitnessError,
)
from appliance.transparency.merkle import HASH_BYTES
from appliance.transparency.note import Kind, Note, Signature, VerifierKey, decode, encode

_SIZE: Final = re.compile(r"(0|[1-9][0-9]{0,18})\Z", re.ASCII)
_ORIGIN: Final = re.compile(r"[!-*,-~]{1,255}\Z", re.ASCII)  # printable, no space, no plus
_LABEL: Final = b"subtree/v1\n\0"


@dataclass(frozen=True)
class Checkpoint:
    """The head of a tree.

    Attributes:
        origin: Name of the log.
        size: Entries.
        root: 32 bytes.
    """

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        """The text that is signed."""
        return f"{self.origin}\n{self.size}\n{encode(self.root)}\n"

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Read the text of a checkpoint. Our logs write no extension lines, and none are accepted.

        Raises:
            LogFormatError: If it is not byte for byte what `text` would be.
        """
        lines = text.split("\n")
        if len(lines) != 4 or lines[3] or not _ORIGIN.match(lines[0]) or not _SIZE.match(lines[1]):
            raise LogFormatError("not a checkpoint", field="checkpoint")
        root = decode(lines[2], "checkpoint")
        if len(root) != HASH_BYTES or int(lines[1]) >= 2**63:
            raise LogFormatError("not a checkpoint", field="checkpoint")
        return cls(lines[0], int(lines[1]), root)


@dataclass(frozen=True)
class Cosigner:
    """Whoever signs tree heads with ML-DSA-44: the log itself, or a witness.

    Attributes:
        name: Its own.
        key: Its private key.
    """

    name: str
    key: MLDSA44PrivateKey

    @property
    def verifier_key(self) -> VerifierKey:
        """The public half."""
        return VerifierKey(self.name, Kind.MLDSA44_COSIGNATURE, self.key.public_key().public_bytes_raw())

    def cosign(self, checkpoint: Checkpoint, timestamp: int) -> Signature:
        """State that this is the log's largest tree at this time, in seconds since 1970.

        Whoever calls this has checked that the tree continues the last one.
        """
        signed = self.key.sign(_cosigned_message(self.name, timestamp, checkpoint))
        return Signature(self.name, self.verifier_key.id, timestamp.to_bytes(8, "big") + signed)


@dataclass(frozen=True)
class LogSigner:
    """The log's two keys.

    Attributes:
        origin: Name of the log, and of its keys.
        ed25519, mldsa44: Private keys, for checkpoints alone.
        retiring: The keys before these, while there are verifiers that know no others.
    """

    origin: str
    ed25519: Ed25519PrivateKey
    mldsa44: MLDSA44PrivateKey
    retiring: LogSigner | None = None

    @property
    def verifier_keys(self) -> tuple[VerifierKey, VerifierKey]:
        """The public halves, not of those that retire."""
        raw = self.ed25519.public_key().public_bytes_raw()
        return VerifierKey(self.origin, Kind.ED25519, raw), self._cosigner.verifier_key

    def sign(self, size: int, root: bytes, timestamp: int) -> Note:
        """Return a signed checkpoint."""
        checkpoint = Checkpoint(self.origin, size, root)
        signed = self.ed25519.sign(checkpoint.text.encode())
        first = Signature(self.origin, self.verifier_keys[0].id, signed)
        ours = first, self._cosigner.cosign(checkpoint, timestamp)
        theirs = self.retiring.sign(size, root, timestamp).signatures if self.retiring else ()
        return Note(checkpoint.text, (*ours, *theirs))

    @property
    def _cosigner(self) -> Cosigner:
        return Cosigner(self.origin, self.mldsa44)


@dataclass(frozen=True)
class Policy:
    """Whose signatures a checkpoint needs.

    Attributes:
        ed25519, mldsa44: Keys of the log; their name is its origin.
        witnesses: Keys of those whose cosignatures count.
        quorum: How many of them are needed. One that is named twice counts once.

    Raises:
        LogFormatError: If the keys are of other kinds: one kind of signature alone must never do.
    """

    ed25519: VerifierKey
    mldsa44: VerifierKey
    witnesses: tuple[VerifierKey, ...] = ()
    quorum: int = 0

    def __post_init__(self) -> None:
        if (self.ed25519.kind, self.mldsa44.kind) != (Kind.ED25519, Kind.MLDSA44_COSIGNATURE):
            raise LogFormatError("a log has a key of each kind", field="key")
        if any(key.kind is not Kind.MLDSA44_COSIGNATURE for key in self.witnesses):
            raise LogFormatError("a witness cosigns with ML-DSA-44", field="key")

    def verify(self, note: Note) -> Checkpoint:
        """Return the checkpoint that a note holds.

        Raises:
            LogFormatError: If it holds none.
            OtherLogError: If it is another log's.
            LogSignatureError: If one of the log's signatures is missing, or any of a known key does not verify.
            WitnessError: If too few witnesses have cosigned.
        """
        checkpoint = Checkpoint.parse(note.text)
        if checkpoint.origin != self.ed25519.name or self.mldsa44.name != self.ed25519.name:
            raise OtherLogError("a checkpoint of another log", field="origin")
        for key in (self.ed25519, self.mldsa44):
            if not _signed(note, key, checkpoint):
                raise LogSignatureError("the log has not signed this with both keys", field="signature")
        cosigned = self.count_witnesses(note)
        if cosigned < self.quorum:
            raise WitnessError(f"{cosigned} of {self.quorum} witnesses have cosigned", field="signature")
        return checkpoint

    def count_witnesses(self, note: Note) -> int:
        """Return how many of the witnesses have cosigned a head.

        Raises:
            LogFormatError: If the note holds none.
            LogSignatureError: If a witness's signature does not verify.
        """
        checkpoint = Checkpoint.parse(note.text)
        return sum(_signed(note, key, checkpoint) for key in set(self.witnesses))


def verify_cosignature(key: VerifierKey, checkpoint: Checkpoint, signature: Signature) -> None:
    """Check a cosignature; return None or raise.

    Raises:
        LogSignatureError: If this key did not make it for this checkpoint.
    """
    try:
        public = MLDSA44PublicKey.from_public_bytes(key.public)
        timestamp = int.from_bytes(signature.data[:8], "big")
        public.verify(signature.data[8:], _cosigned_message(key.name, timestamp, checkpoint))
    except (ValueError, InvalidSignature) as error:
        raise LogSignatureError("a cosignature does not verify", field="signature") from error


def _signed(note: Note, key: VerifierKey, checkpoint: Checkpoint) -> bool:
    """Whether a key has signed a note; a signature of its that does not verify spoils the note."""
    made = [signature for signature in note.signatures if signature.by(key)]
    for signature in made:
        if key.kind is Kind.MLDSA44_COSIGNATURE:
            verify_cosignature(key, checkpoint, signature)
            continue
        try:
            Ed25519PublicKey.from_public_bytes(key.public).verify(signature.data, note.text.encode())
        except (ValueError, InvalidSignature) as error:
            raise LogSignatureError("the log's signature does not verify", field="signature") from error
    return bool(made)


def _cosigned_message(name: str, timestamp: int, checkpoint: Checkpoint) -> bytes:
    """Return the `cosigned_message` of c2sp.org/tlog-cosignature for a whole tree."""
    cosigner, origin = name.encode(), checkpoint.origin.encode()
    return b"".join(
        (
            _LABEL,
            len(cosigner).to_bytes(1, "big"),
            cosigner,
            timestamp.to_bytes(8, "big"),
            len(origin).to_bytes(1, "big"),
            origin,
            (0).to_bytes(8, "big"),
            checkpoint.size.to_bytes(8, "big"),
            checkpoint.root,
        )
    )
