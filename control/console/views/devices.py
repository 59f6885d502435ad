"""Devices: all of them, add one to a client, give one another key or an end, revoke one."""

from __future__ import annotations

import base64
import json
from typing import Any

from django.contrib import messages
from django.db.models import Q
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils import timezone

from appliance.core.client_configuration import PRIVATE_KEY_PLACEHOLDER, ClientConfiguration
from control.clients.expiry import warn
from control.clients.forms import DeviceForm, EndForm, RotationForm
from control.clients.models import Client, Device, DeviceState
from control.clients.services import revoke_device
from control.clients.status import device_statuses
from control.console.pages import Confirmation, Crumb, chosen, confirm, page, paged, searched, show
from control.console.qr import draw_code


@page("clients.view_device")
def listing(request: HttpRequest) -> HttpResponse:
    """List devices by client and name."""
    query, state = searched(request), chosen(request, "state", DeviceState.values)
    devices = Device.objects.select_related("client")
    if query:
        named = Q(name__contains=query.lower()) | Q(client__name__contains=query.lower())
        devices = devices.filter(named | Q(public_key__startswith=query))
    if state:
        devices = devices.filter(state=state)
    rows = paged(request, devices.order_by("client__name", "name", "id"))
    now, statuses = timezone.now(), device_statuses(rows)
    return show(
        request,
        "devices",
        "Devices",
        page=rows,
        devices=[(device, statuses[device.pk], warn(device.expires_at, now)) for device in rows],
        query=query,
        state=state,
        states=DeviceState.values,
    )


@page("clients.add_device", posts=True)
def add(request: HttpRequest, name: str) -> HttpResponse:
    """Add a device to a client; the answer is the one copy of its configuration."""
    client = get_object_or_404(Client, name=name)
    above: tuple[Crumb, ...] = (
        ("Clients", reverse("console:clients")),
        (client.name, reverse("console:client", args=[name])),
    )
    form = DeviceForm(request.POST or None, client=name)
    made = form.save() if form.is_valid() else None
    if made is None:
        return show(
            request,
            "device_add",
            "Add a device",
            *above,
            form=form,
            back=reverse("console:client", args=[name]),
        )
    return show(
        request, "configuration", f"{made.device} was added", *above, **_handed_out(made), client=client
    )


@page("clients.change_device", posts=True)
def rotate(request: HttpRequest, pk: int) -> HttpResponse:
    """Give a device another key; the answer is the one copy of the configuration that goes with it."""
    device = get_object_or_404(Device.objects.select_related("client"), pk=pk)
    client, back = device.client, reverse("console:client", args=[device.client.name])
    above: tuple[Crumb, ...] = (("Clients", reverse("console:clients")), (client.name, back))
    form = RotationForm(request.POST or None)
    made = form.save(device) if form.is_valid() else None
    if made is None:
        title, lead = f"Another key for {device.name}", "The key is made on the client's computer."
        return show(request, "form", title, *above, form=form, verb="Take this key", back=back, lead=lead)
    title = f"{device.name} has another key"
    return show(request, "configuration", title, *above, **_handed_out(made), client=client)


@page("clients.change_device", posts=True)
def end(request: HttpRequest, pk: int) -> HttpResponse:
    """Say when a device's key ends."""
    device = get_object_or_404(Device.objects.select_related("client"), pk=pk)
    back = reverse("console:client", args=[device.client.name])
    form = EndForm(
        request.POST if request.method == "POST" else None, initial={"expires_at": device.expires_at}
    )
    if form.is_valid() and form.save(device):
        messages.success(request, f"The end of {device.name} is set.")
        return HttpResponseRedirect(back)
    return show(
        request,
        "form",
        f"End of {device.name}",
        ("Clients", reverse("console:clients")),
        (device.client.name, back),
        form=form,
        verb="Set end",
        back=back,
        lead="At its end the node cuts this key off. The device comes back with another one.",
    )


@page("clients.change_device", posts=True, fresh=True)
def revoke(request: HttpRequest, pk: int) -> HttpResponse:
    """Cut a device off for good."""
    device = get_object_or_404(Device.objects.select_related("client"), pk=pk)
    back = reverse("console:client", args=[device.client.name])
    asked = Confirmation(
        f"Revoke {device.name} of {device.client.name} for good",
        "Revoke device for good",
        (
            f"{device.name} is cut off in less than a second while control reaches the node; answers that stream to it end.",
            f"Other devices of {device.client.name} are not touched.",
            "Its key and token are worthless from then on. This cannot be taken back.",
            "If the computer is to come back, make a new key on it and add it anew.",
        ),
    )
    return confirm(
        request,
        asked,
        lambda: revoke_device(device),
        f"{device.name} of {device.client.name} is revoked.",
        back,
        ("Clients", reverse("console:clients")),
        (device.client.name, back),
    )


def _handed_out(made: ClientConfiguration) -> dict[str, Any]:
    """Return a configuration as a page shows it. The link to the file holds the file: nothing is kept to be fetched later."""
    text = json.dumps(made.model_dump(mode="json"), indent=2) + "\n"
    encoded = base64.b64encode(text.encode("utf-8")).decode("ascii")
    before, placeholder, after = made.wireguard_conf.partition(PRIVATE_KEY_PLACEHOLDER)
    return {
        "made": made,
        "text": text,
        "file": f"data:application/json;base64,{encoded}",
        "tunnel": {"before": before, "placeholder": placeholder, "after": after},
        "code": draw_code(made.wireguard_conf),
    }
