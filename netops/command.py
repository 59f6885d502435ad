"""Run the tools that configure a node: argument lists, never a shell; secrets by standard input or file."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from appliance.core.errors import HostError

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C",
}
TIMEOUT_S = 60.0


def attempt(
    argv: Sequence[str], stdin: bytes = b"", timeout_s: float = TIMEOUT_S
) -> tuple[int, bytes, bytes]:
    """Run a tool and return its exit code, standard output and standard error.

    Raises:
        HostError: If the tool is not installed or does not end within `timeout_s` seconds.
    """
    try:
        done = subprocess.run(
            argv, input=stdin, capture_output=True, timeout=timeout_s, env=ENVIRONMENT, check=False
        )
    except FileNotFoundError as error:
        raise HostError(f"{argv[0]} is not installed", hint="run `appliance doctor`") from error
    except subprocess.TimeoutExpired as error:
        raise HostError(f"{argv[0]} did not end within {timeout_s:.0f} s") from error
    return done.returncode, done.stdout, done.stderr


def run(argv: Sequence[str], stdin: bytes = b"", *, quote_error: bool = False) -> bytes:
    """Run a tool that must succeed and return its standard output.

    Args:
        argv: The tool and its arguments.
        stdin: What it reads.
        quote_error: Put the first line of its standard error into the message. Never for `wg`: its messages quote
            the key that they complain about.

    Raises:
        HostError: If it fails.
    """
    code, output, complaint = attempt(argv, stdin)
    if code == 0:
        return output
    line = complaint.decode("utf-8", "replace").strip().split("\n", 1)[0] if quote_error else ""
    raise HostError(f"{argv[0]} failed with exit code {code}{': ' if line else ''}{line}")
