"""Model pins over HTTP."""

from __future__ import annotations

from typing import ClassVar

from rest_framework import mixins, serializers, status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from control.api.idempotency import idempotent
from control.api.openapi import Spoken
from control.pins.models import ModelPin
from control.pins.services import NewPin, add_pin


class PinShape(serializers.ModelSerializer[ModelPin]):
    """A pin as the API shows it."""

    class Meta:
        model = ModelPin
        fields: ClassVar = ["pin_id", "name", "version", "state", "manifest", "created_at"]


class PinView(mixins.ListModelMixin, mixins.RetrieveModelMixin, GenericViewSet[ModelPin]):
    """`/pins`: list, create, retrieve."""

    queryset = ModelPin.objects.all()
    speaks: ClassVar = {"create": Spoken(body=NewPin, status=201)}
    serializer_class = PinShape
    lookup_field = "pin_id"
    lookup_value_regex = "[0-9a-f]{64}"

    @idempotent()
    def create(self, request: Request) -> Response:
        """Pin a model from a `NewPin`; its files must be on the management machine already."""
        pin = add_pin(NewPin.parse(request.data))
        return Response(PinShape(pin).data, status=status.HTTP_201_CREATED)
