"""The verbs of clients. A revocation is a committed change plus a hint; the reconciler carries it to the node."""

from __future__ import annotations

from django.db import transaction
from django.utils import timezone

from appliance.core.errors import RefusedError
from control.clients.models import Client, ClientState, Device, DeviceState
from control.clients.requests import NewClient
from control.fleet.services import choose_node
from control.hints import hint_on_commit
from control.journal.services import created, record
from control.journal.vocabulary import Verb
from control.pins.models import ModelPin, PinState


def create_client(new: NewClient) -> Client:
    """Create a client.

    Raises:
        RefusedError: Naming the field: a name that was used before, a model that is not pinned, no home node.
    """
    with transaction.atomic():
        if Client.objects.filter(name=new.name).exists():
            # A revoked client's name stays taken: receipts and unit names would mean two clients.
            raise RefusedError("the name is taken", field="name")
        client = Client.objects.create(
            name=new.name,
            home=choose_node(new.node),
            limits=new.limits.model_dump(mode="json"),
            allowed_models=_allowed_models(new.models),
        )
        hint_on_commit()
        record(Verb.CLIENT_CREATE, client.name, created(**_facts(client)))
    return client


def find_client(name: str, field: str = "client") -> Client:
    """Return the client of this name.

    Raises:
        RefusedError: If there is none.
    """
    client = Client.objects.select_related("home").filter(name=name).first()
    if client is None:
        raise RefusedError(
            "there is no client of this name", field=field, hint="list them: appliance control client list"
        )
    return client


def find_device(client: Client, name: str) -> Device:
    """Return the client's active device of this name, or the last one that had it.

    Raises:
        RefusedError: If there is none.
    """
    devices = Device.objects.filter(client=client, name=name)
    device = devices.filter(state=DeviceState.ACTIVE).first() or devices.order_by("-id").first()
    if device is None:
        raise RefusedError(
            "the client has no device of this name", field="name", hint="appliance control device list"
        )
    return device


def suspend_client(client: Client) -> None:
    """Cut a client off until it is resumed.

    Raises:
        RefusedError: If it was revoked.
    """
    with transaction.atomic():
        state = _move(client, (ClientState.ACTIVE, ClientState.SUSPENDED), ClientState.SUSPENDED)
        record(Verb.CLIENT_SUSPEND, client.name, {"state": state})


def resume_client(client: Client) -> None:
    """Serve a suspended client again.

    Raises:
        RefusedError: If it was revoked.
    """
    with transaction.atomic():
        state = _move(client, (ClientState.ACTIVE, ClientState.SUSPENDED), ClientState.ACTIVE)
        record(Verb.CLIENT_RESUME, client.name, {"state": state})


def revoke_client(client: Client) -> None:
    """Cut a client and all of its devices off for good. Doing it twice does no harm."""
    with transaction.atomic():
        state = _move(client, tuple(ClientState), ClientState.REVOKED)
        devices = Device.objects.filter(client=client, state=DeviceState.ACTIVE).update(
            state=DeviceState.REVOKED, revoked_at=timezone.now()
        )
        record(Verb.CLIENT_REVOKE, client.name, {"state": state, "active_devices": (devices, 0)})


def revoke_device(device: Device) -> None:
    """Cut a device off for good. Doing it twice does no harm."""
    with transaction.atomic():
        revoked = Device.objects.filter(pk=device.pk, state=DeviceState.ACTIVE).update(
            state=DeviceState.REVOKED, revoked_at=timezone.now()
        )
        hint_on_commit()
        before = DeviceState.ACTIVE if revoked else DeviceState.REVOKED
        record(Verb.DEVICE_REVOKE, f"{device.client}/{device}", {"state": (before, DeviceState.REVOKED)})
    device.refresh_from_db()


def _move(
    client: Client, allowed: tuple[ClientState, ...], state: ClientState
) -> tuple[ClientState, ClientState]:
    """Change a client's state in the caller's transaction, if it is one of `allowed`; return the one before, and the new one."""
    # The row lock (SQLite: the transaction's own write lock) lets one at a time look and change.
    before = ClientState(Client.objects.select_for_update().get(pk=client.pk).state)
    if before not in allowed:
        raise RefusedError("the client was revoked, which is for good", field="state")
    Client.objects.filter(pk=client.pk).update(state=state)
    hint_on_commit()
    client.refresh_from_db()
    return before, state


def _facts(client: Client) -> dict[str, object]:
    """Return what the journal keeps of a client."""
    limits = client.parsed_limits().model_dump(mode="json")
    return {
        "home": client.home.name,
        "models": client.allowed_models,
        "state": client.state,
        **{f"limits.{name}": value for name, value in limits.items()},
    }


def _allowed_models(names: tuple[str, ...] | None) -> list[str]:
    pinned = list(ModelPin.objects.filter(state=PinState.ACTIVE).values_list("name", flat=True))
    if names is None:
        if not pinned:
            raise RefusedError(
                "no model is pinned yet", field="models", hint="appliance control pin add FILE MANIFEST"
            )
        return pinned
    for index, name in enumerate(names):
        if name not in pinned:
            raise RefusedError("no model of this name is pinned", field=f"models.{index}")
        if name in names[:index]:
            raise RefusedError("named twice", field=f"models.{index}")
    return list(names)
