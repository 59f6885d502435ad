"""Invitations: make one, let in who redeemed it, cancel it."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse

from control.clients.forms import InvitationForm
from control.clients.invitations import approve_invitation, cancel_invitation
from control.clients.models import Client, Invitation
from control.console.pages import Confirmation, Crumb, confirm, page, show
from control.console.qr import draw_code


@page("clients.add_invitation", posts=True)
def add(request: HttpRequest, name: str) -> HttpResponse:
    """Invite a device of a client; the answer is the one copy of the ticket."""
    client = get_object_or_404(Client, name=name)
    form = InvitationForm(request.POST or None)
    made = form.save(client) if form.is_valid() else None
    if made is None:
        lead = "The client gets one line of text, and its computer does the rest: it makes the key, and fetches its configuration."
        return show(
            request,
            "form",
            "Invite a device",
            *_under(client),
            form=form,
            verb="Make invitation",
            back=_url(client),
            lead=lead,
        )
    return show(
        request,
        "invitation",
        f"Invitation for {made.device}",
        *_under(client),
        made=made,
        row=Invitation.objects.get(pk=made.id),
        code=draw_code(made.invitation, "The invitation as a QR code"),
        client=client,
    )


@page("clients.change_invitation", posts=True)
def approve(request: HttpRequest, pk: int) -> HttpResponse:
    """Let the key in that redeemed an invitation, once its fingerprint was compared."""
    invitation = _found(pk)
    name, client = invitation.device_name, invitation.client
    asked = Confirmation(
        f"Let {name} of {client.name} in",
        "They are equal: let it in",
        (
            "Ask whoever was invited, by phone or in person, for the fingerprint on their screen.",
            "If one character differs, somebody else redeemed the invitation: leave, and cancel it.",
            "The device gets its configuration at once and can connect within seconds.",
        ),
        dangerous=False,
    )
    return confirm(
        request,
        asked,
        lambda: approve_invitation(invitation),
        f"{name} of {client.name} is let in.",
        _url(client),
        *_under(client),
        fingerprint=invitation.fingerprint,
    )


@page("clients.change_invitation", posts=True)
def cancel(request: HttpRequest, pk: int) -> HttpResponse:
    """End an invitation."""
    invitation = _found(pk)
    name, client = invitation.device_name, invitation.client
    asked = Confirmation(
        f"Cancel the invitation of {name}",
        "Cancel invitation",
        (
            "Its ticket is worthless from then on, also to whoever redeemed it and waits.",
            "Devices that are let in already are not touched.",
            "A new invitation takes a moment.",
        ),
        dangerous=False,
    )
    return confirm(
        request,
        asked,
        lambda: cancel_invitation(invitation),
        f"The invitation of {name} is cancelled.",
        _url(client),
        *_under(client),
    )


def _found(pk: int) -> Invitation:
    return get_object_or_404(Invitation.objects.select_related("client"), pk=pk)


def _url(client: Client) -> str:
    return reverse("console:client", args=[client.name])


def _under(client: Client) -> tuple[Crumb, ...]:
    return (("Clients", reverse("console:clients")), (client.name, _url(client)))
