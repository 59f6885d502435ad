"""API tokens: list, create, revoke."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils import timezone

from control.console.forms import TokenForm
from control.console.pages import Confirmation, Crumb, confirm, page, paged, searched, show
from control.operators.models import ApiToken
from control.operators.services import revoke_token


@page("operators.view_apitoken")
def listing(request: HttpRequest) -> HttpResponse:
    """List tokens by operator, without their texts: nobody has those but who created them."""
    query = searched(request)
    tokens = ApiToken.objects.select_related("operator__operator").order_by("operator__username", "name")
    if query:
        tokens = tokens.filter(operator__username__contains=query) | tokens.filter(name__contains=query)
    return show(request, "tokens", "API tokens", page=paged(request, tokens), query=query, now=timezone.now())


@page("operators.add_apitoken", posts=True)
def add(request: HttpRequest) -> HttpResponse:
    """Create a token; the answer is the one copy of its text."""
    form = TokenForm(request.POST or None, initial={"operator": request.user.get_username()})
    text = form.save() if form.is_valid() else None
    back = reverse("console:tokens")
    if text is None:
        return show(
            request,
            "form",
            "Create a token",
            _above(),
            form=form,
            verb="Create token",
            back=back,
            lead="A token lets a program use the API in an operator's name.",
        )
    lead = "Put it where the program reads it, readable by that program alone. In a request: Authorization: Bearer …"
    return show(request, "secret", "The token", _above(), label="Token", secret=text, lead=lead, back=back)


@page("operators.delete_apitoken", posts=True, fresh=True)
def revoke(request: HttpRequest, pk: int) -> HttpResponse:
    """End a token."""
    token = get_object_or_404(ApiToken.objects.select_related("operator"), pk=pk)
    operator = token.operator.get_username()
    effects = (
        "The program that uses it is refused from its next request on.",
        "This cannot be taken back; a new token takes a moment.",
    )
    asked = Confirmation(f"Revoke the token {token.name} of {operator}", "Revoke token", effects)
    return confirm(
        request,
        asked,
        lambda: revoke_token(operator, token.name),
        f"The token {token.name} of {operator} is revoked.",
        reverse("console:tokens"),
        _above(),
    )


def _above() -> Crumb:
    return ("API tokens", reverse("console:tokens"))
