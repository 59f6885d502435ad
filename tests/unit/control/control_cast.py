"""What operators say in control's tests: nodes, manifests, keys."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from django.conf import settings
from django.utils import timezone
from rest_framework.test import APIClient

from appliance.core.names import encode_base64
from appliance.core.pin import Launch, Manifest, PinnedFile, Runtime
from control.journal import triggers
from control.operators.factors import Kind
from control.operators.sessions import note_beginning, note_factor
from control.pins.models import ModelPin, PinState

if TYPE_CHECKING:
    from control.fleet.models import Node

HOST_KEY = "ssh-ed25519 " + encode_base64(b"\0\0\0\x0bssh-ed25519\0\0\0\x20" + b"h" * 32)


def new_public_key() -> str:
    """A WireGuard public key nobody used before."""
    return encode_base64(X25519PrivateKey.generate().public_key().public_bytes_raw())


def node_request(name: str = "node-a", number: int = 77, **changes: Any) -> dict[str, Any]:
    """What an operator says to add a node; each number has networks of its own."""
    return {
        "name": name,
        "address": f"192.0.2.{number}",
        "user": "appliance-relay",
        "host_key": HOST_KEY,
        "endpoint": f"203.0.113.{number}:51820",
        "network4": f"10.{number}.0.0/16",
        "network6": f"fd00:{number}::/64",
        "address4": f"10.{number}.0.1",
        "address6": f"fd00:{number}::1",
        "seats": 2,
        **changes,
    }


def store_pin(content: bytes, state: PinState = PinState.ACTIVE, **named: str) -> ModelPin:
    """A model in control's store, in some state, without what brings one there."""
    manifest = manifest_for(content, **named)
    path = settings.PATHS.models / manifest.files[0].sha256
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    return ModelPin.objects.create(
        name=manifest.name,
        version=manifest.version,
        pin_id=manifest.pin_id,
        manifest=manifest.model_dump(mode="json"),
        state=state,
        activated_at=timezone.now() if state == PinState.ACTIVE else None,
    )


def manifest_for(content: bytes, name: str = "tiny", version: str = "1.0") -> Manifest:
    """A manifest of one file."""
    file = PinnedFile(path=f"{name}.gguf", size=len(content), sha256=hashlib.sha256(content).hexdigest())
    return Manifest(
        name=name,
        version=version,
        files=(file,),
        chat_template="{{ messages }}",
        stop=(),
        launch=Launch(),
        runtime=Runtime(llama_cpp_python="0.3.36"),
        licence="Apache-2.0",
        source="tests",
    )


def stored_node(name: str = "node-a", number: int = 77, **changes: Any) -> Node:
    """A node that is there without anybody's doing: there is no event, so that the log holds receipts alone."""
    from control.fleet.models import Node

    return Node.objects.create(**node_request(name, number, **changes), listen_port=51820)


@pytest.fixture(autouse=True)
def journal_can_be_emptied(request: pytest.FixtureRequest) -> Iterator[None]:
    """Between tests with transactions of their own Django empties every table, and the database refuses that of the journal's."""
    marker = request.node.get_closest_marker("django_db")
    if marker is None or not marker.kwargs.get("transaction"):
        yield
        return
    request.getfixturevalue("transactional_db")
    execute(triggers.install)
    yield
    execute(triggers.remove)


def execute(statements: Callable[[str], Iterable[str]]) -> None:
    """Execute the statements of `triggers`."""
    from django.db import connection

    with connection.cursor() as cursor:
        for statement in statements(connection.vendor):
            cursor.execute(statement)


class OverTls(APIClient):
    """A client whose requests come over TLS unless they say otherwise.

    Whom `login` and `force_login` sign in has a second factor that was verified just now. (`verified = False`: none was.)
    """

    secure = True
    verified = True

    def _login(self, user: Any, backend: str | None = None) -> None:
        super()._login(user, backend)  # type: ignore[misc]
        if self.verified:
            session = self.session
            note_beginning(session, "127.0.0.1", "Firefox on Linux")
            note_factor(session, Kind.APP)
            session.save()

    def generic(self, method: str, path: str, *args: Any, **extra: Any) -> Any:
        """Make a request."""
        extra["secure"] = self.secure
        return super().generic(method, path, *args, **extra)
