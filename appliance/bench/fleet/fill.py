"""Puts many clients and devices into control's database; run in the management machine.

Straight into the tables: ten thousand requests would measure something else, and take long.
"""

from __future__ import annotations

import hashlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from control.clients.models import Client, Device


def main() -> None:
    """Add `argv[1]` clients with `argv[2]` devices each, for the model `argv[3]`, and wake the reconciler."""
    from control.startup import start_django

    start_django(None)
    _fill(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])


def _fill(clients: int, devices: int, model: str) -> None:
    from django.conf import settings
    from django.db import transaction

    from appliance.core.bundle import Limits
    from control.clients.models import AddressCounter, Client, Device
    from control.fleet.models import Node
    from control.hints import hint_on_commit

    seal_key = settings.PATHS.seal_public.read_text("ascii").strip()
    with transaction.atomic():
        home, limits = Node.objects.get(), Limits().model_dump(mode="json")
        made = Client.objects.bulk_create(
            Client(name=f"fleet-{number}", home=home, limits=limits, allowed_models=[model])
            for number in range(clients)
        )
        counter = AddressCounter.objects.select_for_update().get()
        numbered = enumerate(
            ((client, number) for client in made for number in range(devices)), counter.last + 1
        )
        Device.objects.bulk_create(
            (_device(client, number, index, seal_key) for index, (client, number) in numbered), batch_size=500
        )
        counter.last += clients * devices
        counter.save(update_fields=["last"])
        hint_on_commit()


def _device(client: Client, number: int, index: int, seal_key: str) -> Device:
    from appliance.core.names import encode_base64
    from appliance.core.sealed import seal
    from control.clients.enrolment import seal_context
    from control.clients.models import Device

    public_key, preshared_key, token = (
        hashlib.sha256(f"{kind} {index}".encode()).digest() for kind in ("key", "preshared", "token")
    )
    text = encode_base64(public_key)
    sealed = seal(seal_key, encode_base64(preshared_key).encode("ascii"), seal_context(text))
    return Device(
        client=client,
        name=f"d{number}",
        public_key=text,
        sealed_preshared_key=sealed,
        token_sha256=token.hex(),
        index=index,
    )
