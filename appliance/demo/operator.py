"""Runs on the management machine: an operator's API call, ready to go, sent when a line comes on standard input.

Prints "ready" once the connection to the console is open, and after the call one JSON object: {"asked_at", "answered_at",
"status"}, times in CLOCK_MONOTONIC. The first line of standard input is the API token, so that it is in no argument list.
"""

from __future__ import annotations

import http.client
import json
import ssl
import sys
import time


def main() -> None:
    """Connect, wait, call."""
    address, port, ca, path = sys.argv[1:]
    token = sys.stdin.readline().strip()
    context = ssl.create_default_context(cafile=ca)
    connection = http.client.HTTPSConnection(address, int(port), context=context, timeout=10)
    connection.connect()
    print("ready", flush=True)
    sys.stdin.readline()
    asked_at = time.monotonic()
    connection.request("POST", path, headers={"Authorization": f"Bearer {token}"})
    status = connection.getresponse().status
    print(json.dumps({"asked_at": asked_at, "answered_at": time.monotonic(), "status": status}))


if __name__ == "__main__":
    main()
