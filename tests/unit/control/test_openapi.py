"""The API is what its description says, whatever it is asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from control_cast import OverTls
from django.contrib.auth.models import User
from django.core.signals import request_finished, request_started
from django.core.wsgi import get_wsgi_application
from django.db import close_old_connections
from hypothesis import HealthCheck, given, settings
from rest_framework.test import APIClient
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from control.api.openapi import describe
from control.audit.models import AlarmKind
from control.audit.services import raise_alarm
from control.clients.models import Client
from control.fleet.models import Node
from control.fleet.services import ask_plan
from control.operators.roles import Role
from control.operators.services import NewOperator, NewToken, create_operator, create_token
from control.pins.models import ModelPin

pytestmark = pytest.mark.django_db

EXAMPLES = 25
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
SCHEMA = schemathesis.openapi.from_dict(json.loads(json.dumps(describe())))
SCHEMA.app = get_wsgi_application()
OPERATIONS = {found.ok().label: found.ok() for found in SCHEMA.get_all_operations()}  # type: ignore[union-attr]
# What there is no log or receipt for yet is 503 by contract (`unavailable`), which is no fault of the server's.
NOT_YET = 503


@pytest.fixture(autouse=True)
def one_connection() -> Iterator[None]:
    """Keep the test's transaction: a WSGI request closes connections at both its ends, as Django's own test client does not."""
    for signal in (request_started, request_finished):
        signal.disconnect(close_old_connections)
    yield
    for signal in (request_started, request_finished):
        signal.connect(close_old_connections)


@pytest.fixture
def headers(acme: Client, node: Node, pin: ModelPin) -> dict[str, str]:
    """An administrator's, so that nothing is out of reach; with one row of each kind there."""
    raise_alarm(node, AlarmKind.NODE_SILENT, "node-a")
    ask_plan(node, "ada")
    create_operator(NewOperator(name="ada", role=Role.ADMINISTRATOR), None)
    return {"Authorization": f"Bearer {create_token(NewToken(operator='ada', name='t'))}"}


def call(case: Any, headers: dict[str, str]) -> Any:
    return case.call(app=SCHEMA.app, base_url="https://testserver/api/v1", headers=headers)


@pytest.mark.parametrize("label", OPERATIONS)
@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_whatever_it_is_asked_it_answers_as_described(
    label: str, mode: GenerationMode, headers: dict[str, str]
) -> None:
    operation = OPERATIONS[label]

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    def ask(case: Any) -> None:
        answer = call(case, headers)
        if answer.status_code != NOT_YET:
            case.validate_response(answer, checks=CHECKS)

    ask()


def test_what_is_there_is_given_as_described(
    headers: dict[str, str], acme: Client, node: Node, pin: ModelPin
) -> None:
    """Every list and every row, since what is made up rarely hits one."""
    found = {"name": {"clients": "acme", "nodes": "node-a"}, "pin_id": {"pins": pin.pin_id}}
    seen = 0
    for label, operation in OPERATIONS.items():
        method, path = label.split(" ")
        kind = path.split("/")[1]
        names = [part.strip("{}") for part in path.split("/") if part.startswith("{")]
        if method != "GET" or not all(kind in found.get(name, {}) for name in names):
            continue
        case = operation.Case(path_parameters={name: found[name][kind] for name in names})
        answer = call(case, headers)
        if kind not in {"receipts", "log"} and path not in {"/events/export", "/events/evidence"}:
            assert answer.status_code == 200, label
        if answer.status_code != NOT_YET:
            case.validate_response(answer, checks=CHECKS)
            seen += 1
    assert seen >= 10


def test_the_description_needs_a_role_and_is_served_whole(operator: User) -> None:
    client = APIClient()
    assert client.get("/api/v1/openapi.json", secure=True).status_code == 401
    client.force_authenticate(operator)
    answer = client.get("/api/v1/openapi.json", secure=True)
    assert answer.json() == json.loads(json.dumps(describe()))
    assert OverTls().get("/api/v1/openapi.json").status_code == 401


def test_every_operation_says_what_it_does_and_who_may() -> None:
    operations = [one for path in describe()["paths"].values() for one in path.values()]
    assert len({one["operationId"] for one in operations}) == len(operations) >= 25
    for one in operations:
        assert one["summary"].endswith("."), one
        assert "administrator" in one["description"]


def test_bodies_that_are_not_described_are_refused(headers: dict[str, str]) -> None:
    """The control of the tests above: a server that takes anything would pass them."""
    client = APIClient(headers=headers)
    for body in ("", "[]", "null", '{"name":"x","surplus":1}', '{"name":1}', "{", '{"name":"a","name":"b"}'):
        answer = client.generic("POST", "/api/v1/clients", body, "application/json", secure=True)
        assert answer.status_code == 400, body
    assert not Client.objects.exclude(name="acme").exists()
