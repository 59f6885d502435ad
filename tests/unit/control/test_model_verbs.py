"""A model's life: verified before it serves, one active under a name, back by one verb, and gone only when nobody uses it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from control_cast import manifest_for, store_pin
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.conf import settings
from gguf_forge import gguf
from model_signer import bundle_of, pem_of, statement_of
from pytest_django import DjangoAssertNumQueries
from rest_framework.test import APIClient

from appliance.core.errors import PinError, RefusedError, UsageError
from control.clients.models import Client
from control.clients.services import revoke_client
from control.fleet.models import Node
from control.pins.models import ModelPin, PinState
from control.pins.progress import node_progress, note_held
from control.pins.services import (
    activate_pin,
    add_pin,
    find_pin,
    model_files,
    retire_pin,
    rollback,
    trusted_signers,
    verify_pin,
)
from control.pins.signature import read_signer, signer_id

pytestmark = pytest.mark.django_db

BASE = "/api/v1"
Versions = Callable[..., ModelPin]


@pytest.fixture
def version() -> Versions:
    """Make a version of the model `tiny`, verified unless another state is named."""
    return lambda number, state=PinState.VERIFIED: store_pin(
        gguf(salt=number.encode()), state, version=number
    )


def states() -> dict[str, str]:
    return dict(ModelPin.objects.values_list("version", "state"))


def test_a_model_is_verified_before_it_is_active(version: Versions) -> None:
    pin = version("1.0", PinState.IMPORTED)
    with pytest.raises(RefusedError) as refused:
        activate_pin(pin)
    assert "model verify tiny 1.0" in str(refused.value.hint)
    verify_pin(pin)
    assert (pin.state, pin.facts["architecture"]) == (PinState.VERIFIED, "llama")
    assert "template" not in pin.facts
    assert activate_pin(pin).state == PinState.ACTIVE


def test_verifying_an_active_model_again_leaves_it_active(version: Versions) -> None:
    pin = version("1.0", PinState.ACTIVE)
    verify_pin(pin)
    assert pin.state == PinState.ACTIVE


@pytest.mark.parametrize("content", [gguf()[::-1], gguf()[:-1], gguf() + b"x"])
def test_changed_bytes_are_not_verified(content: bytes) -> None:
    pin = store_pin(gguf(), PinState.IMPORTED)
    path = model_files().path(pin.manifest["files"][0]["sha256"])
    path.write_bytes(content)
    with pytest.raises(PinError) as refused:
        verify_pin(pin)
    assert str(refused.value.field).startswith("files.0")
    pin.refresh_from_db()
    assert pin.state == PinState.IMPORTED
    path.unlink()
    with pytest.raises(PinError, match="not on this machine"):
        verify_pin(pin)


def test_pinned_bytes_that_are_no_model_are_not_verified() -> None:
    pin = store_pin(gguf(counts=(2**40, 0)), PinState.IMPORTED)
    with pytest.raises(PinError):
        verify_pin(pin)


def test_an_activation_sends_the_one_before_back_and_rollback_returns_to_it(version: Versions) -> None:
    first, second, third = (version(f"{number}.0") for number in (1, 2, 3))
    activate_pin(first)
    activate_pin(second)
    assert states() == {"1.0": "verified", "2.0": "active", "3.0": "verified"}
    # Never active before, so never gone back to.
    assert rollback("tiny").version == "1.0"
    assert rollback("tiny").version == "2.0"
    activate_pin(third)
    assert rollback("tiny").version == "2.0"
    assert states() == {"1.0": "verified", "2.0": "active", "3.0": "verified"}


def test_there_is_nothing_to_go_back_to_at_first(version: Versions) -> None:
    version("2.0")
    with pytest.raises(RefusedError):
        rollback("tiny")
    activate_pin(version("1.0"))
    with pytest.raises(RefusedError):
        rollback("tiny")


def test_activating_twice_does_no_harm(version: Versions) -> None:
    pin = activate_pin(version("1.0"))
    at = pin.activated_at
    assert activate_pin(pin).activated_at == at


def test_names_do_not_touch_each_other(version: Versions) -> None:
    activate_pin(version("1.0"))
    other = store_pin(gguf(salt=b"other"), PinState.VERIFIED, name="other")
    activate_pin(other)
    assert ModelPin.objects.filter(state=PinState.ACTIVE).count() == 2


def test_a_model_in_use_is_not_retired(acme: Client, pin: ModelPin) -> None:
    with pytest.raises(RefusedError, match="acme"):
        retire_pin(pin)
    revoke_client(acme)
    assert retire_pin(pin).state == PinState.RETIRED


def test_a_model_that_was_replaced_is_retired_for_good(
    version: Versions, django_capture_on_commit_callbacks: Callable[..., object]
) -> None:
    first, second = version("1.0"), version("2.0")
    activate_pin(first)
    activate_pin(second)
    digest = first.manifest["files"][0]["sha256"]
    with django_capture_on_commit_callbacks(execute=True):  # type: ignore[attr-defined]
        retired = retire_pin(find_pin("tiny", "1.0"))
    assert not model_files().path(digest).exists()
    assert model_files().path(second.manifest["files"][0]["sha256"]).exists()
    for verb in (activate_pin, verify_pin):
        with pytest.raises(RefusedError):
            verb(retired)
    with pytest.raises(RefusedError):
        rollback("tiny")
    with pytest.raises(RefusedError, match="for good"):
        add_pin(retired.parsed_manifest())
    assert retire_pin(retired).retired_at == retired.retired_at


def test_files_that_another_model_has_stay(
    django_capture_on_commit_callbacks: Callable[..., object],
) -> None:
    one, other = (store_pin(gguf(), PinState.VERIFIED, version=number) for number in ("1.0", "2.0"))
    path = model_files().path(one.manifest["files"][0]["sha256"])
    with django_capture_on_commit_callbacks(execute=True):  # type: ignore[attr-defined]
        retire_pin(one)
    assert path.exists()
    with django_capture_on_commit_callbacks(execute=True):  # type: ignore[attr-defined]
        retire_pin(other)
    assert not path.exists()


def test_a_model_of_several_files_is_not_activated() -> None:
    pin = store_pin(gguf(), PinState.VERIFIED)
    pin.manifest["files"].append(pin.manifest["files"][0] | {"path": "more.gguf"})
    pin.save()
    with pytest.raises(RefusedError) as refused:
        activate_pin(pin)
    assert "merge" in str(refused.value.hint)


# -- signatures

KEY = Ed25519PrivateKey.generate()
SIGNER = read_signer(pem_of(KEY))


def signed_pin(signature: str | None = None) -> ModelPin:
    store_pin(gguf(), PinState.IMPORTED)
    proper = bundle_of(statement_of(("tiny.gguf", gguf())), KEY.sign)
    return add_pin(manifest_for(gguf()), proper if signature is None else signature)


def test_a_signature_is_checked_where_there_is_one() -> None:
    pin = signed_pin()
    other = read_signer(pem_of(Ed25519PrivateKey.generate()))
    for signers in ((), (other,)):
        with pytest.raises(PinError, match="nobody who may"):
            verify_pin(pin, signers)
    verify_pin(pin, (other, SIGNER))
    assert pin.signer == signer_id(SIGNER)


def test_a_signature_over_other_bytes_is_refused() -> None:
    pin = signed_pin(bundle_of(statement_of(("tiny.gguf", b"other")), KEY.sign))
    with pytest.raises(PinError):
        verify_pin(pin, (SIGNER,))


@pytest.fixture
def only_signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "signer.pem"
    path.write_bytes(pem_of(KEY))
    config = settings.CONFIG.model_copy(update={"model_signers": (str(path),)})
    monkeypatch.setattr(settings, "CONFIG", config)


def test_where_control_names_signers_every_model_is_signed(only_signed: None) -> None:
    signers = trusted_signers()
    unsigned = store_pin(gguf(salt=b"unsigned"), PinState.IMPORTED, name="unsigned")
    with pytest.raises(PinError, match="not signed"):
        verify_pin(unsigned, signers)
    verify_pin(signed := signed_pin(), signers)
    assert activate_pin(signed).state == PinState.ACTIVE


def test_what_was_verified_before_signatures_were_asked_for_is_not_activated(
    version: Versions, request: pytest.FixtureRequest
) -> None:
    pin = version("1.0")
    request.getfixturevalue("only_signed")
    for signer in ("", signer_id(read_signer(pem_of(Ed25519PrivateKey.generate())))):
        ModelPin.objects.update(signer=signer)
        with pytest.raises(PinError, match="not signed"):
            activate_pin(pin)
    ModelPin.objects.update(signer=signer_id(SIGNER))  # positive control
    assert activate_pin(pin).state == PinState.ACTIVE


def test_nobody_adds_a_signer_to_those_of_control(only_signed: None) -> None:
    with pytest.raises(UsageError):
        trusted_signers([pem_of(Ed25519PrivateKey.generate())])


def test_without_signers_in_control_whoever_verifies_names_one() -> None:
    assert trusted_signers() == ()
    assert trusted_signers([pem_of(KEY)]) == (SIGNER,)


def test_a_newer_signature_must_be_verified_again() -> None:
    pin = signed_pin()
    verify_pin(pin, (SIGNER,))
    again = add_pin(pin.parsed_manifest(), "another signature")
    assert (again.pk, again.signer, again.state) == (pin.pk, "", PinState.IMPORTED)


# -- progress and the API


def test_progress_says_for_each_node_how_far_it_is(
    node: Node, pin: ModelPin, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    before = node_progress(pin)[0]
    assert (before["node"], before["files"], before["fetched"]) == ("node-a", 1, 0)
    assert not before["verified"]
    assert not before["applied"]
    note_held(node, [pin.manifest["files"][0]["sha256"], "0" * 64])
    for number in range(5):
        Node.objects.create(
            name=f"n{number}", address="192.0.2.1", address4="10.0.0.1", address6="fd00::1", listen_port=1
        )
    with django_assert_num_queries(2):
        rows = node_progress(pin)
    assert len(rows) == 6
    after = next(row for row in rows if row["node"] == "node-a")
    assert (after["fetched"], after["verified"], after["applied"]) == (1, True, False)


def test_models_are_activated_and_rolled_back_over_http(
    api: APIClient, node: Node, version: Versions
) -> None:
    first, second = version("1.0"), version("2.0")
    assert api.post(f"{BASE}/pins/{first.pin_id}/activate").json()["state"] == "active"
    assert api.post(f"{BASE}/pins/{second.pin_id}/activate").json()["state"] == "active"
    assert states() == {"1.0": "verified", "2.0": "active"}
    # Whoever looks at a page that is old does not roll back what somebody else activated.
    late = api.post(f"{BASE}/pins/{first.pin_id}/rollback")
    assert (late.status_code, late.json()["field"]) == (400, "state")
    back = api.post(f"{BASE}/pins/{second.pin_id}/rollback").json()
    assert (back["version"], back["state"]) == ("1.0", "active")
    assert api.post(f"{BASE}/pins/{second.pin_id}/retire").json()["state"] == "retired"
    shown = api.get(f"{BASE}/pins/{first.pin_id}").json()
    assert shown["nodes"][0]["node"] == "node-a"
    assert "nodes" not in api.get(f"{BASE}/pins").json()["results"][0]


def test_weights_do_not_come_over_http(api: APIClient) -> None:
    for method in ("post", "put", "patch"):
        answer = getattr(api, method)(f"{BASE}/pins", json.dumps({}), content_type="application/json")
        assert answer.status_code == 405


def test_a_list_of_models_is_a_bounded_number_of_queries(
    api: APIClient, version: Versions, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for number in range(20):
        version(f"{number}.0")
    with django_assert_max_num_queries(6):
        assert api.get(f"{BASE}/pins").json()["count"] == 20


def test_an_unverified_model_is_a_problem_document(api: APIClient, version: Versions) -> None:
    answer = api.post(f"{BASE}/pins/{version('1.0', PinState.IMPORTED).pin_id}/activate")
    assert (answer.status_code, answer.json()["code"]) == (400, "refused")
    assert "model verify" in answer.json()["hint"]
