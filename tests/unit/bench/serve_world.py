"""A server that answers chat requests with made-up words, one every few milliseconds, and a clockless way to make answers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from appliance.bench.serve.client import Answer, Endpoint
from appliance.bench.serve.metrics import Figures
from appliance.bench.serve.plans import Model, Ours, Plan
from appliance.bench.serve.running import Servers
from appliance.core.pin import Launch, Manifest, PinnedFile, Runtime

MODEL = Model(
    Path("shape.gguf"),
    Manifest(
        name="shape",
        version="1.0",
        files=(PinnedFile(path="shape.gguf", size=1, sha256="0" * 64),),
        chat_template="{{ messages }}",
        stop=(),
        launch=Launch(),
        runtime=Runtime(llama_cpp_python="0.3.36"),
        licence="Apache-2.0",
        source="made for tests",
    ),
)


def answer(*times: float, sent_at: float = 0.0, tokens: int | None = None) -> Answer:
    return Answer(sent_at, times, times[-1], "x", 10, len(times) if tokens is None else tokens)


def figures(**changes: Any) -> Figures:
    values: dict[str, Any] = {
        "tokens_per_s": 100.0,
        "decode_tokens_per_s": 50.0,
        "ttft_ms": 20.0,
        "gap_p50_ms": 5.0,
        "gap_p99_ms": 9.0,
        "peak_bytes": 1000,
        "prompt_tokens": 128,
        "tokens": 64,
        "answers": 1,
    }
    return Figures(**(values | changes))


class FakeServer:
    """The knobs are public.

    Attributes:
        gap_s: Time between two tokens.
        requests: What was asked: (path, headers, body).
        status: Of every answer.
        breaks: Close the connection after so many tokens.
    """

    def __init__(self, gap_s: float = 0.001) -> None:
        self.gap_s = gap_s
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        self.status = 200
        self.breaks: int | None = None

    @contextlib.asynccontextmanager
    async def listen(self) -> AsyncIterator[str]:
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/http.sock"
            server = await asyncio.start_unix_server(self._serve, path)
            try:
                yield path
            finally:
                server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await self._answer(reader, writer)
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = json.loads(await reader.readexactly(int(headers.get("content-length", 0))) or b"{}")
        path = first.split()[1]
        self.requests.append((path, headers, body))
        if self.status != 200 or not path.endswith("completions"):
            self._whole(writer, {"id": "session"})
        elif body["stream"]:
            await self._stream(writer, body)
        else:
            await asyncio.sleep(self.gap_s * body["max_tokens"])
            message = {"message": {"role": "assistant", "content": " word" * body["max_tokens"]}}
            self._whole(writer, {"choices": [message], "usage": self._usage(body)})
        await writer.drain()

    def _whole(self, writer: asyncio.StreamWriter, value: Any) -> None:
        data = json.dumps(value).encode()
        head = f"HTTP/1.1 {self.status} x\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        writer.write(head.encode() + data)

    async def _stream(self, writer: asyncio.StreamWriter, body: Any) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        self._event(writer, {"choices": [{"delta": {"role": "assistant", "content": None}}]})
        for number in range(body["max_tokens"]):
            if number == self.breaks:
                return
            await asyncio.sleep(self.gap_s)
            self._event(writer, {"choices": [{"delta": {"content": " word"}}]})
            await writer.drain()
        self._event(writer, {"choices": [], "usage": self._usage(body)})
        self._chunk(writer, b"data: [DONE]\n\n")
        writer.write(b"0\r\n\r\n")

    def _usage(self, body: Any) -> dict[str, int]:
        words = sum(len(message["content"].split()) for message in body["messages"])
        return {"prompt_tokens": words + 4, "completion_tokens": body["max_tokens"]}

    def _event(self, writer: asyncio.StreamWriter, value: Any) -> None:
        self._chunk(writer, b"data: " + json.dumps(value).encode() + b"\n\n")

    def _chunk(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        writer.write(b"%x\r\n%b\r\n" % (len(data), data))


@contextlib.asynccontextmanager
async def start_fake(plan: Plan, _model: Model) -> AsyncIterator[Servers]:
    """Start as many fake servers as a plan has processes: ours twice as fast as the peer, but for its delay."""
    ours = isinstance(plan, Ours)
    gap_s = 0.001 + plan.delay_ms / 1000 if isinstance(plan, Ours) else 0.002
    async with contextlib.AsyncExitStack() as stack:
        servers = [FakeServer(gap_s) for _ in range(plan.cells if isinstance(plan, Ours) else 1)]
        paths = [await stack.enter_async_context(server.listen()) for server in servers]
        yield Servers(tuple(Endpoint(path, sessions=ours) for path in paths), (os.getpid(),) * len(paths))
