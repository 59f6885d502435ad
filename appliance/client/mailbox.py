"""The mailbox of a node, asked through the throw-away tunnel (docs/spec/enrolment-v1.md section 4)."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from typing import Any, Final

from appliance.core.box import MAX_BOX_CHARACTERS
from appliance.core.enrolment import PATH, PORT
from appliance.core.errors import RefusedError, UnavailableError
from appliance.core.ticket import Ticket

TIMEOUT_S: Final = 5.0
_MAX_BYTES: Final = MAX_BOX_CHARACTERS + 1024


class Mailbox:
    """Speaks to the mailbox that a ticket names. Each request has a connection of its own.

    Args:
        ticket: Says where it is, what opens it, and which CA vouches for it.
        interface: Of the throw-away tunnel; None where routes alone lead there.
        port: TCP.
    """

    def __init__(self, ticket: Ticket, interface: str | None, port: int = PORT) -> None:
        self._ticket = ticket
        self._secret = ticket.keys.redeem
        self._interface = interface
        self._port = port
        # Only the invitation's own CA is trusted; the system's certificate store is not read.
        self._tls = ssl.create_default_context(cadata=ticket.ca_pem)

    def post(self, letter: str) -> None:
        """Leave the letter; the same one again does no harm. All methods raise as this one.

        Raises:
            UnavailableError: If it does not answer now.
            RefusedError: If it does not know the invitation, somebody else has redeemed it, or it is not this CA's node.
        """
        self._ask("POST", {"box": letter})

    def fetch(self) -> str | None:
        """Return the answer, None while there is none."""
        status, value = self._ask("GET", None)
        return str(value.get("answer")) if status == 200 else None

    def confirm(self) -> None:
        """Say that the answer has arrived: the throw-away peer may go."""
        self._ask("DELETE", None)

    def _ask(self, method: str, body: dict[str, str] | None) -> tuple[int, dict[str, Any]]:
        try:
            status, raw = self._exchange(method, json.dumps(body).encode("ascii") if body else None)
            value = json.loads(raw)
        except ssl.SSLCertVerificationError as error:
            raise RefusedError(
                "what answers there is not the node of this invitation", field="certificate"
            ) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise UnavailableError("the node's mailbox does not answer") from error
        if status in (200, 202) and isinstance(value, dict):
            return status, value
        raise _refusal(status, value)

    def _exchange(self, method: str, body: bytes | None) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self._ticket.node4, self._port, timeout=TIMEOUT_S)
        try:
            connection.sock = self._connect()
            connection.request(method, PATH, body, {"Authorization": f"Bearer {self._secret}"})
            reply = connection.getresponse()
            return reply.status, reply.read(_MAX_BYTES)
        finally:
            connection.close()

    def _connect(self) -> ssl.SSLSocket:
        plain = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            plain.settimeout(TIMEOUT_S)
            if self._interface is not None:
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, self._interface.encode("ascii"))
            plain.connect((self._ticket.node4, self._port))
            return self._tls.wrap_socket(plain, server_hostname=self._ticket.node4)
        except BaseException:
            plain.close()
            raise


def _refusal(status: int, value: Any) -> RefusedError | UnavailableError:
    try:
        code = str(value["error"]["code"])
    except (KeyError, TypeError):
        code = ""
    if code == "unknown_invitation":
        return RefusedError(
            "the node does not know this invitation: it is over", hint="ask the operator for another one"
        )
    if code == "redeemed_before":
        return RefusedError(
            "somebody else has redeemed this invitation",
            hint="tell the operator, who revokes that device and invites you again",
        )
    if status in (429, 503):
        return UnavailableError("the node's mailbox is busy")
    return RefusedError(f"the node's mailbox refuses (HTTP status {status})")
