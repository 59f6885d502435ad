"""Clients and devices over HTTP."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db.models import QuerySet
from django.utils import timezone
from django.utils.functional import cached_property
from rest_framework import mixins, serializers, status
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from appliance.core.bundle import Limits
from appliance.core.client_configuration import ClientConfiguration
from control.api.etags import etag_of
from control.api.idempotency import idempotent
from control.api.openapi import Spoken
from control.clients.enrolment import add_device
from control.clients.expiry import earliest, warn
from control.clients.invitations import approve_invitation, cancel_invitation, invite
from control.clients.models import Client, Device, Invitation
from control.clients.requests import (
    DeviceFilter,
    Expiry,
    InvitationFilter,
    NewClient,
    NewDevice,
    NewInvitation,
    Rotation,
    ShownInvitation,
)
from control.clients.rotation import rotate_device
from control.clients.services import (
    create_client,
    expire_client,
    expire_device,
    limit_client,
    resume_client,
    revoke_client,
    revoke_device,
    suspend_client,
)
from control.clients.status import device_statuses
from control.fleet.peers import PeerStatus


class ClientShape(serializers.ModelSerializer[Client]):
    """A client as the API shows it; never its pseudonym key."""

    home = serializers.SlugRelatedField[Any](slug_field="name", read_only=True)
    models = serializers.JSONField(source="allowed_models", read_only=True)
    warning = serializers.SerializerMethodField()

    class Meta:
        model = Client
        fields: ClassVar = [
            "name",
            "state",
            "home",
            "models",
            "limits",
            "expires_at",
            "warning",
            "created_at",
        ]

    def get_warning(self, client: Client) -> str | None:
        """Return what to say of an end that is near."""
        return warn(client.expires_at, timezone.now())


class DeviceShape(serializers.ModelSerializer[Device]):
    """A device as the API shows it; none of its secrets."""

    client = serializers.SlugRelatedField[Any](slug_field="name", read_only=True)
    status = serializers.SerializerMethodField()
    warning = serializers.SerializerMethodField()

    class Meta:
        model = Device
        fields: ClassVar = [
            "id",
            "client",
            "name",
            "state",
            "status",
            "public_key",
            "index",
            "expires_at",
            "warning",
            "created_at",
            "revoked_at",
        ]

    def get_status(self, device: Device) -> str | None:
        """Return whether it is connected, as its node's kernel says; None where that is not known now."""
        return self._statuses[device.pk]

    def get_warning(self, device: Device) -> str | None:
        """Return what to say of an end that is near: the key's or its client's."""
        return warn(earliest(device.expires_at, device.client.expires_at), timezone.now())

    @cached_property
    def _statuses(self) -> dict[int, PeerStatus | None]:
        many = self.parent.instance if self.parent is not None else [self.instance]
        return device_statuses(list(many or ()))


class InvitationShape(serializers.ModelSerializer[Invitation]):
    """An invitation as the API shows it; nothing that redeems it."""

    client = serializers.SlugRelatedField[Any](slug_field="name", read_only=True)
    device = serializers.CharField(source="device_name", read_only=True)
    fingerprint = serializers.CharField(read_only=True)

    class Meta:
        model = Invitation
        fields: ClassVar = [
            "id",
            "client",
            "device",
            "state",
            "needs_approval",
            "public_key",
            "fingerprint",
            "refusal",
            "created_at",
            "expires_at",
            "redeemed_at",
            "ended_at",
        ]


class ClientView(mixins.ListModelMixin, mixins.RetrieveModelMixin, GenericViewSet[Client]):
    """`/clients`: list, create, retrieve, limits, expire, suspend, resume, revoke."""

    queryset = Client.objects.select_related("home")
    speaks: ClassVar = {
        "create": Spoken(body=NewClient, status=201),
        "retrieve": Spoken(tagged=True),
        "limits": Spoken(body=Limits),
        "expire": Spoken(body=Expiry),
    }
    serializer_class = ClientShape
    lookup_field = "name"
    lookup_value_regex = "[a-z0-9-]{1,32}"

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return one, with the tag that changing its limits takes."""
        response = super().retrieve(request, *args, **kwargs)
        response["ETag"] = etag_of(response.data)
        return response

    @idempotent()
    def create(self, request: Request) -> Response:
        """Create a client from a `NewClient`."""
        client = create_client(NewClient.parse(request.data))
        return Response(ClientShape(client).data, status=status.HTTP_201_CREATED)

    @action(detail=True, methods=["post"])
    def limits(self, request: Request, name: str) -> Response:  # noqa: ARG002
        """Give the client other limits; what is left out becomes what it is for a new client."""
        client = self.get_object()
        limit_client(client, Limits.parse(request.data))
        return Response(ClientShape(client).data)

    @action(detail=True, methods=["post"])
    def expire(self, request: Request, name: str) -> Response:  # noqa: ARG002
        """Say when the client ends with all its devices."""
        client = self.get_object()
        expire_client(client, Expiry.parse(request.data).expires_at)
        return Response(ClientShape(client).data)

    @action(detail=True, methods=["post"])
    def suspend(self, request: Request, name: str) -> Response:  # noqa: ARG002
        """Cut the client off until it is resumed."""
        client = self.get_object()
        suspend_client(client)
        return Response(ClientShape(client).data)

    @action(detail=True, methods=["post"])
    def resume(self, request: Request, name: str) -> Response:  # noqa: ARG002
        """Serve the client again."""
        client = self.get_object()
        resume_client(client)
        return Response(ClientShape(client).data)

    @action(detail=True, methods=["post"])
    def revoke(self, request: Request, name: str) -> Response:  # noqa: ARG002
        """Cut the client off for good."""
        client = self.get_object()
        revoke_client(client)
        return Response(ClientShape(client).data)


class DeviceView(mixins.ListModelMixin, mixins.RetrieveModelMixin, GenericViewSet[Device]):
    """`/devices`: list, create (its configuration comes back once), retrieve, rotate, expire, revoke."""

    queryset = Device.objects.select_related("client")
    speaks: ClassVar = {
        "list": Spoken(query=DeviceFilter),
        "create": Spoken(body=NewDevice, answer=ClientConfiguration, status=201),
        "rotate": Spoken(body=Rotation, answer=ClientConfiguration, status=201),
        "expire": Spoken(body=Expiry),
    }
    serializer_class = DeviceShape
    lookup_value_regex = "[0-9]{1,18}"

    def get_queryset(self) -> QuerySet[Device]:
        """Return the devices, filtered by `?client=`."""
        devices = super().get_queryset()
        chosen = DeviceFilter.parse_query(self.request.query_params)
        return devices.filter(client__name=chosen.client) if chosen.client else devices

    @idempotent(shown_once="revoke the device, then add it anew under another name")
    def create(self, request: Request) -> Response:
        """Add a device from a `NewDevice`; the answer is the one copy of its `ClientConfiguration`."""
        configuration = add_device(NewDevice.parse(request.data))
        return Response(configuration.model_dump(mode="json"), status=status.HTTP_201_CREATED)

    @action(detail=True, methods=["post"])
    @idempotent(shown_once="rotate the new key, which `GET /devices` lists")
    def rotate(self, request: Request, pk: str) -> Response:  # noqa: ARG002
        """Add another key for the device; the answer is the one copy of its `ClientConfiguration`."""
        configuration = rotate_device(self.get_object(), Rotation.parse(request.data))
        return Response(configuration.model_dump(mode="json"), status=status.HTTP_201_CREATED)

    @action(detail=True, methods=["post"])
    def expire(self, request: Request, pk: str) -> Response:  # noqa: ARG002
        """Say when the device's key ends."""
        device = self.get_object()
        expire_device(device, Expiry.parse(request.data).expires_at)
        return Response(DeviceShape(device).data)

    @action(detail=True, methods=["post"])
    def revoke(self, request: Request, pk: str) -> Response:  # noqa: ARG002
        """Cut the device off for good; a key that was replaced goes alone."""
        device = self.get_object()
        revoke_device(device)
        return Response(DeviceShape(device).data)


class InvitationView(mixins.ListModelMixin, mixins.RetrieveModelMixin, GenericViewSet[Invitation]):
    """`/invitations`: list, create (its ticket comes back once), retrieve, approve, cancel."""

    queryset = Invitation.objects.select_related("client")
    speaks: ClassVar = {
        "list": Spoken(query=InvitationFilter),
        "create": Spoken(body=NewInvitation, answer=ShownInvitation, status=201),
    }
    serializer_class = InvitationShape
    lookup_value_regex = "[0-9]{1,18}"

    def get_queryset(self) -> QuerySet[Invitation]:
        """Return the invitations, filtered by `?client=` and `?open=`."""
        invitations = super().get_queryset()
        chosen = InvitationFilter.parse_query(self.request.query_params)
        if chosen.client:
            invitations = invitations.filter(client__name=chosen.client)
        if chosen.open:
            invitations = invitations.filter(ended_at__isnull=chosen.open == "true")
        return invitations

    @idempotent(shown_once="cancel the invitation, then make another")
    def create(self, request: Request) -> Response:
        """Make an invitation from a `NewInvitation`; the answer is the one copy of its ticket."""
        shown = invite(NewInvitation.parse(request.data))
        return Response(shown.model_dump(mode="json"), status=status.HTTP_201_CREATED)

    @action(detail=True, methods=["post"])
    def approve(self, request: Request, pk: str) -> Response:  # noqa: ARG002
        """Let the key that redeemed it in; compare its fingerprint with the device's before."""
        invitation = self.get_object()
        approve_invitation(invitation)
        return Response(InvitationShape(invitation).data)

    @action(detail=True, methods=["post"])
    def cancel(self, request: Request, pk: str) -> Response:  # noqa: ARG002
        """End it; its throw-away peer is cut off at once."""
        invitation = self.get_object()
        cancel_invitation(invitation)
        return Response(InvitationShape(invitation).data)
