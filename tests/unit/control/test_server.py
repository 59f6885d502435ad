"""Control as processes: the web server over TLS, the reconciler, their signals, and no keys for the web process."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from control.commands import init
from control.config import VARIABLE, ControlPaths


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Control:
    """A control of its own, run through the command line."""

    def __init__(self, state: Path) -> None:
        self.port = free_port()
        self.paths = ControlPaths(state)
        made = init.run(
            Namespace(
                state=state,
                listen=f"127.0.0.1:{self.port}",
                plain_http=False,
                reconciler_user=None,
                web_user=None,
                config=None,
            )
        )
        self.env = {"PATH": os.environ["PATH"], VARIABLE: made["config"]}

    def argv(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "appliance", "control", *arguments]

    def run(self, *arguments: str, stdin: str = "") -> dict[str, object]:
        argv = self.argv(*arguments, "--json")
        done = subprocess.run(argv, env=self.env, input=stdin, capture_output=True, text=True, check=True)
        value = json.loads(done.stdout.splitlines()[-1])
        assert isinstance(value, dict)
        return value

    @contextmanager
    def service(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        process = subprocess.Popen(self.argv(*arguments), env=self.env, stderr=subprocess.PIPE)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            _, self.stderr = process.communicate(timeout=20)

    def get(self, path: str, token: str | None = None) -> tuple[int, bytes]:
        context = ssl.create_default_context(cafile=str(self.paths.ca_certificate))
        request = urllib.request.Request(f"https://127.0.0.1:{self.port}{path}")
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, context=context, timeout=5) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()


@pytest.fixture
def control(tmp_path: Path) -> Control:
    made = Control(tmp_path / "state")
    made.run("migrate")
    return made


def test_the_server_answers_over_tls_of_our_ca_and_stops_on_a_signal(control: Control) -> None:
    control.run("operator", "add", "olivia", "--no-password")
    token = str(control.run("token", "create", "olivia", "ci")["token"])
    control.paths.keys.rename(control.paths.state / "gone")  # it serves without them
    with control.service("serve") as process:
        wait(lambda: listening(control.port))
        status, body = control.get("/api/v1/health", token)
        assert status == 200
        assert json.loads(body)["database"] == "sqlite"
        assert control.get("/api/v1/health")[0] == 401
        assert control.get("/api/v1/clients/secret-looking-name", token)[0] == 404
    assert process.returncode == 0
    assert b"secret-looking" not in control.stderr


def test_the_reconciler_needs_the_keys_and_takes_hints(control: Control) -> None:
    with control.service("reconcile") as process:
        wait(control.paths.hint_socket.exists)
    assert process.returncode == 0
    assert not control.paths.hint_socket.exists()
    control.paths.keys.rename(control.paths.state / "gone")
    argv = control.argv("reconcile", "--once", "--json")
    done = subprocess.run(argv, env=control.env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["code"] == "host"


@pytest.mark.parametrize("there", ["empty", "broken"])
def test_nothing_serves_before_the_database_is_there(tmp_path: Path, there: str) -> None:
    control = Control(tmp_path / "state")
    if there == "broken":
        control.paths.database.unlink()
        control.paths.database.mkdir()
    argv = control.argv("serve", "--json")
    done = subprocess.run(argv, env=control.env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "migrate" in json.loads(done.stdout)["error"]["hint"]


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait(condition: object, timeout_s: float = 15) -> None:
    assert callable(condition)
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
