"""Nodes over HTTP."""

from __future__ import annotations

from typing import ClassVar

from rest_framework import mixins, serializers, status
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from control.api.openapi import Spoken
from control.fleet.models import Node
from control.fleet.requests import NewNode
from control.fleet.services import add_node


class NodeShape(serializers.ModelSerializer[Node]):
    """A node as the API shows it."""

    class Meta:
        model = Node
        exclude: ClassVar = ["id", "certificate", "receipts_position"]


class NodeView(mixins.ListModelMixin, mixins.RetrieveModelMixin, GenericViewSet[Node]):
    """`/nodes`: list, create, retrieve."""

    queryset = Node.objects.all()
    speaks: ClassVar = {"create": Spoken(body=NewNode, status=201)}
    serializer_class = NodeShape
    lookup_field = "name"
    lookup_value_regex = "[a-z0-9-]{1,32}"

    def create(self, request: Request) -> Response:
        """Add a node from a `NewNode`."""
        node = add_node(NewNode.parse(request.data))
        return Response(NodeShape(node).data, status=status.HTTP_201_CREATED)
