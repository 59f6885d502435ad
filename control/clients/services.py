"""The verbs of clients. A revocation is a committed change plus a hint; the reconciler carries it to the node."""

from __future__ import annotations

from datetime import datetime

from django.db import transaction
from django.utils import timezone

from appliance.core.bundle import Limits
from appliance.core.errors import RefusedError
from control.clients.expiry import parse_end
from control.clients.models import CONNECTING, Client, ClientState, Device, DeviceState
from control.clients.requests import NewClient
from control.fleet.services import choose_node
from control.hints import hint_on_commit
from control.journal.services import created, record
from control.journal.vocabulary import Verb
from control.pins.models import ModelPin, PinState


def create_client(new: NewClient) -> Client:
    """Create a client.

    Raises:
        RefusedError: Naming the field: a name that was used before, a model that is not pinned, no home node, an end
            that has passed.
    """
    expires_at = parse_end(new.expires_at, timezone.now())
    with transaction.atomic():
        if Client.objects.filter(name=new.name).exists():
            # A revoked client's name stays taken: receipts and unit names would mean two clients.
            raise RefusedError("the name is taken", field="name")
        client = Client.objects.create(
            name=new.name,
            home=choose_node(new.node),
            limits=new.limits.model_dump(mode="json"),
            allowed_models=_allowed_models(new.models),
            expires_at=expires_at,
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
        devices = Device.objects.filter(client=client, state__in=CONNECTING).update(
            state=DeviceState.REVOKED, revoked_at=timezone.now()
        )
        record(Verb.CLIENT_REVOKE, client.name, {"state": state, "active_devices": (devices, 0)})


def revoke_device(device: Device) -> None:
    """Cut a device off for good. Doing it twice does no harm.

    The key that a device has now takes those it had before along: who lost the laptop lost all of them. One that was replaced goes alone.
    """
    keys = Device.objects.filter(pk=device.pk, state__in=CONNECTING)
    with transaction.atomic():
        if keys.filter(state=DeviceState.ACTIVE).exists():
            keys = Device.objects.filter(client=device.client, name=device.name, state__in=CONNECTING)
        before = DeviceState(Device.objects.get(pk=device.pk).state)
        revoked = keys.update(state=DeviceState.REVOKED, revoked_at=timezone.now())
        hint_on_commit()
        changes = {"keys": (revoked, 0), "state": (before, DeviceState.REVOKED)}
        record(Verb.DEVICE_REVOKE, f"{device.client}/{device}", changes)
    device.refresh_from_db()


def expire_client(client: Client, end: datetime | None) -> None:
    """Say when a client ends with all its devices; None: never. One that has ended is served again.

    Raises:
        RefusedError: If it was revoked, or the end has passed or is too far ahead.
    """
    end = parse_end(end, timezone.now())
    with transaction.atomic():
        before = _change(client, expires_at=end)
        record(Verb.CLIENT_EXPIRE, client.name, {"expires_at": (before.expires_at, end)})


def expire_device(device: Device, end: datetime | None) -> None:
    """Say when a device's key ends; None: never. One that has ended may connect again.

    Raises:
        RefusedError: If it was revoked or replaced, or the end has passed or is too far ahead.
    """
    end = parse_end(end, timezone.now())
    with transaction.atomic():
        before = Device.objects.select_for_update().get(pk=device.pk)
        # A key that was replaced has its end from that.
        if before.state != DeviceState.ACTIVE:
            raise RefusedError("is not the key that the device has now", field="state")
        Device.objects.filter(pk=device.pk).update(expires_at=end)
        hint_on_commit()
        ends = {"expires_at": (before.expires_at, end)}
        record(Verb.DEVICE_EXPIRE, f"{device.client}/{device}", ends)
    device.refresh_from_db()


def limit_client(client: Client, limits: Limits) -> None:
    """Give a client other limits; its cell follows them without a break.

    Raises:
        RefusedError: If it was revoked.
    """
    with transaction.atomic():
        before = _change(client, limits=limits.model_dump(mode="json")).parsed_limits()
        # Field by field: what says nothing is left out of a dump, and may be what changes.
        facts = {
            f"limits.{name}": (getattr(before, name), getattr(limits, name)) for name in Limits.model_fields
        }
        record(Verb.CLIENT_LIMIT, client.name, facts)


def _change(client: Client, **values: object) -> Client:
    """Change a client that was not revoked, in the caller's transaction; return it as it was."""
    # The row lock (SQLite: the transaction's own write lock) lets one at a time look and change.
    before = Client.objects.select_for_update().get(pk=client.pk)
    if before.state == ClientState.REVOKED:
        raise RefusedError("the client was revoked, which is for good", field="state")
    Client.objects.filter(pk=client.pk).update(**values)
    hint_on_commit()
    client.refresh_from_db()
    return before


def _move(
    client: Client, allowed: tuple[ClientState, ...], state: ClientState
) -> tuple[ClientState, ClientState]:
    """Change a client's state in the caller's transaction, if it is one of `allowed`; return the one before, and the new one."""
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
        "expires_at": client.expires_at,
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
                "no model is pinned yet",
                field="models",
                hint="appliance control model import, verify, activate",
            )
        return pinned
    for index, name in enumerate(names):
        if name not in pinned:
            raise RefusedError("no model of this name is pinned", field=f"models.{index}")
        if name in names[:index]:
            raise RefusedError("named twice", field=f"models.{index}")
    return list(names)
