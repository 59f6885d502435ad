"""Nodes over HTTP."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, ClassVar

from django.shortcuts import get_object_or_404
from django.utils import timezone
from pydantic import StringConstraints
from rest_framework import mixins, serializers, status
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import GenericViewSet

from control.api.etags import etag_of, verify_match
from control.api.idempotency import idempotent
from control.api.openapi import Spoken
from control.fleet.history import HOURS_FOR, table
from control.fleet.models import BundleRecord, Duty, Node, NodePlan
from control.fleet.requests import NewNode, NodeChange, NodeSettings
from control.fleet.services import (
    add_node,
    ask_plan,
    change_settings,
    changing_node,
    set_duty,
    settings_of,
)
from control.query import QueryFilter


class NodeShape(serializers.ModelSerializer[Node]):
    """A node as the API shows it."""

    class Meta:
        model = Node
        exclude: ClassVar = ["id", "certificate", "receipts_position"]


class PlanShape(serializers.ModelSerializer[NodePlan]):
    """What `apply` would do; `answered_at` is null until the node has said so."""

    class Meta:
        model = NodePlan
        exclude: ClassVar = ["id", "node"]


class BundleShape(serializers.ModelSerializer[BundleRecord]):
    """A bundle that a node was sent, and what it changed."""

    class Meta:
        model = BundleRecord
        fields: ClassVar = ["epoch", "generation", "digest", "changes", "created_at", "accepted_at"]


class SamplesQuery(QueryFilter):
    """How far back.

    Attributes:
        hours: 1 to 720.
    """

    hours: Annotated[str, StringConstraints(pattern=r"^([1-9][0-9]?|[1-6][0-9]{2}|7[01][0-9]|720)$")] = "24"


class NodeView(mixins.ListModelMixin, mixins.RetrieveModelMixin, GenericViewSet[Node]):
    """`/nodes`: list, create, retrieve, drain, maintenance, undrain, plan, bundles, samples."""

    queryset = Node.objects.all()
    speaks: ClassVar = {
        "create": Spoken(body=NewNode, status=201),
        "plan": Spoken(answer=PlanShape, status=202),
        "show_plan": Spoken(answer=PlanShape),
        "bundles": Spoken(answer=dict),
        "samples": Spoken(answer=dict, query=SamplesQuery),
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

    @action(detail=True, methods=["post"])
    def drain(self, request: Request, name: str) -> Response:  # noqa: ARG002
        """Let open sessions end, and open none."""
        return self._set(Duty.DRAINED)

    @action(detail=True, methods=["post"])
    def maintenance(self, request: Request, name: str) -> Response:  # noqa: ARG002
        """Drain the node, then send it revocations alone, and raise no alarm over it."""
        return self._set(Duty.MAINTENANCE)

    @action(detail=True, methods=["post"])
    def undrain(self, request: Request, name: str) -> Response:  # noqa: ARG002
        """Let the node serve again."""
        return self._set(Duty.SERVING)

    @action(detail=True, methods=["post"])
    def plan(self, request: Request, name: str) -> Response:  # noqa: ARG002
        """Ask what `apply` would do on the node."""
        asked = ask_plan(self.get_object(), request.user.get_username())
        return Response(PlanShape(asked).data, status=status.HTTP_202_ACCEPTED)

    @plan.mapping.get
    def show_plan(self, request: Request, name: str) -> Response:  # noqa: ARG002
        """Return the plan that was asked for last."""
        return Response(PlanShape(get_object_or_404(NodePlan, node=self.get_object())).data)

    @action(detail=True, methods=["get"])
    def bundles(self, request: Request, name: str) -> Response:  # noqa: ARG002
        """Return the last bundles, the newest first, with what each changed."""
        records = self.get_object().bundles.defer("outline").order_by("-pk")[:100]
        return Response({"results": BundleShape(records, many=True).data})

    @action(detail=True, methods=["get"])
    def samples(self, request: Request, name: str) -> Response:  # noqa: ARG002
        """Return the node's figures over time, the oldest first."""
        hours = int(SamplesQuery.parse_query(request.query_params).hours)
        since = timezone.now() - min(timedelta(hours=hours), HOURS_FOR)
        return Response({"results": table(self.get_object(), since)})

    def _set(self, duty: Duty) -> Response:
        node = self.get_object()
        set_duty(node, duty)
        return Response(NodeShape(node).data)


def _tagged(settings: NodeSettings) -> Response:
    shown = settings.model_dump(mode="json")
    return Response(shown, headers={"ETag": etag_of(shown)})
