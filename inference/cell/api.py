"""The paths of the cell's API. Who may use them is the gate's business, what they answer is here."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from appliance.core.receipt import End
from inference.cell.body import read_object
from inference.cell.cell import Cell
from inference.cell.chat import answer_chat
from inference.cell.completion import encode
from inference.cell.errors import Refusal
from inference.cell.notary import NotaryUnavailableError, NotLoggedError, UnknownReceiptError
from inference.cell.sessions import Session
from inference.cell.text import answer_text
from inference.cell.tokens import detokenize, tokenize

_RECEIPT_ID: Final = re.compile(r"[0-9a-f]{32}\Z")
T = TypeVar("T")
_STATUS_CODES: Final = {404: "not_found", 405: "method_not_allowed"}


class Api:
    """The endpoints of one cell."""

    def __init__(self, cell: Cell) -> None:
        self._cell = cell

    async def models(self) -> Response:
        """GET /v1/models."""
        return _json({"object": "list", "data": [self._cell.model.entry()]})

    async def model(self, name: str) -> Response:
        """GET /v1/models/{name}."""
        if name not in self._cell.names:
            raise Refusal("model_not_found", "model")
        return _json(self._cell.model.entry())

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions."""
        return await answer_chat(self._cell, request)

    async def text(self, request: Request) -> Response:
        """POST /v1/completions."""
        return await answer_text(self._cell, request)

    async def tokenize(self, request: Request) -> Response:
        """POST /tokenize."""
        return _json(await tokenize(self._cell, request))

    async def detokenize(self, request: Request) -> Response:
        """POST /detokenize."""
        return _json(await detokenize(self._cell, request))

    async def open_session(self, request: Request) -> Response:
        """POST /v1/sessions: open a kept session. `ttl_s` may shorten what the policy allows."""
        if self._cell.life.closing:
            raise Refusal("draining")
        self._cell.rates.take_request()
        limits = self._cell.policy.current.limits
        body = await read_object(request, max_bytes=limits.body_bytes, may_be_empty=True)
        ttl_s = _ttl(body, limits.session_max_s)
        return self._describe(await self._cell.sessions.open(request.state.work, kept=True, ttl_s=ttl_s))

    async def session(self, session_id: str) -> Response:
        """GET /v1/sessions/{id}."""
        return self._describe(self._cell.sessions.find(session_id))

    async def delete_session(self, session_id: str) -> Response:
        """DELETE /v1/sessions/{id}: erase it and answer with its receipt."""
        session = self._cell.sessions.find(session_id)
        signed = await self._cell.sessions.end(session, End.DELETED)
        if signed is None:
            raise Refusal("notary_unavailable", receipt=session.receipt)
        answer = {
            "id": session.id,
            "object": "session.deleted",
            "deleted": True,
            "receipt": signed.model_dump(mode="json"),
        }
        return _json(answer, session.receipt)

    async def receipt(self, receipt_id: str) -> Response:
        """GET /v1/receipts/{id}: a receipt of this client, as it would be kept in a file."""
        signed = await _asked(self._cell.notary.get, receipt_id)
        return Response(signed.canonical_bytes(), media_type="application/json", headers=_headers(receipt_id))

    async def proof(self, receipt_id: str) -> Response:
        """GET /v1/receipts/{id}/proof: that the log holds it, as c2sp.org/tlog-proof."""
        proof = await _asked(self._cell.notary.prove, receipt_id)
        return Response(proof, media_type="text/plain; charset=utf-8", headers=_headers(receipt_id))

    def _describe(self, session: Session) -> Response:
        answer = {
            "id": session.id,
            "object": "session",
            "expires_at": session.expires_at,
            "model": self._cell.model.name,
        }
        return _json(answer, session.receipt)


def build_api(cell: Cell) -> FastAPI:
    """Return the application: the API's paths and nothing else, no documentation pages, no redirects."""
    api = Api(cell)
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    routes = (
        ("/v1/models", api.models, "GET"),
        ("/v1/models/{name}", api.model, "GET"),
        ("/v1/chat/completions", api.chat, "POST"),
        ("/v1/completions", api.text, "POST"),
        ("/tokenize", api.tokenize, "POST"),
        ("/detokenize", api.detokenize, "POST"),
        ("/v1/sessions", api.open_session, "POST"),
        ("/v1/sessions/{session_id}", api.session, "GET"),
        ("/v1/sessions/{session_id}", api.delete_session, "DELETE"),
        ("/v1/receipts/{receipt_id}", api.receipt, "GET"),
        ("/v1/receipts/{receipt_id}/proof", api.proof, "GET"),
    )
    for path, endpoint, method in routes:
        app.add_api_route(path, endpoint, methods=[method], response_model=None)
    app.add_exception_handler(Refusal, _answer_refusal)
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_exception_handler(RequestValidationError, _answer_validation_error)
    app.add_exception_handler(Exception, _answer_fault)
    return app


def render_refusal(refusal: Refusal) -> Response:
    """Return the HTTP answer of a refusal."""
    return Response(refusal.body(), status_code=refusal.status, headers=refusal.headers())


async def _answer_refusal(_request: Request, error: Exception) -> Response:
    return render_refusal(error if isinstance(error, Refusal) else Refusal("internal"))


async def _answer_http_error(_request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    response = render_refusal(Refusal(_STATUS_CODES.get(status, "internal")))
    if isinstance(error, HTTPException) and error.headers and "Allow" in error.headers:
        response.headers["allow"] = error.headers["Allow"]  # RFC 9110 section 15.5.6
    return response


async def _answer_validation_error(_request: Request, _error: Exception) -> Response:
    # FastAPI's own answer quotes the input. No endpoint declares a body, so this is never reached; it stays shut.
    return render_refusal(Refusal("invalid_json"))


async def _answer_fault(_request: Request, _error: Exception) -> Response:
    return render_refusal(Refusal("internal"))


async def _asked(ask: Callable[[str], Awaitable[T]], receipt_id: str) -> T:
    """Return what the notary says about a receipt of this client."""
    if not _RECEIPT_ID.match(receipt_id):
        raise Refusal("receipt_not_found")
    try:
        return await ask(receipt_id)
    except UnknownReceiptError:
        raise Refusal("receipt_not_found") from None
    except NotLoggedError:
        raise Refusal("not_logged") from None
    except NotaryUnavailableError:
        raise Refusal("notary_unavailable") from None


def _ttl(body: dict[str, Any], longest_s: int) -> int | None:
    if not body.keys() <= {"ttl_s"}:
        raise Refusal("unknown_parameter")
    ttl_s = body.get("ttl_s")
    if ttl_s is None:
        return None
    if type(ttl_s) is not int or not 1 <= ttl_s <= longest_s:
        raise Refusal("invalid_value", "ttl_s")
    return ttl_s


def _json(value: dict[str, Any], receipt: str | None = None) -> Response:
    return Response(encode(value), media_type="application/json", headers=_headers(receipt))


def _headers(receipt: str | None) -> dict[str, str]:
    headers = {"cache-control": "no-store"}
    return headers if receipt is None else headers | {"x-receipt-id": receipt}
