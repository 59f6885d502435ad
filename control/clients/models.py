"""Clients, their devices, and the counter behind device addresses."""

from __future__ import annotations

import secrets
from typing import ClassVar

from django.db import models
from django.db.models import Q

from appliance.core.bundle import Limits
from appliance.core.enrolment import fingerprint
from appliance.core.names import encode_base64
from control.fleet.models import Node


class ClientState(models.TextChoices):
    """Whether a client may be served."""

    ACTIVE = "active"
    SUSPENDED = "suspended"  # cut off, can be resumed
    REVOKED = "revoked"  # cut off for good


class DeviceState(models.TextChoices):
    """Whether a device may connect with this key, until that ends."""

    ACTIVE = "active"
    REPLACED = "replaced"  # another key took its place; it works until its end
    REVOKED = "revoked"


CONNECTING = (DeviceState.ACTIVE, DeviceState.REPLACED)
"""The states in which a key works."""


class InvitationState(models.TextChoices):
    """How far an invitation is. It is over when it has `ended_at`."""

    OPEN = "open"  # nobody has redeemed it
    REDEEMED = "redeemed"  # a key has come and waits for an operator
    APPROVED = "approved"  # it may become a device
    ADMITTED = "admitted"  # it is a device
    REFUSED = "refused"  # it was told why it cannot be one
    CANCELLED = "cancelled"
    EXPIRED = "expired"


def _pseudonym_key() -> str:
    return encode_base64(secrets.token_bytes(32))


class Client(models.Model):
    """The unit of isolation: one cell on its home node.

    Attributes:
        pseudonym_key: Base64 of 32 random bytes; keys the digest by which receipts name the client. Not a
            credential, and the client holds it too.
        limits: `appliance.core.bundle.Limits`.
        allowed_models: Names of the pins it may use, the default first.
        expires_at: When it ends with all its devices, in whole seconds; None: never.
    """

    name = models.CharField(max_length=32, unique=True)
    state = models.CharField(max_length=16, choices=ClientState.choices, default=ClientState.ACTIVE)
    home = models.ForeignKey(Node, on_delete=models.PROTECT, related_name="clients")
    pseudonym_key = models.CharField(max_length=44, default=_pseudonym_key, editable=False)
    limits = models.JSONField(default=dict)
    allowed_models = models.JSONField(default=list)
    expires_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering: ClassVar = ["name"]

    def __str__(self) -> str:
        return self.name

    def parsed_limits(self) -> Limits:
        """Return the limits."""
        return Limits.parse(self.limits)


class Device(models.Model):
    """One key of a client's device, which is one WireGuard peer. Rows are never deleted, so a key and an index are used once.

    A device whose key is being replaced has two rows of its name.

    Attributes:
        sealed_preshared_key: Closed for the reconciler's seal key: the web process that made it cannot read it.
        token_sha256: Digest of the bearer token.
        index: Counts all devices there ever were; the tunnel addresses are the networks' bases plus this.
        expires_at: When the key ends, in whole seconds; None: never.
    """

    client = models.ForeignKey(Client, on_delete=models.PROTECT, related_name="devices")
    name = models.CharField(max_length=32)
    state = models.CharField(max_length=16, choices=DeviceState.choices, default=DeviceState.ACTIVE)
    public_key = models.CharField(max_length=44, unique=True)
    sealed_preshared_key = models.TextField(editable=False)
    token_sha256 = models.CharField(max_length=64, unique=True, editable=False)
    index = models.PositiveBigIntegerField(unique=True)
    expires_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(auto_now_add=True)
    revoked_at = models.DateTimeField(null=True)

    class Meta:
        ordering: ClassVar = ["client", "name", "id"]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["client", "name"], condition=Q(state="active"), name="one_active_device_per_name"
            )
        ]

    def __str__(self) -> str:
        return self.name


class Invitation(models.Model):
    """A device that is yet to come, and the throw-away peer by which it comes. Rows are never deleted.

    Attributes:
        device_name: Name of the device that it makes.
        needs_approval: An operator compares fingerprints first.
        guest_public_key: Of the throw-away peer; its private key was shown with the ticket and is kept nowhere.
        index: Its tunnel addresses, from the counter of all devices.
        secret_sha256: Digest of the secret that redeems it.
        sealed_keys: The peer's pre-shared key and the key of the boxes, closed for the reconciler's seal key. Empty once it is over.
        letter: Box that redeemed it, as it came. Empty once it is over.
        public_key: Of the device that is to be, out of the letter.
        answer: Box for the device. Empty until there is one, and once it is over.
        refusal: Why it was refused, for people.
        device: What came of it.
    """

    client = models.ForeignKey(Client, on_delete=models.PROTECT, related_name="invitations")
    device_name = models.CharField(max_length=32)
    state = models.CharField(max_length=16, choices=InvitationState.choices, default=InvitationState.OPEN)
    needs_approval = models.BooleanField(default=False)
    guest_public_key = models.CharField(max_length=44, unique=True)
    index = models.PositiveBigIntegerField(unique=True)
    secret_sha256 = models.CharField(max_length=64, unique=True, editable=False)
    sealed_keys = models.TextField(editable=False)
    letter = models.TextField(blank=True, editable=False)
    public_key = models.CharField(max_length=44, blank=True)
    answer = models.TextField(blank=True, editable=False)
    refusal = models.CharField(max_length=512, blank=True)
    device = models.OneToOneField(Device, on_delete=models.PROTECT, null=True, related_name="invitation")
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField()
    redeemed_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        ordering: ClassVar = ["-id"]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["client", "device_name"],
                condition=Q(ended_at=None),
                name="one_open_invitation_per_name",
            )
        ]

    def __str__(self) -> str:
        return f"{self.client} {self.device_name}"

    @property
    def fingerprint(self) -> str:
        """What an operator compares with the device's screen; empty until a key has come."""
        return fingerprint(self.public_key) if self.public_key else ""


class AddressCounter(models.Model):
    """The one row that holds the last index given out, to a device or an invitation. It only grows."""

    last = models.PositiveBigIntegerField(default=0)

    def __str__(self) -> str:
        return str(self.last)
