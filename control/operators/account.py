"""An operator's own pages: second factors, recovery codes, sessions, and asking for the factor anew. Nobody sees another's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from appliance.core.errors import RefusedError
from control.operators import factors, offers
from control.operators.login import note_success
from control.operators.models import AppSecret, Passkey, RecoveryCode
from control.operators.sessions import end_other_sessions, end_session, list_sessions, note_factor
from control.operators.signin import ask_factor
from control.operators.stepup import fresh_factor_required, safe_next

FEW_CODES: Final = 3


def _user_of(request: HttpRequest) -> User:
    if not isinstance(request.user, User):  # the decorators let nobody else through
        raise Http404
    return request.user


@require_GET
@login_required
def account(request: HttpRequest) -> HttpResponse:
    """Show one's factors and sessions."""
    user = _user_of(request)
    codes_left = RecoveryCode.objects.filter(user=user).count()
    context = {
        "app": AppSecret.objects.filter(user=user).first(),
        "passkeys": Passkey.objects.filter(user=user),
        "codes_left": codes_left,
        "few_codes": codes_left <= FEW_CODES,
        "sessions": list_sessions(request),
    }
    return render(request, "operators/account.html", context)


@require_http_methods(["GET", "POST"])
@login_required
def step_up_page(request: HttpRequest) -> HttpResponse:
    """Ask for the second factor anew."""
    user, then, refused = _user_of(request), safe_next(request, reverse("account")), None
    if request.method == "POST":
        try:
            kind = factors.verify_answer(request, user)
        except RefusedError as error:
            refused = error
        else:
            note_success(user.get_username())
            note_factor(request.session, kind)
            request.session.cycle_key()  # who knew the cookie before has gained nothing
            return redirect(then)
    return ask_factor(request, user, refused, title="Confirm that it is you", then=then)


@require_http_methods(["GET", "POST"])
@fresh_factor_required
def add_factor(request: HttpRequest) -> HttpResponse:
    """Set up another passkey, or an app in place of the one before."""
    user, refused = _user_of(request), None
    if request.method == "POST":
        try:
            kind, _ = offers.take_up(request, user)
        except RefusedError as error:
            refused = error
        else:
            messages.success(request, f"The {kind} is set up.")
            return redirect("account")
    has_app = AppSecret.objects.filter(user=user).exists()
    context = {**offers.offer_factors(request, user), "refused": refused, "replaces_app": has_app}
    return render(request, "operators/add_factor.html", context)


@require_http_methods(["GET", "POST"])
@fresh_factor_required
def remove_app(request: HttpRequest) -> HttpResponse:
    """Forget one's authenticator app."""
    return _remove(request, "the authenticator app", factors.remove_app)


@require_http_methods(["GET", "POST"])
@fresh_factor_required
def remove_passkey(request: HttpRequest, key: int) -> HttpResponse:
    """Forget one of one's passkeys."""
    found = Passkey.objects.filter(user=_user_of(request), pk=key).first()
    if found is None:
        raise Http404
    return _remove(request, f"the passkey {found.name}", lambda user: factors.remove_passkey(user, key))


def _remove(request: HttpRequest, what: str, remove: Callable[[User], None]) -> HttpResponse:
    """Say what will be removed, or remove it."""
    refused = None
    if request.method == "POST":
        try:
            remove(_user_of(request))
        except RefusedError as error:
            refused = error
        else:
            messages.success(request, f"Removed: {what}.")
            return redirect("account")
    return render(request, "operators/remove.html", {"what": what, "refused": refused})


@require_http_methods(["GET", "POST"])
@fresh_factor_required
def recovery_codes(request: HttpRequest) -> HttpResponse:
    """Say what new recovery codes do, or make them and show them once."""
    if request.method == "POST":
        codes = factors.new_recovery_codes(_user_of(request))
        return render(request, "operators/codes.html", {"codes": codes, "next": reverse("account")})
    return render(request, "operators/new_codes.html")


@require_POST
@login_required
def end_one_session(request: HttpRequest) -> HttpResponse:
    """End one of one's sessions, or all but this. It takes rights away and gives none, so it asks for no fresh factor."""
    handle = request.POST.get("session", "")
    if handle == "others":
        messages.success(request, f"{end_other_sessions(request)} ended.")
    elif not end_session(request, handle):
        raise Http404
    return redirect("account")
