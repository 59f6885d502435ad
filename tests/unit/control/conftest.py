"""The cast of control's tests: a node that was met, a pinned model, an operator with a token, and a stranger."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterator

import pytest
from control_cast import (  # noqa: F401 - one of them is a fixture
    OverTls,
    journal_can_be_emptied,
    new_public_key,
    node_request,
    store_pin,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.conf import settings
from django.contrib.auth.models import User
from rest_framework.test import APIClient

from appliance.core.names import encode_base64
from control.clients.models import Client
from control.clients.requests import NewClient
from control.clients.services import create_client
from control.fleet.models import Node
from control.fleet.requests import NewNode
from control.fleet.services import add_node
from control.journal.actors import acting
from control.journal.event import Actor, ActorKind, Source
from control.operators.services import NewToken, create_token
from control.pins.models import ModelPin
from control.reconciler.keys import ReconcilerKeys, read_keys


@pytest.fixture(autouse=True)
def fresh_log() -> None:
    """The settings' log outlives a test's database, and a keeper refuses a log that is ahead of it."""
    shutil.rmtree(settings.PATHS.log, ignore_errors=True)


@pytest.fixture(autouse=True)
def somebody_acts() -> Iterator[None]:
    """What tests do by the services is somebody's doing; without, nothing may change."""
    with acting(Source.CLI, Actor(kind=ActorKind.UNIX, name="tests")):
        yield


@pytest.fixture(autouse=True)
def own_umask() -> Iterator[None]:
    """Control's commands set the umask of their process, which is here that of every test after this one."""
    mask = os.umask(0o077)
    os.umask(mask)
    yield
    os.umask(mask)


@pytest.fixture
def keys() -> ReconcilerKeys:
    return read_keys(settings.PATHS)


@pytest.fixture
def pin(db: None) -> ModelPin:
    return store_pin(b"GGUF weights of no model")


@pytest.fixture
def node(db: None) -> Node:
    """A node that the reconciler has met: its keys are known."""
    node = add_node(NewNode.parse(node_request()))
    node.wireguard_public_key = new_public_key()
    node.receipt_public_key = encode_base64(Ed25519PrivateKey.generate().public_key().public_bytes_raw())
    node.save()
    return node


@pytest.fixture
def acme(node: Node, pin: ModelPin) -> Client:
    return create_client(NewClient(name="acme"))


@pytest.fixture
def names() -> Callable[[], str]:
    count = itertools.count()
    return lambda: f"name-{next(count)}"


@pytest.fixture
def operator(db: None) -> User:
    return User.objects.create(username="olivia", is_staff=True, is_superuser=True)


@pytest.fixture
def token(operator: User) -> str:
    return create_token(NewToken(operator="olivia", name="laptop"))


@pytest.fixture
def stranger(db: None) -> APIClient:
    return _client()


@pytest.fixture
def api(token: str) -> Iterator[APIClient]:
    client = _client()
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {token}")
    return client


def _client() -> APIClient:
    """A client over TLS with CSRF checks; an exception in a view is a 500, as in production."""
    return OverTls(enforce_csrf_checks=True, raise_request_exception=False)
