"""The first page: what is late or wrong, then how much is going on."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from control.audit.models import ReceiptRecord
from control.audit.pace import count_between
from control.clients.models import Client, ClientState, Device, DeviceState
from control.console.charts import draw_bars
from control.console.concerns import concerns_of, first_steps
from control.console.condition import observe_nodes
from control.console.pages import page, show
from control.fleet.models import Node
from control.operators.roles import may, role_of
from control.pins.models import ModelPin, PinState
from control.transparency.admin import describe_head

_HOURS = 24


@page("fleet.view_node")
def overview(request: HttpRequest) -> HttpResponse:
    """Show how everything is."""
    now = timezone.now()
    role = role_of(request.user)
    head = describe_head() if may(role, "transparency.view_checkpointrecord") else None
    nodes = observe_nodes(Node.objects.all(), now)
    clients = Client.objects.filter(state=ClientState.ACTIVE).count()
    devices = Device.objects.filter(state=DeviceState.ACTIVE).count()
    pins = ModelPin.objects.filter(state=PinState.ACTIVE).count()
    steps = first_steps(nodes=bool(nodes), pins=bool(pins), clients=bool(clients), devices=bool(devices))
    figures = {"clients": clients, "devices": devices, "pins": pins}
    pace = _pace(now) if may(role, "audit.view_receiptrecord") else {}
    return show(
        request,
        "overview",
        "Overview",
        concerns=concerns_of(nodes, head, now),
        nodes=nodes,
        head=head,
        steps=[] if all(step.done for step in steps) else steps,
        now=now,
        **figures,
        **pace,
    )


def _pace(now: datetime) -> dict[str, Any]:
    """Return the receipts of today, and a chart of the past hours. One query."""
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    end = now.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    bounds = [end - timedelta(hours=_HOURS - index) for index in range(_HOURS + 1)]
    counts = count_between(bounds)
    today = sum(count for bound, count in zip(bounds, counts, strict=False) if bound >= midnight)
    chart = draw_bars([(f"{bound:%H}:00", count) for bound, count in zip(bounds, counts, strict=False)])
    return {"chart": chart, "today": today, "any_receipt": chart.total > 0 or ReceiptRecord.objects.exists()}
