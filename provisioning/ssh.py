"""SSH to a node: the pinned host key and nothing else.

The transport is built by hand rather than with paramiko's SSHClient, so that there is no known_hosts file, no agent,
no default key, no password and no policy that could accept an unknown key: the one question is whether the key that
the server proved to hold (RFC 4253 section 8) has exactly the pinned type and bytes.
"""

from __future__ import annotations

import logging
import socket
import threading
from dataclasses import dataclass
from pathlib import Path

import paramiko

from appliance.core.errors import HostError, RefusedError, UnavailableError
from appliance.core.names import decode_base64

CONNECT_S = 5.0
HANDSHAKE_S = 10.0
KEEPALIVE_S = 10
COMMAND = "appliance"  # sshd's forced command runs whatever is asked for; this only fills the field
_RECEIVE_BYTES = 2**16
# What OpenSSH 9.2 and newer have and prefer; the rest of what paramiko offers is left out.
_CIPHERS = ("aes256-gcm@openssh.com", "aes128-gcm@openssh.com", "aes256-ctr")
_DIGESTS = ("hmac-sha2-512-etm@openssh.com", "hmac-sha2-256-etm@openssh.com")

# paramiko logs the other side's words; our own codes say what happened.
logging.getLogger("paramiko").setLevel(logging.CRITICAL)


@dataclass(frozen=True)
class SshTarget:
    """Where and as whom to connect.

    Attributes:
        address, port: Of sshd on the management network.
        user: The user whose forced command is the relay.
        host_key: Pinned, `type base64`.
        key_file: Control's private key (Ed25519, OpenSSH format).
    """

    address: str
    port: int
    user: str
    host_key: str
    key_file: Path


class SshConnection:
    """A connection that is made on the first channel and again after it broke. Safe to use from several threads."""

    def __init__(self, target: SshTarget) -> None:
        self._target = target
        self._lock = threading.Lock()
        self._transport: paramiko.Transport | None = None

    def open_channel(self) -> SshChannel:
        """Start the forced command once more, connecting first if need be.

        Raises:
            UnavailableError: If the node cannot be reached or does not admit control's key.
            RefusedError: If the node does not show the pinned host key; nothing was sent to it then.
            HostError: If control's own key cannot be read.
        """
        with self._lock:
            if self._transport is None or not self._transport.is_active():
                self._transport = connect(self._target)
            transport = self._transport
        try:
            channel = transport.open_session(timeout=HANDSHAKE_S)
            channel.settimeout(HANDSHAKE_S)
            channel.exec_command(COMMAND)
        except (paramiko.SSHException, OSError, EOFError) as error:
            self.close()
            raise UnavailableError("the node opened no channel") from error
        return SshChannel(channel)

    def close(self) -> None:
        """Close the connection and all of its channels."""
        with self._lock:
            transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()


class SshChannel:
    """One run of the forced command as a byte stream."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel
        self._buffer = bytearray()

    def send(self, data: bytes, timeout_s: float) -> None:
        """Send all of `data`.

        Raises:
            UnavailableError: If the other end is gone or too slow.
        """
        try:
            self._channel.settimeout(timeout_s)
            self._channel.sendall(data)
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise UnavailableError("the connection to the node broke") from error

    def receive_line(self, limit: int, timeout_s: float) -> bytes:
        """Return the next line without its newline.

        Raises:
            UnavailableError: If the other end is gone or too slow, or the line is longer than `limit` bytes.
        """
        searched = 0
        try:
            self._channel.settimeout(timeout_s)
            while (end := self._buffer.find(b"\n", searched)) < 0:
                searched = len(self._buffer)
                if searched > limit:
                    raise UnavailableError("the node's answer is too long")
                received = self._channel.recv(_RECEIVE_BYTES)
                if not received:
                    raise UnavailableError("the node closed the connection")
                self._buffer += received
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise UnavailableError("the connection to the node broke") from error
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line

    def close(self) -> None:
        """End this run of the forced command."""
        self._channel.close()


def connect(target: SshTarget) -> paramiko.Transport:
    """Connect, prove the host key, then log in with control's key.

    Raises:
        UnavailableError, RefusedError, HostError: As `SshConnection.open_channel`.
    """
    key = _read_key(target.key_file)
    kind, pinned = parse_host_key(target.host_key)
    try:
        connection = socket.create_connection((target.address, target.port), timeout=CONNECT_S)
    except OSError as error:
        raise UnavailableError("the node does not answer on its SSH port") from error
    transport = paramiko.Transport(connection)
    try:
        _log_in(transport, target.user, key, kind, pinned)
    except RefusedError:
        transport.close()
        raise
    except (paramiko.SSHException, OSError, EOFError) as error:
        transport.close()
        raise UnavailableError("the node does not let control in") from error
    transport.set_keepalive(KEEPALIVE_S)
    return transport


def parse_host_key(line: str) -> tuple[str, bytes]:
    """Return type and bytes of a pinned host key.

    Raises:
        RefusedError: If the line is not `type base64`.
    """
    kind, _, body = line.partition(" ")
    try:
        return kind, decode_base64(body)
    except ValueError as error:
        raise RefusedError("not a host key", field="host_key") from error


def _log_in(transport: paramiko.Transport, user: str, key: paramiko.PKey, kind: str, pinned: bytes) -> None:
    transport.banner_timeout = transport.handshake_timeout = transport.auth_timeout = HANDSHAKE_S
    options = transport.get_security_options()
    options.ciphers, options.digests = _CIPHERS, _DIGESTS
    # Only the pinned type is negotiated: a server cannot answer with a second key of its own.
    options.key_types = (kind,)
    transport.start_client(timeout=HANDSHAKE_S)
    shown = transport.get_remote_server_key()
    if shown.get_name() != kind or shown.asbytes() != pinned:
        raise RefusedError(
            "the node shows another SSH host key than the pinned one",
            field="host_key",
            hint="somebody may stand between; look at the machine's console before changing the pin",
        )
    transport.auth_publickey(user, key)


def _read_key(path: Path) -> paramiko.PKey:
    try:
        return paramiko.Ed25519Key.from_private_key_file(str(path))
    except (OSError, paramiko.SSHException, ValueError) as error:
        raise HostError(
            f"cannot read the SSH key {path}", hint="run as the reconciler's user; appliance control init"
        ) from error
