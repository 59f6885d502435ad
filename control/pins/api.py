"""Models over HTTP: shown, activated, rolled back, retired. They are imported and verified on the management machine alone."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db.models import QuerySet
from rest_framework import mixins, serializers, status
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from appliance.core.errors import RefusedError
from control.api.idempotency import idempotent
from control.api.openapi import Spoken
from control.pins.aliases import AliasFilter, NewAlias, remove_alias, set_alias
from control.pins.models import ClientAlias, ModelPin, PinState
from control.pins.progress import node_progress
from control.pins.services import activate_pin, retire_pin, rollback


class PinShape(serializers.ModelSerializer[ModelPin]):
    """A model as the API lists it."""

    class Meta:
        model = ModelPin
        fields: ClassVar = [
            "pin_id",
            "name",
            "version",
            "state",
            "signer",
            "facts",
            "manifest",
            "created_at",
            "verified_at",
            "activated_at",
            "retired_at",
        ]


class ShownPinShape(PinShape):
    """A model with how far each node is with it: `fetched` of `files`, `verified`, `applied`."""

    nodes = serializers.JSONField(read_only=True)

    class Meta(PinShape.Meta):
        fields: ClassVar = [*PinShape.Meta.fields, "nodes"]

    def to_representation(self, instance: ModelPin) -> dict[str, Any]:
        """Return the members."""
        return {**PinShape(instance).data, "nodes": node_progress(instance)}


class PinView(mixins.ListModelMixin, GenericViewSet[ModelPin]):
    """`/pins`: list, retrieve, activate, rollback, retire."""

    queryset = ModelPin.objects.all()
    speaks: ClassVar = {"retrieve": Spoken(answer=ShownPinShape)}
    serializer_class = PinShape
    lookup_field = "pin_id"
    lookup_value_regex = "[0-9a-f]{64}"

    def retrieve(self, request: Request, pin_id: str) -> Response:  # noqa: ARG002
        """Return one, with how far each node is with it."""
        return Response(ShownPinShape(self.get_object()).data)

    @action(detail=True, methods=["post"])
    def activate(self, request: Request, pin_id: str) -> Response:  # noqa: ARG002
        """Serve the model under its name, in place of the one before."""
        return Response(PinShape(activate_pin(self.get_object())).data)

    @action(detail=True, methods=["post"])
    def rollback(self, request: Request, pin_id: str) -> Response:  # noqa: ARG002
        """Serve the model again that was active before this one, which must be active; return the one before."""
        pin = self.get_object()
        if pin.state != PinState.ACTIVE:
            raise RefusedError(
                "the model is not active", field="state", hint="somebody was faster; look again"
            )
        return Response(PinShape(rollback(pin.name)).data)

    @action(detail=True, methods=["post"])
    def retire(self, request: Request, pin_id: str) -> Response:  # noqa: ARG002
        """Give the model up for good."""
        return Response(PinShape(retire_pin(self.get_object())).data)


class AliasShape(serializers.ModelSerializer[ClientAlias]):
    """An alias as the API shows it."""

    client = serializers.SlugRelatedField[Any](slug_field="name", read_only=True)

    class Meta:
        model = ClientAlias
        fields: ClassVar = ["id", "client", "alias", "model"]


class AliasView(mixins.ListModelMixin, GenericViewSet[ClientAlias]):
    """`/aliases`: list, set, remove."""

    queryset = ClientAlias.objects.select_related("client")
    speaks: ClassVar = {
        "list": Spoken(query=AliasFilter),
        "create": Spoken(body=NewAlias, status=201),
    }
    serializer_class = AliasShape
    lookup_value_regex = "[0-9]{1,18}"

    def get_queryset(self) -> QuerySet[ClientAlias]:
        """Return the aliases, filtered by `?client=`."""
        aliases = super().get_queryset()
        chosen = AliasFilter.parse_query(self.request.query_params)
        return aliases.filter(client__name=chosen.client) if chosen.client else aliases

    @idempotent()
    def create(self, request: Request) -> Response:
        """Let an alias of a client name a model, whatever it named before, from a `NewAlias`."""
        alias = set_alias(NewAlias.parse(request.data))
        return Response(AliasShape(alias).data, status=status.HTTP_201_CREATED)

    @action(detail=True, methods=["post"])
    def remove(self, request: Request, pk: str) -> Response:  # noqa: ARG002
        """Take the alias away."""
        alias = self.get_object()
        remove_alias(alias)
        return Response(AliasShape(alias).data)
