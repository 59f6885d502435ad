"""Clients: list, one of them, add, limits, end, aliases, and the three changes of state."""

from __future__ import annotations

from django.contrib import messages
from django.db.models import Count, Q
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils import timezone

from control.audit.pseudonyms import pseudonym_of
from control.audit.search import ReceiptFilter
from control.clients.expiry import warn
from control.clients.forms import ClientForm, EndForm, LimitsForm
from control.clients.models import Client, ClientState, DeviceState
from control.clients.services import resume_client, revoke_client, suspend_client
from control.clients.status import device_statuses
from control.console.condition import cells_of
from control.console.pages import Confirmation, Crumb, chosen, confirm, page, paged, searched, show
from control.operators.roles import may, role_of
from control.pins.aliases import remove_alias
from control.pins.forms import AliasForm
from control.pins.models import ClientAlias, ModelPin, PinState

_LATEST = 8  # receipts on a client's page
_OPEN = 100  # invitations shown; a node takes fewer
_IN_USE = Q(devices__state=DeviceState.ACTIVE)


@page("clients.view_client")
def listing(request: HttpRequest) -> HttpResponse:
    """List clients by name."""
    query, state = searched(request), chosen(request, "state", ClientState.values)
    clients = Client.objects.select_related("home").annotate(in_use=Count("devices", filter=_IN_USE))
    if query:
        clients = clients.filter(name__contains=query.lower())
    if state:
        clients = clients.filter(state=state)
    return show(
        request,
        "clients",
        "Clients",
        page=paged(request, clients.order_by("name")),
        query=query,
        state=state,
        states=ClientState.values,
    )


@page("clients.view_client")
def detail(request: HttpRequest, name: str) -> HttpResponse:
    """Show a client with its devices and its latest receipts."""
    client = get_object_or_404(Client.objects.select_related("home"), name=name)
    sees_receipts = may(role_of(request.user), "audit.view_receiptrecord")
    latest = ReceiptFilter(client=pseudonym_of(client)).select().order_by("-id") if sees_receipts else None
    rows = paged(request, client.devices.select_related("client").order_by("state", "name", "id"))
    now, statuses = timezone.now(), device_statuses(rows)
    return show(
        request,
        "client",
        client.name,
        _above(),
        client=client,
        limits=client.parsed_limits(),
        ending=warn(client.expires_at, now),
        page=rows,
        devices=[(device, statuses[device.pk], warn(device.expires_at, now)) for device in rows],
        invitations=list(client.invitations.filter(ended_at=None)[:_OPEN]),
        now=now,
        aliases=list(client.aliases.all()),
        pins=ModelPin.objects.filter(name__in=client.allowed_models, state=PinState.ACTIVE),
        cell=dict(cells_of(client.home.health)).get(client.name),
        receipts=list(latest[:_LATEST]) if latest is not None else None,
    )


@page("clients.add_client", posts=True)
def add(request: HttpRequest) -> HttpResponse:
    """Create a client."""
    form = ClientForm(request.POST or None)
    made = form.save() if form.is_valid() else None
    if made is not None:
        messages.success(request, f"{made.name} was created. Add its first device now.")
        return HttpResponseRedirect(_url(made.name))
    lead = (
        "A client is the unit of isolation: each has a process, a memory and a chain of receipts of its own."
    )
    return show(
        request,
        "form",
        "Add a client",
        _above(),
        form=form,
        verb="Create client",
        back=reverse("console:clients"),
        lead=lead,
    )


@page("clients.change_client", posts=True)
def limits(request: HttpRequest, name: str) -> HttpResponse:
    """Give a client other limits."""
    client = get_object_or_404(Client, name=name)
    form = LimitsForm(request.POST or None, initial=client.parsed_limits().model_dump())
    if form.is_valid() and form.save(client):
        messages.success(request, f"{name} has other limits. Its cell follows them without a break.")
        return HttpResponseRedirect(_url(name))
    return show(
        request,
        "form",
        f"Limits of {name}",
        *_under(client),
        form=form,
        verb="Set limits",
        back=_url(name),
        lead="They are in force as soon as the node has its next bundle. Sessions that are open go on.",
    )


@page("clients.change_client", posts=True)
def end(request: HttpRequest, name: str) -> HttpResponse:
    """Say when a client ends."""
    client = get_object_or_404(Client, name=name)
    form = EndForm(
        request.POST if request.method == "POST" else None, initial={"expires_at": client.expires_at}
    )
    if form.is_valid() and form.save(client):
        messages.success(request, f"The end of {name} is {_said_end(client)}.")
        return HttpResponseRedirect(_url(name))
    return show(
        request,
        "form",
        f"End of {name}",
        *_under(client),
        form=form,
        verb="Set end",
        back=_url(name),
        lead="At its end a client is cut off with all its devices, by the node alone, whether control reaches it or not.",
    )


@page("pins.add_clientalias", posts=True)
def alias_add(request: HttpRequest, name: str) -> HttpResponse:
    """Give a model of a client another name."""
    client = get_object_or_404(Client, name=name)
    form = AliasForm(request.POST or None, client=client)
    made = form.save() if form.is_valid() else None
    if made is not None:
        messages.success(request, f"{name} gets {made.model} when it asks for {made.alias}.")
        return HttpResponseRedirect(_url(name))
    return show(
        request,
        "form",
        f"Alias for {name}",
        *_under(client),
        form=form,
        verb="Set alias",
        back=_url(name),
        lead="Another name for one of its models. An alias that is there already names this model from now on.",
    )


@page("pins.change_clientalias", posts=True)
def alias_remove(request: HttpRequest, pk: int) -> HttpResponse:
    """Take an alias away."""
    alias = get_object_or_404(ClientAlias.objects.select_related("client"), pk=pk)
    client = alias.client
    effects = (
        f"{client.name} is refused when it asks for {alias.alias}.",
        f"{alias.model} stays under its own name.",
    )
    if alias.alias == "default":
        effects = (f"The cell of {client.name} loads the first of its models.", effects[1])
    asked = Confirmation(f"Remove the alias {alias.alias}", "Remove alias", effects, dangerous=False)
    said = f"The alias {alias.alias} is removed."
    return confirm(request, asked, lambda: remove_alias(alias), said, _url(client.name), *_under(client))


@page("clients.change_client", posts=True)
def suspend(request: HttpRequest, name: str) -> HttpResponse:
    """Cut a client off until it is resumed."""
    client = get_object_or_404(Client, name=name)
    asked = Confirmation(
        f"Suspend {name}",
        "Suspend client",
        (
            f"{_devices(client)} cut off in less than a second while control reaches the node; answers that are streaming end.",
            "Sessions that are open are erased, each with a receipt.",
            "Nothing is lost for good: resume the client, and its devices connect with the keys that they have.",
        ),
        dangerous=False,
    )
    return confirm(
        request, asked, lambda: suspend_client(client), f"{name} is suspended.", _url(name), *_under(client)
    )


@page("clients.change_client", posts=True)
def resume(request: HttpRequest, name: str) -> HttpResponse:
    """Serve a client again."""
    client = get_object_or_404(Client, name=name)
    asked = Confirmation(
        f"Resume {name}",
        "Resume client",
        (f"{_devices(client)} let in again with the keys and tokens that they have.",),
        dangerous=False,
    )
    return confirm(
        request, asked, lambda: resume_client(client), f"{name} is served again.", _url(name), *_under(client)
    )


@page("clients.change_client", posts=True, fresh=True)
def revoke(request: HttpRequest, name: str) -> HttpResponse:
    """Cut a client off for good."""
    client = get_object_or_404(Client, name=name)
    asked = Confirmation(
        f"Revoke {name} for good",
        "Revoke client for good",
        (
            f"{_devices(client)} cut off in less than a second while control reaches the node; answers that are streaming end.",
            "Sessions that are open are erased, each with a receipt.",
            "Its devices' keys and tokens are worthless from then on, and its name stays taken.",
            "This cannot be taken back. To cut a client off for a while, suspend it.",
            "Its receipts stay, here and with the client, and go on verifying.",
        ),
    )
    return confirm(
        request, asked, lambda: revoke_client(client), f"{name} is revoked.", _url(name), *_under(client)
    )


def _devices(client: Client) -> str:
    count = client.devices.filter(state=DeviceState.ACTIVE).count()
    return "Its one device is" if count == 1 else f"Its {count:,} devices are"


def _said_end(client: Client) -> str:
    return f"{client.expires_at:%Y-%m-%d %H:%M} UTC" if client.expires_at else "open"


def _url(name: str) -> str:
    return reverse("console:client", args=[name])


def _above() -> Crumb:
    return ("Clients", reverse("console:clients"))


def _under(client: Client) -> tuple[Crumb, ...]:
    return (_above(), (client.name, _url(client.name)))
