"""The pages for what is not there, not allowed, or went wrong. Each says what to do next."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string

from control.console.pages import show
from control.console.theme import theme_of
from control.operators.roles import role_of


def bad_request(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:  # noqa: ARG001 - Django's signature
    """Answer a request that Django did not take. The host may be forged: nothing of the request is looked at."""
    return _bare(
        HTTPStatus.BAD_REQUEST,
        "The request was not understood",
        "Open the console by an address that control.json names in allowed_hosts.",
        "",
    )


def forbidden(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:  # noqa: ARG001
    """Answer an operator whose role does not reach so far."""
    role = role_of(request.user) if hasattr(request, "user") else None
    if role is None:
        said = "Your name has no role in this control."
    else:
        said = f"Your role, {role.value}, does not include this page or action."
    return _page(request, HTTPStatus.FORBIDDEN, "Not allowed", said, "Ask an administrator if you need it.")


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:  # noqa: ARG001
    """Answer a form that did not come from a page of this console, or from one of an earlier session."""
    return _page(
        request,
        HTTPStatus.FORBIDDEN,
        "The form is out of date",
        "It did not come from a page of your present session. Nothing was changed.",
        "Go back, reload the page, and send the form again.",
    )


def not_found(request: HttpRequest, exception: Exception | None = None) -> HttpResponse:  # noqa: ARG001
    """Answer an address that is none."""
    return _page(
        request,
        HTTPStatus.NOT_FOUND,
        "There is no such page",
        "The address is wrong, or what it named is not there.",
        "Look for it in its list.",
    )


def server_error(request: HttpRequest) -> HttpResponse:
    """Answer after a failure. Nothing that could fail again is asked: not who it is, not the database."""
    return _bare(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "Something went wrong here",
        "Clients are not affected: nodes serve without control. Look at the log of the console's service, then try again.",
        theme_of(request),
    )


def _page(request: HttpRequest, status: HTTPStatus, title: str, said: str, do: str) -> HttpResponse:
    return show(request, "error", title, status=status, code=int(status), said=said, do=do)


def _bare(status: HTTPStatus, title: str, do: str, theme: str) -> HttpResponse:
    context: dict[str, Any] = {"title": title, "code": int(status), "said": "", "do": do, "theme": theme}
    return HttpResponse(render_to_string("console/error.html", context), status=status)
