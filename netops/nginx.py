"""NGINX's configuration, rendered from the one template `nginx/appliance.conf`. Pure but for reading the template."""

from __future__ import annotations

import functools
import hashlib
import importlib.resources
import ipaddress
import re
from pathlib import Path

from appliance.core import enrolment
from appliance.core.bundle import Bundle
from appliance.core.errors import HostError
from appliance.core.node import NodePaths, NodeSettings
from netops.model import route6_prefix

WORKER_USER = "www-data"
NODE_DOMAIN = "appliance.internal"

# Nothing that could end a token, a string or a block in nginx's configuration, or begin a variable.
_SAFE = re.compile(r"[A-Za-z0-9/._:\[\]-]{1,200}")
_PLACEHOLDER = re.compile(r"@([A-Z0-9_]+)@")


def render_config(bundle: Bundle, settings: NodeSettings, paths: NodePaths, certificate: str) -> str:
    """Return nginx.conf. The name of the certificate's file is in it, so another certificate is another text.

    Args:
        bundle: For the tunnel addresses and the node's name.
        settings: For the group that may connect to cells.
        paths: Where things are on this node.
        certificate: PEM, leaf first.
    """
    prefix = ipaddress.IPv6Address(route6_prefix(bundle.tunnel.network6))
    values = {
        "USER": WORKER_USER,
        "GROUP": settings.nginx_group,
        "FOLDER": str(paths.nginx),
        "NOTHING": str(nothing_file(paths)),
        "CERTIFICATE": str(certificate_file(paths, certificate)),
        "KEY": str(paths.keys / "tls.key"),
        "PEERS": str(paths.peers),
        "LOG": str(paths.log),
        "MAILBOX": str(paths.mailbox_socket),
        "MAILBOX_PORT": str(enrolment.PORT),
        "MAILBOX_PATH": enrolment.PATH,
        "ADDRESS4": str(ipaddress.IPv4Address(bundle.tunnel.address4)),
        "ADDRESS6": str(ipaddress.IPv6Address(bundle.tunnel.address6)),
        "PREFIX6": str(prefix),
        "HOST": node_host(bundle.node),
    }
    return _PLACEHOLDER.sub(lambda match: _quote(values[match[1]]), _template())


def node_host(node: str) -> str:
    """Return the node's DNS name: in its certificate, and the one name that clients may ask for."""
    return f"{node}.{NODE_DOMAIN}"


def certificate_file(paths: NodePaths, certificate: str) -> Path:
    """Return where a certificate lies; its name is its digest."""
    return paths.nginx / f"tls-{hashlib.sha256(certificate.encode('ascii')).hexdigest()[:16]}.pem"


def nothing_file(paths: NodePaths) -> Path:
    """Return the empty regular file that stands in for every folder of temporary files."""
    return paths.nginx / "no-temporary-files"


@functools.cache
def _template() -> str:
    return importlib.resources.files("nginx").joinpath("appliance.conf").read_text("utf-8")


def _quote(value: str) -> str:
    if not _SAFE.fullmatch(value):
        raise HostError("a name, path or address has no form that nginx's configuration can hold")
    return value
