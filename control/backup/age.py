"""Encrypted files in the format age-encryption.org/v1, which `age` and `rage` open as well: so a backup outlives this program.

A file is for one recipient (X25519) or under one passphrase (scrypt). The content is sealed in chunks of 64 KiB; each says whether it
is the last, so a file that was cut, reordered or spliced is refused at the chunk where that shows.

    age-encryption.org/v1
    -> X25519 EPHEMERAL            or   -> scrypt SALT LOG2N
    WRAPPED FILE KEY
    --- MAC OF ALL ABOVE
    16 bytes of nonce, then the chunks

Source: https://age-encryption.org/v1, C2SP age.md.
"""

from __future__ import annotations

import base64
import binascii
import io
import os
from dataclasses import dataclass, field
from typing import BinaryIO, Final, Protocol

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from appliance.core.errors import RefusedError
from control.backup.bech32 import decode_bech32, encode_bech32

_VERSION: Final = b"age-encryption.org/v1"
_RECIPIENT: Final = "age"
_IDENTITY: Final = "age-secret-key-"
_CHUNK: Final = 64 * 1024
_TAG: Final = 16
_FILE_KEY: Final = 16
_NO_NONCE: Final = bytes(12)  # a wrapping key is used once
_MOST_LINE: Final = 1024  # bytes; ours have a hundred
LOG2N: Final = 18  # scrypt's work: 256 MiB and about a second, as age's own
_MOST_LOG2N: Final = 20  # a forged file must not take all of the memory


class Lock(Protocol):
    """Closes a file key for those who may read the file."""

    def wrap(self, file_key: bytes) -> tuple[list[bytes], bytes]:
        """Return a stanza: its arguments and its body."""


class Unlock(Protocol):
    """Opens what a lock closed."""

    def unwrap(self, arguments: list[bytes], body: bytes) -> bytes | None:
        """Return the file key; None where the stanza is not for this one."""


@dataclass(frozen=True)
class Recipient:
    """A public key that files are encrypted to.

    Attributes:
        public: 32 bytes, X25519.
    """

    public: bytes

    @classmethod
    def parse(cls, text: str) -> Recipient:
        """Read `age1…`. Raises RefusedError if it is not that."""
        return cls(_key(_RECIPIENT, text))

    def render(self) -> str:
        """Return `age1…`."""
        return encode_bech32(_RECIPIENT, self.public)

    def wrap(self, file_key: bytes) -> tuple[list[bytes], bytes]:
        """As `Lock`."""
        ephemeral = X25519PrivateKey.generate()
        share = ephemeral.public_key().public_bytes_raw()
        shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(self.public))
        key = _derive(shared, share + self.public, b"age-encryption.org/v1/X25519")
        return [b"X25519", _encode(share)], ChaCha20Poly1305(key).encrypt(_NO_NONCE, file_key, None)


@dataclass(frozen=True)
class Identity:
    """The private half of a recipient.

    Attributes:
        key: X25519.
    """

    key: X25519PrivateKey

    @classmethod
    def parse(cls, text: str) -> Identity:
        """Read the one key of a file such as `age-keygen` writes: comments, and `AGE-SECRET-KEY-1…`.

        Raises:
            RefusedError: If there is none in it, or more than one.
        """
        lines = [line.strip() for line in text.splitlines()]
        keys = [line for line in lines if line and not line.startswith("#")]
        if len(keys) != 1:
            raise RefusedError("not a file with one key", field="identity")
        return cls(X25519PrivateKey.from_private_bytes(_key(_IDENTITY, keys[0])))

    @property
    def recipient(self) -> Recipient:
        """The public half."""
        return Recipient(self.key.public_key().public_bytes_raw())

    def render(self) -> str:
        """Return the text of a file that `age` reads. It is a secret."""
        secret = encode_bech32(_IDENTITY, self.key.private_bytes_raw()).upper()
        return f"# public key: {self.recipient.render()}\n{secret}\n"

    def unwrap(self, arguments: list[bytes], body: bytes) -> bytes | None:
        """As `Unlock`."""
        if len(arguments) != 2 or arguments[0] != b"X25519":
            return None
        share = _decode(arguments[1])
        try:
            shared = self.key.exchange(X25519PublicKey.from_public_bytes(share))
        except ValueError:  # a share of small order
            return None
        key = _derive(shared, share + self.recipient.public, b"age-encryption.org/v1/X25519")
        return _open_key(key, body)


@dataclass(frozen=True)
class Passphrase:
    """A passphrase that files are encrypted under.

    Attributes:
        text: The passphrase.
        log2n: scrypt's work when a file is made.
    """

    text: str = field(repr=False)
    log2n: int = LOG2N

    def wrap(self, file_key: bytes) -> tuple[list[bytes], bytes]:
        """As `Lock`."""
        salt = os.urandom(16)
        sealed = ChaCha20Poly1305(self._derive(salt, self.log2n)).encrypt(_NO_NONCE, file_key, None)
        return [b"scrypt", _encode(salt), str(self.log2n).encode()], sealed

    def unwrap(self, arguments: list[bytes], body: bytes) -> bytes | None:
        """As `Unlock`."""
        if len(arguments) != 3 or arguments[0] != b"scrypt" or not arguments[2].isdigit():
            return None
        log2n = int(arguments[2]) if len(arguments[2]) < 3 else 99
        salt = _decode(arguments[1])
        if not 1 <= log2n <= _MOST_LOG2N or len(salt) != 16:
            raise RefusedError("not as much work as a passphrase of ours takes", field="header")
        return _open_key(self._derive(salt, log2n), body)

    def _derive(self, salt: bytes, log2n: int) -> bytes:
        salted = b"age-encryption.org/v1/scrypt" + salt
        return Scrypt(salt=salted, length=32, n=1 << log2n, r=8, p=1).derive(self.text.encode("utf-8"))


def make_identity() -> Identity:
    """Return a new private key."""
    return Identity(X25519PrivateKey.generate())


class Writer(io.RawIOBase):
    """Encrypts what is written into a file. What is not closed is not whole: its reader refuses it.

    Args:
        file: Takes the ciphertext; stays open.
        lock: For whom.
    """

    def __init__(self, file: BinaryIO, lock: Lock) -> None:
        self._file = file
        file_key, nonce = os.urandom(_FILE_KEY), os.urandom(16)
        arguments, body = lock.wrap(file_key)
        header = b"\n".join((_VERSION, b"-> " + b" ".join(arguments), _encode(body), b"---"))
        file.write(header + b" " + _encode(_mac(file_key, header)) + b"\n" + nonce)
        self._chunks = _Chunks(file_key, nonce)
        self._buffer = bytearray()

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        """Take plaintext. A whole chunk waits for a byte behind it, since the last chunk is sealed otherwise."""
        self._buffer += data
        while len(self._buffer) > _CHUNK:
            self._file.write(self._chunks.seal(bytes(self._buffer[:_CHUNK]), last=False))
            del self._buffer[:_CHUNK]
        return len(data)

    def finish(self) -> None:
        """Write the last chunk."""
        self._file.write(self._chunks.seal(bytes(self._buffer), last=True))
        self._buffer.clear()


class Reader(io.RawIOBase):
    """Decrypts a file. Nothing of a chunk is given before it is authentic.

    Args:
        file: The ciphertext.
        unlock: By whom.

    Raises:
        RefusedError: If it is no such file, is damaged, or was not made for this one.
    """

    def __init__(self, file: BinaryIO, unlock: Unlock) -> None:
        self._file = file
        file_key = _read_header(file, unlock)
        self._chunks = _Chunks(file_key, _exactly(file, 16))
        self._ahead = file.read(_CHUNK + _TAG)
        self._buffer = memoryview(b"")
        self._ended = False

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, target: bytearray | memoryview) -> int:  # type: ignore[override]
        """Give plaintext; 0 at the end.

        Raises:
            RefusedError: If a chunk is not authentic, or the last one is missing.
        """
        if not self._buffer and not self._ended:
            sealed, self._ahead = self._ahead, self._file.read(_CHUNK + _TAG)
            self._ended = not self._ahead
            self._buffer = memoryview(self._chunks.open(sealed, last=self._ended))
        count = min(len(target), len(self._buffer))
        target[:count] = self._buffer[:count]
        self._buffer = self._buffer[count:]
        return count


class _Chunks:
    """The cipher of the payload: a counter, and whether it is the last chunk, are the nonce."""

    def __init__(self, file_key: bytes, nonce: bytes) -> None:
        self._cipher = ChaCha20Poly1305(_derive(file_key, nonce, b"payload"))
        self._count = 0

    def seal(self, data: bytes, *, last: bool) -> bytes:
        return self._cipher.encrypt(self._nonce(last), data, None)

    def open(self, sealed: bytes, *, last: bool) -> bytes:
        if self._count and len(sealed) <= _TAG:  # the form has one spelling: no empty chunk behind others
            raise RefusedError("the file was cut or changed", field="file")
        try:
            return self._cipher.decrypt(self._nonce(last), sealed, None)
        except InvalidTag as error:
            raise RefusedError(
                "the file was cut or changed", field="file", hint="take another copy"
            ) from error

    def _nonce(self, last: bool) -> bytes:
        nonce = self._count.to_bytes(11, "big") + (b"\x01" if last else b"\x00")
        self._count += 1
        return nonce


def _read_header(file: BinaryIO, unlock: Unlock) -> bytes:
    """Return the file key."""
    version, stanza, body, mac = (_line(file) for _ in range(4))
    if version != _VERSION or not stanza.startswith(b"-> ") or not mac.startswith(b"--- "):
        raise RefusedError("not an encrypted backup", field="file", hint="appliance control backup create")
    file_key = unlock.unwrap(stanza.split(b" ")[1:], _decode(body))
    if file_key is None:
        raise RefusedError("encrypted for another key or passphrase", field="file")
    try:
        header = b"\n".join((version, stanza, body, b"---"))
        _hmac(file_key, header).verify(_decode(mac.removeprefix(b"--- ")))
    except InvalidSignature as error:
        raise RefusedError("the file's header was changed", field="file", hint="take another copy") from error
    return file_key


def _line(file: BinaryIO) -> bytes:
    line = file.readline(_MOST_LINE)
    if not line.endswith(b"\n"):
        raise RefusedError("not an encrypted backup", field="file", hint="appliance control backup create")
    return line[:-1]


def _exactly(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise RefusedError("the file was cut or changed", field="file", hint="take another copy")
    return data


def _open_key(key: bytes, body: bytes) -> bytes | None:
    if len(body) != _FILE_KEY + _TAG:  # else one ciphertext could open under several keys
        return None
    try:
        return ChaCha20Poly1305(key).decrypt(_NO_NONCE, body, None)
    except InvalidTag:
        return None


def _mac(file_key: bytes, header: bytes) -> bytes:
    return _hmac(file_key, header).finalize()


def _hmac(file_key: bytes, header: bytes) -> hmac.HMAC:
    made = hmac.HMAC(_derive(file_key, b"", b"header"), hashes.SHA256())
    made.update(header)
    return made


def _derive(secret: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=salt, info=info).derive(secret)


def _key(prefix: str, text: str) -> bytes:
    data = decode_bech32(prefix, text.strip())
    if len(data) != 32:
        raise RefusedError("not a key of 32 bytes", field="key")
    return data


def _encode(data: bytes) -> bytes:
    """Return base64 without padding."""
    return base64.b64encode(data).rstrip(b"=")


def _decode(text: bytes) -> bytes:
    try:
        data = base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error as error:
        raise RefusedError("the file's header was changed", field="file") from error
    if _encode(data) != text:
        raise RefusedError("the file's header was changed", field="file")
    return data
