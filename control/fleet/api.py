"""Nodes over HTTP."""

from __future__ import annotations

from typing import ClassVar

from rest_framework import mixins, serializers, status
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from control.api.etags import etag_of, verify_match
from control.api.idempotency import idempotent
from control.api.openapi import Spoken
from control.fleet.models import Node
from control.fleet.requests import NewNode, NodeChange, NodeSettings
from control.fleet.services import add_node, change_settings, changing_node, settings_of


class NodeShape(serializers.ModelSerializer[Node]):
    """A node as the API shows it."""

    class Meta:
        model = Node
        exclude: ClassVar = ["id", "certificate", "receipts_position"]


class NodeView(mixins.ListModelMixin, mixins.RetrieveModelMixin, GenericViewSet[Node]):
    """`/nodes`: list, create, retrieve."""

    queryset = Node.objects.all()
    speaks: ClassVar = {
        "create": Spoken(body=NewNode, status=201),
        "show_settings": Spoken(answer=NodeSettings, tagged=True),
        "change_settings": Spoken(body=NodeChange, answer=NodeSettings, tagged=True),
    }
    serializer_class = NodeShape
    lookup_field = "name"
    lookup_value_regex = "[a-z0-9-]{1,32}"

    @idempotent()
    def create(self, request: Request) -> Response:
        """Add a node from a `NewNode`."""
        node = add_node(NewNode.parse(request.data))
        return Response(NodeShape(node).data, status=status.HTTP_201_CREATED)

    @action(detail=True, methods=["get"], url_path="settings")  # `settings` is DRF's own on a view
    def show_settings(self, request: Request, name: str) -> Response:  # noqa: ARG002
        """Return what an operator may change of a node, with the tag that changing it takes."""
        return _tagged(settings_of(self.get_object()))

    @show_settings.mapping.patch
    def change_settings(self, request: Request, name: str) -> Response:  # noqa: ARG002
        """Change settings of a node, if they are those that were seen."""
        with changing_node(self.get_object()) as node:
            verify_match(request, settings_of(node).model_dump(mode="json"))
            changed = change_settings(node, NodeChange.parse(request.data))
        return _tagged(changed)


def _tagged(settings: NodeSettings) -> Response:
    shown = settings.model_dump(mode="json")
    return Response(shown, headers={"ETag": etag_of(shown)})
