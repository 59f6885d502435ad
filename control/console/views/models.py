"""Models: list, one of them with how far the nodes are, activate, go back, retire."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse

from control.clients.models import Client, ClientState
from control.console.pages import Confirmation, Crumb, chosen, confirm, page, paged, show
from control.pins.models import ModelPin, PinState
from control.pins.progress import node_progress
from control.pins.services import activate_pin, previous_pin, retire_pin, rollback


@page("pins.view_modelpin")
def listing(request: HttpRequest) -> HttpResponse:
    """List pins by name, the active ones first."""
    state = chosen(request, "state", PinState.values)
    pins = ModelPin.objects.filter(state=state) if state else ModelPin.objects.all()
    rows = paged(request, pins.order_by("state", "name", "-id"))
    return show(request, "models", "Models", page=rows, state=state, states=PinState.values)


@page("pins.view_modelpin")
def detail(request: HttpRequest, pin_id: str) -> HttpResponse:
    """Show a pin."""
    pin = get_object_or_404(ModelPin, pin_id=pin_id)
    manifest = pin.parsed_manifest()
    return show(
        request,
        "model",
        str(pin),
        _above(),
        pin=pin,
        progress=node_progress(pin),
        previous=previous_pin(pin.name) if pin.state == PinState.ACTIVE else None,
        manifest=manifest,
        size=sum(file.size for file in manifest.files),
    )


@page("pins.change_modelpin", posts=True)
def activate(request: HttpRequest, pin_id: str) -> HttpResponse:
    """Serve a model under its name from now on."""
    pin = get_object_or_404(ModelPin, pin_id=pin_id)
    active = ModelPin.objects.filter(name=pin.name, state=PinState.ACTIVE).first()
    if active is not None and active.pk != pin.pk:
        instead = f"It takes the place of {active}, which goes back to verified and can be activated again."
    else:
        instead = "No model of this name is active now."
    effects = (
        instead,
        f"{_using(pin.name)}.",
        "Nodes fetch its files and hash them, and serve it once they have the next bundle.",
        "Receipts from then on name its pin.",
    )
    asked = Confirmation(f"Activate {pin}", "Activate model", effects, dangerous=False)
    return confirm(
        request,
        asked,
        lambda: activate_pin(pin),
        f"{pin} is active.",
        _url(pin),
        _above(),
        (str(pin), _url(pin)),
    )


@page("pins.change_modelpin", posts=True)
def go_back(request: HttpRequest, pin_id: str) -> HttpResponse:
    """Serve the model again that was active before this one."""
    pin = get_object_or_404(ModelPin, pin_id=pin_id)
    before = previous_pin(pin.name)
    effects = (
        f"{before or 'The model before it'} is served under the name {pin.name} again.",
        f"{_using(pin.name)}.",
        "The model that is active now goes back to verified and can be activated again.",
    )
    asked = Confirmation(f"Roll {pin.name} back", "Roll back", effects, dangerous=False)
    said = f"{pin.name} is rolled back."
    return confirm(
        request, asked, lambda: rollback(pin.name), said, _url(pin), _above(), (str(pin), _url(pin))
    )


@page("pins.change_modelpin", posts=True, fresh=True)
def retire(request: HttpRequest, pin_id: str) -> HttpResponse:
    """Give a model up for good."""
    pin = get_object_or_404(ModelPin, pin_id=pin_id)
    effects = (
        "It is served no more, and this version of it can never come back.",
        "Files that no other model has are removed from the management machine.",
        "Receipts that name it stay, and go on verifying.",
        "While it is active and a client may use it, this is refused.",
    )
    asked = Confirmation(f"Retire {pin} for good", "Retire model for good", effects)
    return confirm(
        request,
        asked,
        lambda: retire_pin(pin),
        f"{pin} is retired.",
        _url(pin),
        _above(),
        (str(pin), _url(pin)),
    )


def _using(name: str) -> str:
    """Say how many clients a change of this name reaches."""
    allowed = Client.objects.exclude(state=ClientState.REVOKED).values_list("allowed_models", flat=True)
    count = sum(name in models for models in allowed)
    return f"{count:,} client{' may' if count == 1 else 's may'} use {name}"


def _url(pin: ModelPin) -> str:
    return reverse("console:model", args=[pin.pin_id])


def _above() -> Crumb:
    return ("Models", reverse("console:models"))
