"""Real cells over a real notary, and the way in which llama-server is started, with a stand-in for its binary."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.bench.serve.metrics import summarise
from appliance.bench.serve.plans import Model, Ours, tuned
from appliance.bench.serve.prompts import Prompts
from appliance.bench.serve.running import Bench, bench, library_folder
from appliance.bench.serve.workloads import Chat, Run, Streams, Workload
from appliance.bench.shapes import Shape, shape_manifest, write_shape
from appliance.core.errors import HostError
from appliance.core.pin import Launch

pytestmark = pytest.mark.engine

# Loads llama.cpp from where the dynamic linker is told to look, and serves chat requests of one word.
STAND_IN = """#!{python}
import ctypes, json, os, socketserver, sys
from http.server import BaseHTTPRequestHandler
{load}
arguments = sys.argv[1:]
open(os.path.join(os.path.dirname(sys.argv[0]), "arguments"), "w").write(json.dumps(arguments))
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def address_string(self):
        return ""
    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        self.answer(b"{{}}")
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        usage = {{"prompt_tokens": 128, "completion_tokens": 1}}
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for chunk in ({{"choices": [{{"delta": {{"content": "word"}}}}]}}, {{"choices": [], "usage": usage}}):
            self.wfile.write(b"data: " + json.dumps(chunk).encode() + b"\\n\\n")
        self.close_connection = True
class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
Server(arguments[arguments.index("--host") + 1], Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("shape") / "small.gguf"
    write_shape(path, Shape("small", "nothing", 1, 64, 2, 1, 64, 5000), lambda _: None)
    return Model(path, shape_manifest(path, Launch()))


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Bench]:
    with bench(tmp_path, 1) as started:
        yield started


def stand_in(folder: Path, load: str) -> None:
    binary = folder / "llama-server"
    binary.write_text(STAND_IN.format(python=sys.executable, load=load), "utf-8")
    binary.chmod(0o755)


def drive(running: Bench, plan, model: Model, workload: Workload) -> tuple[Run, int]:
    async def run() -> tuple[Run, int]:
        async with running.run(plan, model) as servers:
            return await workload(servers, Prompts(1, 0)), servers.peak_bytes()

    return asyncio.run(run())


def test_a_real_cell_answers_with_the_length_that_was_asked_for(running: Bench, model: Model) -> None:
    run, peak = drive(running, Ours(2, 384), model, Streams(2, 2))
    figures = summarise(run.answers, waited=run.waited, window=run.window, peak_bytes=peak)
    assert (figures.answers, figures.prompt_tokens, figures.tokens) == (4, 4 * 128, 4 * 64)
    assert figures.peak_bytes > 2**20


def test_conversations_are_dealt_to_cells_of_their_own(running: Bench, model: Model) -> None:
    run, _ = drive(running, Ours(1, 1024, cells=2), model, Chat(sessions=2, at_once=2))
    assert [answer.tokens for answer in run.answers] == [32] * 12
    assert max(answer.prompt_tokens for answer in run.answers) > 5 * 80


def test_a_delay_makes_every_token_later(running: Bench, model: Model) -> None:
    run, _ = drive(running, Ours(1, 384, delay_ms=5.0), model, Streams(1, 1))
    (answer,) = run.answers
    assert answer.times[-1] - answer.times[0] >= 63 * 0.005


def test_llama_server_runs_on_the_libraries_that_the_cell_loads(
    running: Bench, model: Model, tmp_path: Path
) -> None:
    stand_in(tmp_path, 'ctypes.CDLL("libllama.so.0")')
    run, _ = drive(running, tuned(1, 384), model, Streams(1, 1))
    assert run.answers[0].tokens == 1
    arguments = json.loads((tmp_path / "arguments").read_text("utf-8"))
    assert arguments[:2] == ["--model", str(model.path)]
    assert arguments[arguments.index("--parallel") + 1] == "1"


def test_other_libraries_are_refused(running: Bench, model: Model, tmp_path: Path) -> None:
    for library in library_folder().glob("lib*.so.0"):
        (tmp_path / library.name).write_bytes(library.read_bytes())
    load = f'for name in ("ggml-base", "ggml-cpu", "ggml", "llama"): ctypes.CDLL("{tmp_path}/lib" + name + ".so.0", 256)'
    stand_in(tmp_path, load)
    with pytest.raises(HostError, match="libraries"):
        drive(running, tuned(1, 384), model, Streams(1, 1))


def test_a_server_that_does_not_start_is_quoted(running: Bench, model: Model, tmp_path: Path) -> None:
    stand_in(tmp_path, 'sys.exit("no such option")')
    with pytest.raises(HostError, match="does not start") as refused:
        drive(running, tuned(1, 384), model, Streams(1, 1))
    assert "no such option" in (refused.value.hint or "")
