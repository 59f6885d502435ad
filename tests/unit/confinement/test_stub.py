"""The stub serves only in a process that is confined, and every mechanism is needed: without it a property is named."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from inference.confinement import landlock
from inference.confinement.properties import EXIT_FAILED, EXIT_NO_SEAT, EXIT_REFUSED

SCRIPT = Path(__file__).with_name("cell_under_test.py")
pytestmark = pytest.mark.skipif(landlock.observe_abi() < 2, reason="the kernel has no Landlock ABI 2")


@dataclass
class Place:
    """A folder with what a cell needs: policy, models, seats, a notary that listens, its own listening socket."""

    root: Path
    listener: socket.socket
    notary: socket.socket
    keep: list[int] = field(default_factory=list)

    def start(self, case: str, left_out: str = "nothing", **changed: object) -> subprocess.Popen[bytes]:
        report, self.report = os.pipe()
        script = (
            "import os, sys; os.environ['LISTEN_PID'] = str(os.getpid());"
            "os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 9);"
            "os.execv(sys.executable, [sys.executable, '-s', '-P', *sys.argv[3:]])"
        )
        arguments = {
            "client": "a",
            "policy": self.root / "cell/policy.json",
            "notary": self.root / "notary.sock",
            "seats": self.root / "seats",
            "models": self.root / "models",
            "report-fd": 9,
        } | changed
        flags = [part for name, value in arguments.items() for part in (f"--{name}", str(value))]
        fds = (self.listener.fileno(), self.report)
        process = subprocess.Popen(
            [sys.executable, "-c", script, *map(str, fds), str(SCRIPT), left_out, case, *flags],
            env={"LISTEN_FDS": "1", "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"},
            pass_fds=fds,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        os.close(self.report)
        self.verdict_of = report
        return process

    def verdict(self) -> str:
        with os.fdopen(self.verdict_of, "r") as report:
            return report.read().strip()

    def said(self) -> dict[str, object]:
        connection, _ = self.notary.accept()
        with connection, connection.makefile() as lines:
            connection.settimeout(20)
            return dict(json.loads(lines.readline()))


@pytest.fixture
def place() -> Iterator[Place]:
    with tempfile.TemporaryDirectory(prefix="apl-cell-") as folder:
        root = Path(folder)
        for name in ("cell", "models", "seats"):
            (root / name).mkdir()
        (root / "cell/policy.json").write_text("{}")
        (root / "models/weights").write_bytes(b"weights")
        for seat in ("0", "1"):
            (root / "seats" / seat).touch()
        sockets = []
        for name in ("http.sock", "notary.sock"):
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(root / name))
            listener.listen(8)
            listener.settimeout(20)
            sockets.append(listener)
        yield Place(root, *sockets)
        for listener in sockets:
            listener.close()


def finish(process: subprocess.Popen[bytes]) -> int:
    out, err = process.communicate(timeout=30)
    assert (out, err) == (b"", b"")
    return process.returncode


def test_a_confined_cell_says_what_confined_it(place: Place) -> None:
    process = place.start("facts")
    said = place.said()
    assert place.verdict() == "confined"
    assert finish(process) == 0
    assert said.pop("network") in ("namespace", "seccomp")
    assert said == {
        "cores": len(os.sched_getaffinity(0)),
        "landlock_abi": landlock.observe_abi(),
        "seccomp": True,
        "core_dumps": False,
        "dumpable": False,
        "swap": False,
    }


# Each mechanism left out, and the property that is found missing: the positive control of every probe.
@pytest.mark.parametrize(
    ("left_out", "prop"),
    [
        ("drop_capabilities", "capabilities"),
        ("forbid_core_dumps", "core_dumps"),
        ("forbid_new_privileges", "landlock"),  # the kernel lets nobody else restrict itself
        ("forbid_tracing", "dumpable"),
        ("restrict_files", "write"),
        ("filter_calls", "dumpable"),  # the first property that only the filter keeps
    ],
)
def test_without_one_mechanism_the_cell_refuses_and_names_the_property(
    place: Place, left_out: str, prop: str
) -> None:
    if left_out == "drop_capabilities" and os.geteuid() != 0:
        pytest.skip("without root there may be no capability to drop")
    process = place.start("facts", left_out)
    assert place.verdict() == f"refused {prop}"
    assert finish(process) == EXIT_REFUSED


@pytest.mark.parametrize(
    ("changed", "prop"),
    [
        ({"notary": "/nonexistent/notary.sock"}, "notary"),
        ({"seats": "/nonexistent"}, "seats"),
        ({"policy": "/nonexistent/policy.json"}, "policy"),
        ({"models": "/nonexistent"}, "models"),
    ],
)
def test_a_missing_input_is_named(place: Place, changed: dict[str, object], prop: str) -> None:
    process = place.start("facts", **changed)
    assert place.verdict() == f"refused {prop}"
    assert finish(process) == EXIT_REFUSED


def test_no_refused_call_gets_through(place: Place) -> None:
    process = place.start("refused_calls")
    said = place.said()
    assert said["wrong"] == []
    assert int(str(said["tried"])) > 120
    assert finish(process) == 0


def test_calls_that_are_allowed_in_part_are_refused_in_their_dangerous_part(place: Place) -> None:
    process = place.start("refused_arguments")
    assert place.said() == {"wrong": []}
    assert finish(process) == 0


def test_the_libraries_of_the_cell_work_after_confinement(place: Place) -> None:
    pytest.importorskip("llama_cpp")
    process = place.start("libraries")
    said = place.said()
    assert said["forked"] == 7
    assert finish(process) == 0


def test_asyncio_serves_on_the_inherited_socket(place: Place) -> None:
    process = place.start("serve_http")
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(place.root / "http.sock"))
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.recv(1000).endswith(b"ok")
    assert finish(process) == 0


def test_without_a_free_seat_the_answer_is_503_and_the_exit_code_says_so(place: Place) -> None:
    held = [os.open(place.root / "seats" / seat, os.O_RDONLY) for seat in ("0", "1")]
    for seat in held:
        fcntl.flock(seat, fcntl.LOCK_EX)
    process = place.start("facts")
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(place.root / "http.sock"))
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 503 ")
    assert finish(process) == EXIT_NO_SEAT
    for seat in held:
        os.close(seat)


def test_a_seat_is_free_again_when_its_cell_is_gone(place: Place) -> None:
    (place.root / "seats/1").unlink()
    for _ in range(2):
        process = place.start("facts")
        place.said()
        assert finish(process) == 0


def test_an_exception_that_quotes_content_is_printed_nowhere(place: Place) -> None:
    process = place.start("leak")
    assert place.verdict() == "confined"
    assert finish(process) == EXIT_FAILED


def test_an_inherited_descriptor_is_closed(place: Place) -> None:
    with open(place.root / "leak", "wb") as file:
        os.dup2(file.fileno(), 77, inheritable=True)
        try:
            process = place.start("facts")
        finally:
            os.close(77)
    place.said()
    assert place.verdict() == "confined"
    assert finish(process) == 0
