"""Nodes: list, and one of them: what it runs, what it should be, its keys, duty, plan, health over time and bundles."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import Any, Final

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.utils import timezone

from appliance.core.names import decode_base64, encode_base64
from appliance.core.signing import key_id
from control.clients.models import ClientState
from control.console.charts import Line, draw_line
from control.console.condition import cells_of, disks_of, fact, figure, observe_nodes
from control.console.pages import Confirmation, Crumb, chosen, confirm, page, paged, show
from control.fleet.history import STALE_AFTER, table
from control.fleet.models import Duty, Node, NodePlan
from control.fleet.services import ask_plan, set_duty

_BUNDLES = 12
_LOADS = 3
_SPANS: Final = {"24": "A day", "168": "A week", "720": "A month"}  # hours

# Of `control.fleet.history.FIGURES`: what it is called, what one unit of it is worth, its unit, the least upper edge.
_CHARTS: Final = {
    "cpu_permille": ("Processors", 0.1, " %", 100),
    "memory_permille": ("Memory", 0.1, " %", 100),
    "disk_permille": ("Fullest disk", 0.1, " %", 100),
    "temperature_c": ("Temperature", 1, " °C", 100),
    "gpu_permille": ("GPUs", 0.1, " %", 100),
    "gpu_memory_permille": ("Memory of GPUs", 0.1, " %", 100),
    "seats_taken": ("Seats taken", 1, "", 1),
    "sessions": ("Open sessions", 1, "", 1),
    "tokens_per_s": ("Tokens in a second", 1, "", 1),
    "queue": ("Connections that wait for a cell", 1, "", 1),
    "peers_connected": ("Devices connected", 1, "", 1),
}

_DUTIES: Final = {
    Duty.SERVING: Confirmation(
        "Let {} serve again",
        "Serve again",
        ("It opens sessions again as soon as it has its next bundle.", "What it missed is sent to it first."),
        dangerous=False,
    ),
    Duty.DRAINED: Confirmation(
        "Drain {}",
        "Drain node",
        (
            "Sessions that are open go on to their ends; none is opened.",
            "Clients that ask for a new one are told that the node is drained, and when to try again.",
            "Nothing is lost: let it serve again at any time.",
        ),
        dangerous=False,
    ),
    Duty.MAINTENANCE: Confirmation(
        "Put {} into maintenance",
        "Begin maintenance",
        (
            "It is drained: sessions that are open go on to their ends, none is opened.",
            "Once it is drained it is sent no more bundles but those that revoke.",
            "What it looks like is no alarm, until it serves again.",
        ),
        dangerous=False,
    ),
}


@page("fleet.view_node")
def listing(request: HttpRequest) -> HttpResponse:
    """List nodes by name. There are tens of them, not thousands."""
    return show(request, "nodes", "Nodes", nodes=observe_nodes(Node.objects.all(), timezone.now()))


@page("fleet.view_node")
def detail(request: HttpRequest, name: str) -> HttpResponse:
    """Show a node."""
    now = timezone.now()
    found = observe_nodes(Node.objects.filter(name=name), now)
    if not found:
        raise Http404
    (view,) = found
    node = view.node
    return show(
        request,
        "node",
        node.name,
        _above(),
        view=view,
        conditions=_conditions(node),
        told_now=node.health_at is not None and now - node.health_at <= STALE_AFTER,
        node=node,
        clients=node.clients.filter(state=ClientState.ACTIVE).count(),
        bundles=list(node.bundles.order_by("-epoch", "-generation")[:_BUNDLES]),
        health=describe_health(node.health),
        keys=fingerprints(node),
    )


def describe_health(health: Any) -> dict[str, Any]:
    """Return what a node says about itself, as far as it is what it should be."""
    loads = fact(health, "load")
    shares = {}
    whole, left = (figure(health, "memory", name) for name in ("total_bytes", "available_bytes"))
    if whole and left is not None:
        shares["memory"] = {"used": max(0, whole - left), "total": whole}
    for name, free, total in disks_of(health):
        shares[f"disk, {name}"] = {"used": max(0, total - free), "total": total}
    return {
        "cells": cells_of(health),
        "shares": shares,
        "load": [f"{load / 1000:.2f}" for load in loads[:_LOADS] if isinstance(load, int)]
        if isinstance(loads, list)
        else [],
        "uptime_s": figure(health, "uptime_s"),
        "seats": figure(health, "seats", "total"),
        "taken": figure(health, "seats", "taken"),
        "swap": fact(health, "swap"),
        "notary": fact(health, "notary", "up"),
        "waiting": figure(health, "notary", "waiting"),
        "gpus": len(fact(health, "gpus") or []) if isinstance(fact(health, "gpus"), list) else 0,
    }


def fingerprints(node: Node) -> list[tuple[str, str, str]]:
    """Return each key that is known of a node: what it is, its fingerprint, and how to compare it on the node."""
    host = hashlib.sha256(decode_base64(node.host_key.split(" ")[1])).digest()
    keys = [
        ("SSH host key", f"SHA256:{encode_base64(host).rstrip('=')}", "ssh-keygen -lf on the node's host key")
    ]
    if node.wireguard_public_key:
        keys.append(("WireGuard", node.wireguard_public_key, "wg show on the node"))
    if node.receipt_public_key:
        keys.append(("Receipts (Ed25519)", key_id(node.receipt_public_key), "named in each of its receipts"))
    if node.tls_public_key:
        keys.append(("TLS", node.tls_public_key, "SHA-256 of the certificate's public key"))
    return keys


@page("fleet.change_node", posts=True)
def duty(request: HttpRequest, name: str, duty: str) -> HttpResponse:
    """Say what a node is there for."""
    node = get_object_or_404(Node, name=name)
    if duty not in Duty.values:
        raise Http404
    wanted = Duty(duty)
    asked = _DUTIES[wanted]
    return confirm(
        request,
        asked._replace(title=asked.title.format(name)),
        lambda: set_duty(node, wanted),
        f"{name} is to be {wanted.label.lower()}.",
        _url(node),
        *_under(node),
    )


@page("fleet.view_node")
def health(request: HttpRequest, name: str) -> HttpResponse:
    """Show a node's figures over time."""
    node = get_object_or_404(Node, name=name)
    hours = chosen(request, "hours", _SPANS) or "24"
    now = timezone.now()
    since = now - timedelta(hours=int(hours))
    rows = table(node, since)
    return show(
        request,
        "node_health",
        f"Health of {name}",
        *_under(node),
        told=bool(rows),
        lines=draw_figures(rows, since, now),
        spans=[(label, value) for value, label in _SPANS.items()],
        hours=hours,
    )


def draw_figures(rows: list[dict[str, Any]], since: datetime, until: datetime) -> list[tuple[str, str, Line]]:
    """Return a chart of each figure that was ever told: its name, its unit, its line."""
    found = []
    for figure_name, (what, worth, unit, top) in _CHARTS.items():
        points = [(row["at"], None if row[figure_name] is None else row[figure_name] * worth) for row in rows]
        line = draw_line(points, since, until, top)
        if line.path:
            found.append((what, unit, line))
    return found


@page("fleet.view_bundlerecord")
def bundles(request: HttpRequest, name: str) -> HttpResponse:
    """List the bundles that a node was sent."""
    node = get_object_or_404(Node, name=name)
    rows = paged(request, node.bundles.defer("outline").order_by("-epoch", "-generation"))
    return show(request, "bundles", f"Bundles of {name}", *_under(node), node=node, page=rows)


@page("fleet.change_node", posts=True)
def plan(request: HttpRequest, name: str) -> HttpResponse:
    """Show the plan that was asked for last; ask for another."""
    node = get_object_or_404(Node, name=name)
    if request.method == "POST":
        ask_plan(node, request.user.get_username())
        messages.success(request, f"{name} is asked. Its answer shows here after the next pass.")
        return HttpResponseRedirect(reverse("console:node-plan", args=[name]))
    found = NodePlan.objects.filter(node=node).first()
    more = max(0, found.total - len(found.actions)) if found else 0
    return show(request, "node_plan", f"Plan of {name}", *_under(node), plan=found, more=more)


def _conditions(node: Node) -> list[tuple[str, str]]:
    """Return what is wrong with a node now, in words, and since when, as the reconciler noted it."""
    held = node.conditions if isinstance(node.conditions, dict) else {}
    return [(str(key).replace("_", " "), str(since)) for key, since in sorted(held.items())]


def _url(node: Node) -> str:
    return reverse("console:node", args=[node.name])


def _above() -> Crumb:
    return ("Nodes", reverse("console:nodes"))


def _under(node: Node) -> tuple[Crumb, ...]:
    return (_above(), (node.name, _url(node)))
