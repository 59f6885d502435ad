"""Nodes: list, and one of them: what it runs, what it should be, its keys."""

from __future__ import annotations

import hashlib
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse
from django.utils import timezone

from appliance.core.names import decode_base64, encode_base64
from appliance.core.signing import key_id
from control.clients.models import ClientState
from control.console.condition import cells_of, disks_of, fact, figure, observe_nodes
from control.console.pages import page, show
from control.fleet.models import Node

_BUNDLES = 12
_LOADS = 3


@page("fleet.view_node")
def listing(request: HttpRequest) -> HttpResponse:
    """List nodes by name. There are tens of them, not thousands."""
    return show(request, "nodes", "Nodes", nodes=observe_nodes(Node.objects.all(), timezone.now()))


@page("fleet.view_node")
def detail(request: HttpRequest, name: str) -> HttpResponse:
    """Show a node."""
    found = observe_nodes(Node.objects.filter(name=name), timezone.now())
    if not found:
        raise Http404
    (view,) = found
    node = view.node
    return show(
        request,
        "node",
        node.name,
        ("Nodes", reverse("console:nodes")),
        view=view,
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
