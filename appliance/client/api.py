"""The few calls that the terminal chat needs; any OpenAI SDK does the same with base URL, token and CA file."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx

from appliance.client.folder import Folder
from appliance.core.errors import ApplianceError, RefusedError, UnavailableError
from appliance.core.receipt import SignedReceipt

RECEIPT_COMMENT = ": receipt "
Message = dict[str, str]


@dataclass
class Answer:
    """What is known of an answer so far.

    Attributes:
        receipt_id: From the first header.
        pin: Pin id of the model that answers.
        ttft_ms: Milliseconds from sending the request to the first text.
        receipt: The signed receipt, once the session has ended.
        access_expires_at: When the device's access ends, None if it does not.
    """

    receipt_id: str = ""
    pin: str = ""
    ttft_ms: float | None = None
    tokens: int = 0
    receipt: SignedReceipt | None = None
    access_expires_at: datetime | None = None
    parts: list[str] = field(default_factory=list)


class Api:
    """A connection to the appliance through the tunnel.

    Args:
        folder: The client's folder.
        transport: For tests and the local demo: another way to the cell than TCP.
        headers: Further headers.
    """

    def __init__(
        self,
        folder: Folder,
        *,
        base_url: str | None = None,
        transport: httpx.BaseTransport | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        # Only the appliance's own CA is trusted; the system's certificate store is not read.
        context = ssl.create_default_context(cafile=str(folder.ca_file)) if transport is None else False
        self._default_model: str | None = None
        self._http = httpx.Client(
            base_url=base_url or folder.base_url,
            headers={"Authorization": f"Bearer {folder.token}", **(headers or {})},
            verify=context,
            transport=transport,
            timeout=httpx.Timeout(120.0, connect=10.0),
            trust_env=False,
        )

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def models(self) -> list[dict[str, Any]]:
        """Return the models that this client may use."""
        return list(self._json("GET", "/models")["data"])

    def default_model(self) -> str:
        """Return the name of the client's first model; asked for once."""
        if self._default_model is None:
            self._default_model = str(self.models()[0]["id"])
        return self._default_model

    def open_session(self) -> str:
        """Open a session that keeps its state between turns; return its id."""
        return str(self._json("POST", "/sessions", json={})["id"])

    def end_session(self, session: str) -> SignedReceipt:
        """End a session; return its receipt."""
        return SignedReceipt.parse(self._json("DELETE", f"/sessions/{session}")["receipt"])

    def proof(self, receipt_id: str) -> bytes | None:
        """Return the proof that the log holds a receipt, None where the node has none (yet, or no more)."""
        with _mapped_errors():
            response = self._http.get(f"/receipts/{receipt_id}/proof")
        if response.status_code == 404 or _code(response) == "not_logged":
            return None
        if response.status_code >= 400:
            raise _refusal(response)
        return response.content

    def log_file(self, path: str) -> bytes | None:
        """Return a file of the log that the node publishes, None if there is no such file."""
        with _mapped_errors():
            response = self._http.get(self._http.base_url.join(f"/log/{path}"))
        if response.status_code == 404:
            return None
        if response.status_code >= 400:
            raise _refusal(response)
        return response.content

    def chat(self, messages: list[Message], answer: Answer, **options: Any) -> Iterator[str]:
        """Stream an answer.

        Args:
            messages: The conversation.
            answer: Filled while the stream goes on.
            options: `model`, `max_tokens`, `session` and so on.

        Yields:
            Text as it comes.
        """
        session = options.pop("session", None)
        headers = {"X-Session-Id": session} if session else {}
        options.setdefault("model", self.default_model())
        body = {"messages": messages, "stream": True, **options}
        started = time.perf_counter()
        with (
            _mapped_errors(),
            self._http.stream("POST", "/chat/completions", json=body, headers=headers) as response,
        ):
            if response.status_code != 200:
                response.read()
                raise _refusal(response)
            answer.receipt_id = response.headers["X-Receipt-Id"]
            answer.access_expires_at = _time(response.headers.get("X-Access-Expires-At", ""))
            for text in self._read_stream(response.iter_lines(), answer):
                if answer.ttft_ms is None:
                    answer.ttft_ms = (time.perf_counter() - started) * 1000
                answer.parts.append(text)
                yield text

    @staticmethod
    def _read_stream(lines: Iterator[str], answer: Answer) -> Iterator[str]:
        for line in lines:
            if line.startswith(RECEIPT_COMMENT):
                answer.receipt = SignedReceipt.parse_canonical(line[len(RECEIPT_COMMENT) :].encode())
            if not line.startswith("data: {"):
                continue
            chunk = json.loads(line[6:])
            answer.pin = chunk.get("pin", answer.pin)
            for choice in chunk["choices"]:
                if text := choice["delta"].get("content"):
                    answer.tokens += 1
                    yield text

    def _json(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        with _mapped_errors():
            response = self._http.request(method, path, **options)
        if response.status_code >= 400:
            raise _refusal(response)
        return dict(response.json())


class _mapped_errors:  # noqa: N801 - reads as a statement
    """Map httpx's exceptions to ours where the library is owned."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, httpx.HTTPError):
            raise UnavailableError(
                "the appliance does not answer",
                hint="is the tunnel up? `wg show` should list a recent handshake",
            ) from error


def _time(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _code(response: httpx.Response) -> str:
    """Return the code of an error, nothing if it is none of ours."""
    try:
        return str(response.json()["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return ""


def _refusal(response: httpx.Response) -> ApplianceError:
    try:
        error = response.json()["error"]
        message, code = str(error["message"]), str(error["code"])
    except (ValueError, KeyError, TypeError):
        message, code = f"HTTP status {response.status_code}", "unknown"
    if response.status_code in (429, 503):
        wait = response.headers.get("Retry-After", "a few")
        return UnavailableError(f"{message} ({code})", hint=f"try again in {wait} seconds")
    return RefusedError(f"{message} ({code})")
