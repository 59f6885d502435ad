"""Another key for a device: added beside the one it has, which goes on working for a while and then ends by itself."""

from __future__ import annotations

from datetime import timedelta

from django.db import transaction
from django.utils import timezone

from appliance.core.client_configuration import ClientConfiguration
from appliance.core.errors import RefusedError
from control.clients.enrolment import add_device
from control.clients.expiry import earliest
from control.clients.models import Device, DeviceState
from control.clients.requests import NewDevice, Rotation


def rotate_device(device: Device, rotation: Rotation) -> ClientConfiguration:
    """Give a device another key, and the one it has an end; return the configuration that goes with the new one.

    Raises:
        RefusedError: Naming the field: a device that was revoked or replaced already, and as `add_device`.
        UnavailableError: As `add_device`.
    """
    now = timezone.now().replace(microsecond=0)
    end = earliest(device.expires_at, now + timedelta(hours=rotation.overlap_h))
    with transaction.atomic():
        # The filtered update is the lock: of two rotations at once one finds the key replaced.
        active = Device.objects.filter(pk=device.pk, state=DeviceState.ACTIVE)
        if active.update(state=DeviceState.REPLACED, expires_at=end) != 1:
            raise RefusedError(
                "is not the key that the device has now", field="state", hint="appliance control device list"
            )
        return add_device(
            NewDevice(
                client=device.client.name,
                name=device.name,
                public_key=rotation.public_key,
                expires_at=rotation.expires_at,
            ),
            replaced=device,
        )
