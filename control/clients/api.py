"""Clients and devices over HTTP."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db.models import QuerySet
from rest_framework import mixins, serializers, status
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from appliance.core.client_configuration import ClientConfiguration
from control.api.etags import etag_of
from control.api.idempotency import idempotent
from control.api.openapi import Spoken
from control.clients.enrolment import add_device
from control.clients.models import Client, Device
from control.clients.requests import DeviceFilter, NewClient, NewDevice
from control.clients.services import (
    create_client,
    resume_client,
    revoke_client,
    revoke_device,
    suspend_client,
)


class ClientShape(serializers.ModelSerializer[Client]):
    """A client as the API shows it; never its pseudonym key."""

    home = serializers.SlugRelatedField[Any](slug_field="name", read_only=True)
    models = serializers.JSONField(source="allowed_models", read_only=True)

    class Meta:
        model = Client
        fields: ClassVar = ["name", "state", "home", "models", "limits", "created_at"]


class DeviceShape(serializers.ModelSerializer[Device]):
    """A device as the API shows it; none of its secrets."""

    client = serializers.SlugRelatedField[Any](slug_field="name", read_only=True)

    class Meta:
        model = Device
        fields: ClassVar = [
            "id",
            "client",
            "name",
            "state",
            "public_key",
            "index",
            "created_at",
            "revoked_at",
        ]


class ClientView(mixins.ListModelMixin, mixins.RetrieveModelMixin, GenericViewSet[Client]):
    """`/clients`: list, create, retrieve, suspend, resume, revoke."""

    queryset = Client.objects.select_related("home")
    speaks: ClassVar = {"create": Spoken(body=NewClient, status=201), "retrieve": Spoken(tagged=True)}
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
    """`/devices`: list, create (its configuration comes back once), retrieve, revoke."""

    queryset = Device.objects.select_related("client")
    speaks: ClassVar = {
        "list": Spoken(query=DeviceFilter),
        "create": Spoken(body=NewDevice, answer=ClientConfiguration, status=201),
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
    def revoke(self, request: Request, pk: str) -> Response:  # noqa: ARG002
        """Cut the device off for good."""
        device = self.get_object()
        revoke_device(device)
        return Response(DeviceShape(device).data)
