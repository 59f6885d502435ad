"""Is control well: for monitoring, with a token like everything else."""

from __future__ import annotations

from typing import ClassVar

from django.db import connection
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from appliance import __version__
from control.api.openapi import Spoken
from control.audit.models import Alarm
from control.fleet.models import Node


class Health(APIView):
    """GET: version, database, nodes with the code of their last error, number of alarms."""

    right = "fleet.view_node"
    speaks: ClassVar = {"get": Spoken(answer=dict)}

    def get(self, request: Request) -> Response:  # noqa: ARG002 - DRF's signature
        """Return the state of control as its database knows it."""
        nodes = Node.objects.values("name", "last_seen_at", "last_error")
        return Response(
            {
                "version": __version__,
                "database": connection.vendor,
                "nodes": list(nodes),
                "alarms": Alarm.objects.count(),
            }
        )
