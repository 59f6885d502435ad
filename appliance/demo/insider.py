"""Runs on a client, inside the tunnel: what the appliance says to requests that are not well formed.

Prints one JSON object: {"requests": n, "handshakes": n, "bytes_received": n, "status": 200}. Only bytes after the TLS
handshake are counted; `status` is the answer to a proper request in the same run.
"""

from __future__ import annotations

import json
import socket
import ssl
import sys
from pathlib import Path

TIMEOUT_S = 12.0

MALFORMED: dict[str, bytes] = {
    "garbage": b"\x00\xff\x13garbage\r\n\r\n",
    "no host": b"GET /v1/models HTTP/1.1\r\n\r\n",
    "wrong host": b"GET /v1/models HTTP/1.1\r\nHost: example.org\r\n\r\n",
    "two hosts": b"GET /v1/models HTTP/1.1\r\nHost: 10.86.0.1\r\nHost: example.org\r\n\r\n",
    "bad version": b"GET /v1/models HTTP/9.9\r\nHost: 10.86.0.1\r\n\r\n",
    "old version": b"GET /v1/models\r\n",
    "http2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "connect": b"CONNECT 10.86.0.1:22 HTTP/1.1\r\nHost: 10.86.0.1\r\n\r\n",
    "trace": b"TRACE /v1/models HTTP/1.1\r\nHost: 10.86.0.1\r\n\r\n",
    "unknown path": b"GET /admin HTTP/1.1\r\nHost: 10.86.0.1\r\n\r\n",
    "traversal": b"GET /v1/../../etc/passwd HTTP/1.1\r\nHost: 10.86.0.1\r\n\r\n",
    "long line": b"GET /v1/" + b"a" * 20000 + b" HTTP/1.1\r\nHost: 10.86.0.1\r\n\r\n",
    "many headers": b"GET /v1/models HTTP/1.1\r\nHost: 10.86.0.1\r\n" + b"X: " + b"y" * 9000 + b"\r\n" * 2,
    "both lengths": b"POST /v1/chat/completions HTTP/1.1\r\nHost: 10.86.0.1\r\nContent-Length: 5\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "bad length": b"POST /v1/chat/completions HTTP/1.1\r\nHost: 10.86.0.1\r\nContent-Length: -5\r\n\r\n",
    "too large": b"POST /v1/chat/completions HTTP/1.1\r\nHost: 10.86.0.1\r\nContent-Length: 99999999\r\n\r\n",
}


def main() -> None:
    """Send every malformed request and one proper one."""
    address, folder = sys.argv[1], Path(sys.argv[2])
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    total = handshakes = 0
    loud: list[str] = []
    for name, request in MALFORMED.items():
        received = exchange(context, address, request)
        handshakes += 1
        total += len(received)
        if received:
            loud.append(name)
    token = (folder / "token").read_text("utf-8").strip()
    proper = f"GET /v1/models HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    status = int(exchange(context, address, proper.encode()).split(b" ", 2)[1])
    result = {"requests": len(MALFORMED), "handshakes": handshakes, "bytes_received": total, "status": status}
    print(json.dumps({**result, "loud": loud}))


def exchange(context: ssl.SSLContext, address: str, request: bytes) -> bytes:
    """Return everything that the server sends after the TLS handshake in answer to `request`."""
    with socket.create_connection((address, 443), timeout=TIMEOUT_S) as plain:
        with context.wrap_socket(plain, server_hostname=address, suppress_ragged_eofs=True) as stream:
            received = b""
            try:
                stream.sendall(request)
                while data := stream.recv(65536):
                    received += data
            except (ConnectionError, TimeoutError, ssl.SSLError):
                pass  # a reset says nothing either
            return received


if __name__ == "__main__":
    main()
