"""Runs on a client: hold a stream open and say when its last byte came.

Prints "streaming" once the first text has come, and at the end one JSON object: {"tokens", "last_byte_at",
"finished"}; `last_byte_at` is CLOCK_MONOTONIC, which all machines of a lab share, `finished` says whether the stream
ended by itself. The prompt is read from standard input, so that it is in no argument list.
"""

from __future__ import annotations

import json
import socket
import ssl
import sys
import time
from pathlib import Path

SILENCE_S = 3.0


def main() -> None:
    """Ask for a long answer and read until the end or until nothing comes any more."""
    address, folder, model, max_tokens = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    messages = [{"role": "user", "content": sys.stdin.read()}]
    request = {"model": model, "messages": messages, "stream": True, "max_tokens": max_tokens}
    body = json.dumps(request).encode()
    token = (folder / "token").read_text("utf-8").strip()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    with socket.create_connection((address, 443), timeout=30) as plain:
        with context.wrap_socket(plain, server_hostname=address) as stream:
            stream.sendall(head.encode() + body)
            print(json.dumps(read(stream)))


def read(stream: ssl.SSLSocket) -> dict[str, object]:
    """Read the stream; return what is known of it."""
    tokens, last, tail, started = 0, 0.0, b"", False
    while True:
        try:
            data = stream.recv(65536)
        except (TimeoutError, OSError):
            break
        if not data:
            break
        last = time.monotonic()
        tokens += data.count(b'"content"')
        tail = (tail + data)[-64:]
        if tokens > 1 and not started:
            started = True
            stream.settimeout(SILENCE_S)
            print("streaming", flush=True)
    return {"tokens": tokens, "last_byte_at": last, "finished": b"[DONE]" in tail}


if __name__ == "__main__":
    main()
