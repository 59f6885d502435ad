"""The coarse status of devices, from the kernels of their nodes."""

from __future__ import annotations

from collections.abc import Iterable

from django.utils import timezone

from control.clients.models import Device, DeviceState
from control.fleet.peers import PeerStatus, statuses


def device_statuses(devices: Iterable[Device]) -> dict[int, PeerStatus | None]:
    """Return the status of each device by its key; None where its node has said nothing lately, and for one that is cut off.

    One query for all of them, if their clients were selected along.
    """
    devices = list(devices)
    by_node = statuses({device.client.home_id for device in devices}, timezone.now())
    return {device.pk: _status(device, by_node.get(device.client.home_id)) for device in devices}


def _status(device: Device, told: dict[str, PeerStatus] | None) -> PeerStatus | None:
    if told is None or device.state != DeviceState.ACTIVE:
        return None
    return told.get(device.public_key, PeerStatus.NEVER_SEEN)
