"""What every page shares: who may open it, what it is called and where it stands, and how it answers a refusal."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from http import HTTPStatus
from typing import Any, Final, NamedTuple

from django.contrib import messages
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.core.paginator import Page, Paginator
from django.db.models import QuerySet
from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    HttpResponseNotAllowed,
    HttpResponseRedirect,
)
from django.shortcuts import render

from appliance.core.errors import ApplianceError
from control.operators.roles import may, role_of
from control.operators.stepup import has_fresh_factor, step_up

View = Callable[..., HttpResponseBase]
Crumb = tuple[str, str]  # label and address of a page above

PAGE_ROWS: Final = 50


def page(right: str | None, *, posts: bool = False, fresh: bool = False) -> Callable[[View], View]:
    """Open a view to roles with a right, for GET, and for POST if it changes something.

    Who is not signed in is sent to do so; who lacks the right gets the page that says so, whatever the method.

    Args:
        right: As in `control.operators.roles`; None: any role has it.
        posts: The view takes POST as well. A page that only shows something takes none.
        fresh: What it does is dangerous: the second factor is asked for anew, unless it was verified minutes ago.
    """
    methods = ("GET", "HEAD", "POST") if posts else ("GET", "HEAD")

    def guard(view: View) -> View:
        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            if not request.user.is_authenticated:
                return redirect_to_login(request.get_full_path())
            role = role_of(request.user)
            if role is None or (right is not None and not may(role, right)):
                raise PermissionDenied
            if request.method not in methods:
                return HttpResponseNotAllowed(methods)
            if fresh and not has_fresh_factor(request):
                return step_up(request)
            return view(request, *args, **kwargs)

        return guarded

    return guard


def show(
    request: HttpRequest,
    template: str,
    title: str,
    *above: Crumb,
    status: int = HTTPStatus.OK,
    **context: Any,
) -> HttpResponse:
    """Render a page.

    Args:
        request: That it answers.
        template: Under `console/`.
        title: Heading, and last of the breadcrumbs.
        above: The pages above it, the highest first.
        status: Of the answer.
        context: What the template needs besides.
    """
    return render(
        request, f"console/{template}.html", {"title": title, "above": above, **context}, status=status
    )


class Confirmation(NamedTuple):
    """What a change will do, said before it is done.

    Attributes:
        title, verb: Of the page and of its button.
        effects: What exactly will happen, a sentence each.
        dangerous: It cannot be taken back.
    """

    title: str
    verb: str
    effects: tuple[str, ...]
    dangerous: bool = True


def confirm(
    request: HttpRequest,
    asked: Confirmation,
    change: Callable[[], object],
    done: str,
    back: str,
    *above: Crumb,
    **context: Any,
) -> HttpResponse:
    """Ask on GET; on POST make the change, say so, and go back.

    Args:
        request: That it answers.
        asked: What is asked.
        change: Calls the service.
        done: What to say afterwards.
        back: Address of the page to go to, whether it was changed, refused or not wanted.
        above: As for `show`.
        context: What the page shows besides.
    """
    if request.method != "POST":
        return show(request, "confirm", asked.title, *above, asked=asked, back=back, **context)
    try:
        change()
        messages.success(request, done)
    except ApplianceError as error:
        messages.error(request, said(error))
    return HttpResponseRedirect(back)


def said(error: ApplianceError) -> str:
    """Return what a refusal says to people: why, and what to do next."""
    text = f"{error.reason[:1].upper()}{error.reason[1:]}."
    return f"{text} Next: {error.hint}." if error.hint else text


def paged(request: HttpRequest, rows: QuerySet[Any]) -> Page[Any]:
    """Return the page of rows that `?page=` names; the nearest one there is where it names none."""
    return Paginator(rows, PAGE_ROWS).get_page(request.GET.get("page"))


def searched(request: HttpRequest) -> str:
    """Return what was typed into the search field. NUL, which PostgreSQL takes nowhere, is no part of any name."""
    return request.GET.get("q", "").replace("\0", "").strip()[:64]


def chosen(request: HttpRequest, name: str, values: Any) -> str:
    """Return the value of a parameter that is one of a few, or an empty text."""
    value = request.GET.get(name, "")
    return value if value in values else ""
