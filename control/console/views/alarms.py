"""Alarms: what was seen, what it means, what to do."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse

from control.audit.alarms import ADVICE, ON_RECEIPTS
from control.audit.models import Alarm, AlarmKind
from control.console.pages import chosen, page, paged, show
from control.fleet.models import Node


@page("audit.view_alarm")
def listing(request: HttpRequest) -> HttpResponse:
    """List alarms, the newest first."""
    nodes = list(Node.objects.values_list("name", flat=True))
    kind, node = chosen(request, "kind", AlarmKind.values), chosen(request, "node", nodes)
    alarms = Alarm.objects.select_related("node")
    if kind:
        alarms = alarms.filter(kind=kind)
    if node:
        alarms = alarms.filter(node__name=node)
    rows = paged(request, alarms)
    shown = [(alarm, ADVICE[AlarmKind(alarm.kind)], alarm.kind in ON_RECEIPTS) for alarm in rows]
    kinds = [(value.value, ADVICE[value].title) for value in AlarmKind]
    return show(
        request, "alarms", "Alarms", page=rows, shown=shown, kinds=kinds, nodes=nodes, kind=kind, node=node
    )
