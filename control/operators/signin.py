"""The pages of the login: name and password, then the second factor, or setting up the first one."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from appliance.core.errors import RefusedError
from control.journal.actors import acting, request_id
from control.journal.event import Source
from control.journal.middleware import operator_actor
from control.operators.factors import has_factor, lock_first, verify_answer
from control.operators.login import LoginForm
from control.operators.models import AppSecret
from control.operators.offers import offer_factors, take_up
from control.operators.passkeys import ask_for_passkey
from control.operators.pending import begin_pending, end_pending, pending_user
from control.operators.sessions import begin_session
from control.operators.stepup import safe_next

_HOME = "/"


@require_http_methods(["GET", "POST"])
def sign_in(request: HttpRequest) -> HttpResponse:
    """Ask for name and password."""
    then = safe_next(request, _HOME)
    if request.user.is_authenticated:
        return redirect(then)
    form = LoginForm(request, request.POST or None)
    if form.is_valid():
        begin_pending(request, form.get_user(), then)
        return redirect("sign-in-factor")
    return render(request, "operators/sign_in.html", {"form": form, "next": then})


@require_http_methods(["GET", "POST"])
def sign_in_factor(request: HttpRequest) -> HttpResponse:
    """Ask whoever gave a password for the second factor."""
    user = pending_user(request)
    if user is None:
        return redirect("sign-in")
    if not has_factor(user):
        return redirect("sign-in-set-up")
    refused = None
    if request.method == "POST":
        try:
            kind = verify_answer(request, user)
        except RefusedError as error:
            refused = error
        else:
            then = end_pending(request)
            begin_session(request, user, kind)
            return redirect(then)
    return ask_factor(request, user, refused, title="Second factor")


def ask_factor(
    request: HttpRequest, user: User, refused: RefusedError | None, *, title: str, then: str = ""
) -> HttpResponse:
    """Return the page that asks for a second factor; its forms say where to go `then`."""
    context = {
        "title": title,
        "refused": refused,
        "has_app": AppSecret.objects.filter(user=user).exists(),
        "passkey_options": ask_for_passkey(request, user),
        "next": then,
    }
    return render(request, "operators/factor.html", context)


@require_http_methods(["GET", "POST"])
def sign_in_set_up(request: HttpRequest) -> HttpResponse:
    """Let whoever gave a password and has no second factor set up the first one; nothing else can be reached before."""
    user = pending_user(request)
    if user is None:
        return redirect("sign-in")
    if has_factor(user):
        return redirect("sign-in-factor")
    refused = None
    if request.method == "POST":
        try:
            # Nobody is signed in yet; who gave the password sets the factor up.
            actor = operator_actor(user)
            with acting(Source.CONSOLE, actor, request=request_id()), transaction.atomic():
                lock_first(user)
                kind, codes = take_up(request, user)
        except RefusedError as error:
            refused = error
        else:
            then = end_pending(request)
            begin_session(request, user, kind)
            return render(request, "operators/codes.html", {"codes": codes, "next": then})
    context = {**offer_factors(request, user), "refused": refused, "first": True}
    return render(request, "operators/add_factor.html", context)
