"""Operators: list, add, another role, sign out, disable. Administrators are made and changed on the management machine alone."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.urls import reverse

from appliance.core.errors import ApplianceError
from control.console.forms import MEANINGS, OperatorForm, RoleForm
from control.console.pages import Confirmation, Crumb, confirm, page, paged, said, searched, show
from control.operators.roles import Role, role_of
from control.operators.services import disable_operator, give_role, operator_facts, sign_out


@page("operators.view_operator")
def listing(request: HttpRequest) -> HttpResponse:
    """List operators by name."""
    query = searched(request)
    users = User.objects.filter(is_staff=True).select_related("operator").order_by("username")
    rows = paged(request, users.filter(username__contains=query) if query else users)
    shown = [
        (user, operator_facts(user), user.is_active and role_of(user) is not Role.ADMINISTRATOR)
        for user in rows
    ]
    return show(
        request,
        "operators",
        "Operators",
        page=rows,
        shown=shown,
        query=query,
        meanings=[(role.value, text) for role, text in MEANINGS.items()],
    )


@page("operators.add_operator", posts=True)
def add(request: HttpRequest) -> HttpResponse:
    """Create an operator; the answer is the one copy of the first password."""
    form = OperatorForm(request.POST or None)
    made = form.save() if form.is_valid() else None
    back = reverse("console:operators")
    if made is None:
        lead = "Each person has a name of their own: what is done is attributed to it."
        return show(
            request, "form", "Add an operator", _above(), form=form, verb="Add operator", back=back, lead=lead
        )
    user, password = made
    if password is None:
        messages.success(request, f"{user.get_username()} was added. Create a token for it now.")
        return HttpResponseRedirect(back)
    lead = f"Tell {user.get_username()} in person, or over a channel that you trust. It is to be changed at the first sign-in."
    return show(
        request,
        "secret",
        f"{user.get_username()} was added",
        _above(),
        label="First password",
        secret=password,
        lead=lead,
        back=back,
    )


@page("operators.change_operator", posts=True, fresh=True)
def role(request: HttpRequest, pk: int) -> HttpResponse:
    """Give an operator another role."""
    user = _below_administrators(pk)
    name, back, now = user.get_username(), reverse("console:operators"), role_of(user)
    form = RoleForm(request.POST or None, initial={"role": now.value if now else ""})
    if form.is_valid():
        try:
            give_role(name, Role(form.cleaned_data["role"]))
            messages.success(request, f"{name} is {form.cleaned_data['role']} now.")
        except ApplianceError as error:
            messages.error(request, said(error))
        return HttpResponseRedirect(back)
    lead = "It is in force with the next request, for open sessions and tokens alike."
    return show(
        request, "form", f"Role of {name}", _above(), form=form, verb="Give this role", back=back, lead=lead
    )


@page("operators.change_operator", posts=True)
def end_sessions(request: HttpRequest, pk: int) -> HttpResponse:
    """End all sessions of an operator."""
    name = _below_administrators(pk).get_username()
    effects = ("Every session of this name ends with its next request.", "Tokens stay; so does the password.")
    asked = Confirmation(f"Sign {name} out", "End all sessions", effects, dangerous=False)
    return confirm(
        request,
        asked,
        lambda: sign_out(name),
        f"{name} is signed out.",
        reverse("console:operators"),
        _above(),
    )


@page("operators.change_operator", posts=True, fresh=True)
def disable(request: HttpRequest, pk: int) -> HttpResponse:
    """Let nobody in under a name."""
    name = _below_administrators(pk).get_username()
    effects = (
        "Every session and every token of this name ends at once.",
        "Nobody gets in under it any more, and the name stays taken.",
        "This cannot be taken back in the console.",
    )
    asked = Confirmation(f"Disable {name}", "Disable operator", effects)
    return confirm(
        request,
        asked,
        lambda: disable_operator(name),
        f"{name} is disabled.",
        reverse("console:operators"),
        _above(),
    )


def _below_administrators(pk: int) -> User:
    user = get_object_or_404(User.objects.select_related("operator"), pk=pk, is_staff=True, is_active=True)
    if role_of(user) is Role.ADMINISTRATOR:
        raise PermissionDenied
    return user


def _above() -> Crumb:
    return ("Operators", reverse("console:operators"))
