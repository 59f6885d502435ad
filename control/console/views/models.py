"""Models: what is pinned, and what exactly a pin is."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.urls import reverse

from control.console.pages import chosen, page, paged, show
from control.pins.models import ModelPin, PinState


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
    above = ("Models", reverse("console:models"))
    return show(
        request,
        "model",
        str(pin),
        above,
        pin=pin,
        manifest=manifest,
        size=sum(file.size for file in manifest.files),
    )
