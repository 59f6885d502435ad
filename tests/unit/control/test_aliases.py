"""What a client calls its models: set, moved and taken away by an operator, and carried to the node."""

from __future__ import annotations

import json

import pytest
from control_cast import new_public_key, store_pin
from rest_framework.test import APIClient

from appliance.cli import main
from appliance.core.bundle import Bundle
from appliance.core.errors import RefusedError
from control.clients.enrolment import add_device
from control.clients.models import Client
from control.clients.requests import NewClient, NewDevice
from control.clients.services import create_client, revoke_client
from control.fleet.models import Node
from control.pins.aliases import NewAlias, find_alias, remove_alias, set_alias
from control.pins.models import ClientAlias, ModelPin
from control.reconciler.keys import ReconcilerKeys
from control.reconciler.render import render_content
from control.reconciler.rows import PresharedKeys, observe_rows

pytestmark = pytest.mark.django_db

BASE = "/api/v1"


@pytest.fixture
def big(pin: ModelPin) -> ModelPin:
    """A second model, so that a new client may use both."""
    return store_pin(b"GGUF big weights", name="big")


@pytest.fixture
def bolt(big: ModelPin, node: Node) -> Client:
    return create_client(NewClient(name="bolt", models=("tiny", "big")))


def rendered(node: Node, keys: ReconcilerKeys) -> Bundle:
    return render_content(observe_rows(node, PresharedKeys(keys.seal)))


def names(bundle: Bundle) -> dict[str, str]:
    return {alias.alias: alias.model for alias in bundle.clients[0].aliases}


def give(alias: str, model: str, client: str = "bolt") -> ClientAlias:
    return set_alias(NewAlias(client=client, alias=alias, model=model))


def test_every_client_has_a_default(bolt: Client, node: Node, keys: ReconcilerKeys) -> None:
    assert names(rendered(node, keys)) == {"default": "tiny"}


def test_the_default_decides_which_model_the_cell_loads(
    bolt: Client, node: Node, keys: ReconcilerKeys
) -> None:
    give("chat", "tiny")
    give("default", "big")
    bundle = rendered(node, keys)
    assert bundle.clients[0].models == ("big", "tiny")
    assert names(bundle) == {"chat": "tiny", "default": "big"}
    remove_alias(find_alias("bolt", "default"))
    bundle = rendered(node, keys)
    assert bundle.clients[0].models == ("tiny", "big")
    assert names(bundle) == {"chat": "tiny", "default": "tiny"}


def test_an_alias_moves_to_another_model(bolt: Client, node: Node, keys: ReconcilerKeys) -> None:
    give("chat", "tiny")
    give("chat", "big")
    assert names(rendered(node, keys))["chat"] == "big"
    assert ClientAlias.objects.count() == 1


def test_an_alias_of_a_model_that_is_not_served_reaches_no_node(
    bolt: Client, node: Node, keys: ReconcilerKeys
) -> None:
    give("chat", "big")
    give("default", "big")
    ModelPin.objects.filter(name="big").update(state="verified")
    bundle = rendered(node, keys)
    assert (bundle.clients[0].models, names(bundle)) == (("tiny",), {"default": "tiny"})


def test_aliases_of_one_client_are_none_of_another(bolt: Client, node: Node, keys: ReconcilerKeys) -> None:
    create_client(NewClient(name="acme", models=("tiny",)))
    give("chat", "tiny")
    acme, _bolt = rendered(node, keys).clients
    assert [alias.alias for alias in acme.aliases] == ["default"]
    with pytest.raises(RefusedError) as refused:
        give("chat", "big", client="acme")
    assert refused.value.field == "model"


@pytest.mark.parametrize(
    ("client", "alias", "model", "field"),
    [
        ("nobody", "chat", "tiny", "client"),
        ("bolt", "chat", "other", "model"),
        ("bolt", "big", "tiny", "alias"),
        ("bolt", "Chat", "tiny", "alias"),
        ("bolt", "../x", "tiny", "alias"),
    ],
)
def test_a_bad_alias_is_refused_with_the_field_named(
    api: APIClient, bolt: Client, client: str, alias: str, model: str, field: str
) -> None:
    answer = api.post(f"{BASE}/aliases", {"client": client, "alias": alias, "model": model}, format="json")
    assert (answer.status_code, answer.json()["field"]) == (400, field)
    assert not ClientAlias.objects.exists()


def test_a_revoked_client_gets_no_alias(bolt: Client) -> None:
    revoke_client(bolt)
    with pytest.raises(RefusedError, match="for good"):
        give("chat", "tiny")


def test_aliases_are_set_listed_and_removed_over_http(api: APIClient, bolt: Client) -> None:
    made = api.post(f"{BASE}/aliases", {"client": "bolt", "alias": "chat", "model": "big"}, format="json")
    assert made.status_code == 201
    assert made.json() | {"id": 0} == {"id": 0, "client": "bolt", "alias": "chat", "model": "big"}
    assert api.get(f"{BASE}/aliases?client=bolt").json()["count"] == 1
    assert api.get(f"{BASE}/aliases?client=acme").json()["count"] == 0
    assert api.post(f"{BASE}/aliases/{made.json()['id']}/remove").status_code == 200
    assert api.get(f"{BASE}/aliases").json()["count"] == 0


def test_aliases_are_set_listed_and_removed_on_the_command_line(
    bolt: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> dict[str, object]:
        assert main(["control", "alias", *arguments, "--json"]) == 0
        return dict(json.loads(capsys.readouterr().out))

    run("set", "bolt", "chat", "big")
    assert run("list", "--client", "bolt")["aliases"] == [
        {"client__name": "bolt", "alias": "chat", "model": "big"}
    ]
    run("remove", "bolt", "chat")
    assert run("list")["aliases"] == []


def test_a_device_of_the_client_is_not_touched_by_it(bolt: Client, node: Node, keys: ReconcilerKeys) -> None:
    add_device(NewDevice(client="bolt", name="laptop", public_key=new_public_key()))
    before = rendered(node, keys).clients[0].devices
    give("default", "big")
    assert rendered(node, keys).clients[0].devices == before
