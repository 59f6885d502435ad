"""The log of receipts over HTTP: its newest head, and that it continues an earlier one."""

from __future__ import annotations

from typing import Annotated, ClassVar

from django.conf import settings
from django.http import HttpResponse
from pydantic import StringConstraints
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.viewsets import ViewSet

from control.api.openapi import Spoken
from control.query import QueryFilter
from control.transparency.proofs import newest_checkpoint, prove_continuation

_TEXT = "text/plain; charset=utf-8"


class ContinuationQuery(QueryFilter):
    """What a continuation is asked for.

    Attributes:
        old: Size of the tree that was seen, in decimal.
    """

    old: Annotated[str, StringConstraints(pattern=r"^(0|[1-9][0-9]{0,17})$")] = "0"


class LogView(ViewSet):
    """`/log/checkpoint`, `/log/continuation?old=SIZE` (docs/spec/log-v1.md sections 4 and 6)."""

    right = "transparency.view_checkpointrecord"
    speaks: ClassVar = {
        "checkpoint": Spoken(answer=_TEXT),
        "continuation": Spoken(query=ContinuationQuery, answer=_TEXT),
    }

    @action(detail=False, methods=["get"])
    def checkpoint(self, request: Request) -> HttpResponse:  # noqa: ARG002
        """Return the newest checkpoint."""
        return HttpResponse(newest_checkpoint().render(), content_type=_TEXT)

    @action(detail=False, methods=["get"])
    def continuation(self, request: Request) -> HttpResponse:
        """Return the proof that the newest checkpoint continues an earlier size."""
        old = int(ContinuationQuery.parse_query(request.query_params).old)
        return HttpResponse(prove_continuation(old, settings.PATHS.log).render(), content_type=_TEXT)
