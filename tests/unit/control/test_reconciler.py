"""The reconciler against simulated nodes that speak the real protocol."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from control_cast import new_public_key, node_request, store_pin
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.conf import settings
from simulated_node import SimulatedNode

from appliance.core.bundle import Accepted
from appliance.core.errors import RefusedError
from appliance.core.names import decode_base64
from appliance.core.receipt import Keyring, pseudonym, verify_receipt
from appliance.core.signing import public_text
from control.audit.models import Alarm, AlarmKind, ReceiptRecord
from control.clients import services
from control.clients.enrolment import add_device
from control.clients.models import Client, Device
from control.clients.requests import NewClient, NewDevice
from control.fleet.models import BundleRecord, Epoch, Node
from control.fleet.requests import NewNode
from control.fleet.services import add_node
from control.pins.models import ModelPin, PinState
from control.pins.progress import node_progress
from control.pins.services import activate_pin, model_files, rollback
from control.reconciler.keys import ReconcilerKeys
from control.reconciler.service import Reconciler

pytestmark = pytest.mark.django_db(transaction=True)
INTERVAL_S = 60.0  # long: what happens in these tests happens because of hints


@pytest.fixture
def node_a(keys: ReconcilerKeys, transactional_db: None) -> SimulatedNode:
    add_node(NewNode.parse(node_request()))
    return SimulatedNode("node-a", public_text(keys.bundle))


@pytest.fixture
def pin(transactional_db: None) -> ModelPin:
    return store_pin(b"GGUF weights of no model")


def make_reconciler(keys: ReconcilerKeys, *nodes: SimulatedNode) -> Reconciler:
    by_name = {node.name: node for node in nodes}
    return Reconciler(settings.PATHS, keys, INTERVAL_S, connect=lambda node: by_name[node.name])


@contextmanager
def running(reconciler: Reconciler) -> Iterator[None]:
    thread = threading.Thread(target=reconciler.run)
    thread.start()
    try:
        yield
    finally:
        reconciler.stop()
        thread.join(timeout=15)
        assert not thread.is_alive()


def until(condition: Callable[[], object], timeout_s: float = 5.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.002)


def at_rest(node: SimulatedNode) -> bool:
    """Whether control has asked nothing of the node for a while; what a pass ends with depends on what there is to publish."""
    return not node.seen or time.monotonic() - node.seen[-1][1] > 0.3


def in_bundle(node: SimulatedNode) -> int:
    """Return how many devices the node's bundle holds; a device may be let in before, by a grant."""
    return sum(len(client.devices) for client in node.bundle.clients) if node.bundle else 0


def add(client: str = "acme", name: str = "laptop") -> str:
    key = new_public_key()
    add_device(NewDevice(client=client, name=name, public_key=key))
    return key


def test_a_client_reaches_the_node_and_a_revocation_goes_first(
    keys: ReconcilerKeys, node_a: SimulatedNode, pin: ModelPin
) -> None:
    with running(make_reconciler(keys, node_a)):
        until(lambda: node_a.bundle)
        client = services.create_client(NewClient(name="acme"))
        keys_of = {f"d{number}": add(name=f"d{number}") for number in range(5)}
        phone = add(name="phone")
        until(lambda: in_bundle(node_a) == 6)
        assert {*keys_of.values(), phone} <= set(node_a.peers)
        configured = node_a.bundle
        assert configured is not None
        assert configured.clients[0].pseudonym == pseudonym(decode_base64(client.pseudonym_key), "acme")
        took = [revoke_and_time(node_a, client, name, key) for name, key in keys_of.items()]
        # Commit, hint, database, signature, arrival: what is promised. What it takes is for `appliance bench fleet` to say.
        assert max(took) < 1.0
        until(lambda: in_bundle(node_a) == 1)
        assert set(node_a.peers) == {phone}


def revoke_and_time(node: SimulatedNode, client: Client, name: str, key: str) -> float:
    """Revoke a device while nothing else is going on; return the seconds until the node was told, and it goes first."""
    until(lambda: at_rest(node))
    node.seen.clear()
    asked_at = time.monotonic()
    services.revoke_device(services.find_device(client, name))
    until(lambda: key not in node.peers)
    until(lambda: "apply" in node.ops())
    op, arrived_at = next(entry for entry in node.seen if entry[0] in ("revoke", "apply"))
    assert op == "revoke"
    return arrived_at - asked_at


def test_suspending_cuts_off_and_resuming_lets_in_again(
    keys: ReconcilerKeys, node_a: SimulatedNode, pin: ModelPin
) -> None:
    with running(make_reconciler(keys, node_a)):
        until(lambda: node_a.bundle)
        client = services.create_client(NewClient(name="acme"))
        key = add()
        until(lambda: key in node_a.peers)
        services.suspend_client(client)
        until(lambda: node_a.bundle and not node_a.bundle.clients and not node_a.peers)
        assert "revoke" in node_a.ops()
        services.resume_client(client)
        until(lambda: key in node_a.peers)


def test_a_revocation_does_not_wait_behind_a_long_apply(
    keys: ReconcilerKeys, node_a: SimulatedNode, pin: ModelPin
) -> None:
    with running(make_reconciler(keys, node_a)):
        until(lambda: node_a.bundle)
        client = services.create_client(NewClient(name="acme"))
        key = add()
        until(lambda: key in node_a.peers)
        until(lambda: at_rest(node_a))
        node_a.apply_s = 1.0
        node_a.seen.clear()
        add(name="another")  # its apply takes a second
        until(lambda: "apply" in node_a.ops())
        asked_at = time.monotonic()
        services.revoke_device(services.find_device(client, "laptop"))
        until(lambda: "revoke" in node_a.ops())
        assert time.monotonic() - asked_at < 0.8  # the apply is still under way
        # The bundle under way still held the key; whatever order the node took them in, it ends cut off.
        node_a.apply_s = 0.0
        until(lambda: in_bundle(node_a) == 1, 8)
        assert key not in node_a.peers


def test_a_dead_node_holds_up_no_other_and_shows_its_code(
    keys: ReconcilerKeys, node_a: SimulatedNode, pin: ModelPin
) -> None:
    add_node(NewNode.parse(node_request("node-b", 78)))
    node_b = SimulatedNode("node-b", public_text(keys.bundle), down=True)
    with running(make_reconciler(keys, node_a, node_b)):
        until(lambda: node_a.bundle)
        until(lambda: Node.objects.get(name="node-b").last_error == "unavailable")
        until(lambda: Node.objects.get(name="node-a").last_seen_at)
        assert Node.objects.get(name="node-a").last_error == ""
        assert Node.objects.get(name="node-b").last_seen_at is None
        node_b.down = False  # it comes back without a hint
        until(lambda: node_b.bundle, 10)
        until(lambda: Node.objects.get(name="node-b").last_error == "")


def test_the_node_is_met_once_and_gets_models_and_a_certificate(
    keys: ReconcilerKeys, node_a: SimulatedNode, pin: ModelPin
) -> None:
    assert make_reconciler(keys, node_a).pass_once() == {"node-a": ""}
    node = Node.objects.get()
    assert list(node_a.models.values()) == [b"GGUF weights of no model"]
    assert node_a.bundle is not None
    assert node_a.bundle.tls is not None
    leaf = x509.load_pem_x509_certificate(node_a.bundle.tls.certificate.encode())
    ca = x509.load_pem_x509_certificate(settings.PATHS.ca_certificate.read_bytes())
    leaf.verify_directly_issued_by(ca)
    assert leaf.public_key() == node_a.tls_key.public_key()
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["node-a.appliance.internal"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["10.77.0.1", "fd00:77::1"]
    assert (leaf.not_valid_after_utc - leaf.not_valid_before_utc).days == 397
    assert node.health["uptime_s"] == 60
    keyring = Keyring.parse_canonical(settings.PATHS.keyring.read_bytes().strip())
    assert keyring.body.nodes[0].public_key == public_text(node_a.receipt_key)
    # A second pass changes nothing: the same generation, the same bytes, no upload.
    node_a.seen.clear()
    assert make_reconciler(keys, node_a).pass_once() == {"node-a": ""}
    assert "model" not in node_a.ops()
    assert BundleRecord.objects.count() == 1
    assert Node.objects.get().certificate == node.certificate


@pytest.mark.parametrize("key", ["receipt_key", "wireguard_key", "tls_key"])
def test_a_key_that_changes_is_an_alarm_and_the_node_gets_no_bundle(
    keys: ReconcilerKeys, node_a: SimulatedNode, pin: ModelPin, key: str
) -> None:
    make_reconciler(keys, node_a).pass_once()
    before = Node.objects.values("wireguard_public_key", "receipt_public_key", "tls_public_key").get()
    other = SimulatedNode("node-a", node_a.bundle_key)
    setattr(node_a, key, getattr(other, key))
    node_a.seen.clear()
    assert make_reconciler(keys, node_a).pass_once() == {"node-a": "refused"}
    assert node_a.ops() == ["identity"]
    assert Alarm.objects.get().kind == AlarmKind.KEY_CHANGED
    after = Node.objects.values("wireguard_public_key", "receipt_public_key", "tls_public_key").get()
    assert after == before


def test_a_request_for_a_weak_tls_key_is_refused(keys: ReconcilerKeys, node_a: SimulatedNode) -> None:
    node_a.tls_key = ec.generate_private_key(ec.SECP384R1())
    assert make_reconciler(keys, node_a).pass_once() == {"node-a": "refused"}
    assert Node.objects.get().certificate == ""


def test_generations_grow_only_with_content_and_name_the_one_before(
    keys: ReconcilerKeys, node_a: SimulatedNode, pin: ModelPin
) -> None:
    reconciler = make_reconciler(keys, node_a)
    reconciler.pass_once()
    services.create_client(NewClient(name="acme"))
    make_reconciler(keys, node_a).pass_once()
    make_reconciler(keys, node_a).pass_once()
    first, second = BundleRecord.objects.all()
    assert (first.generation, second.generation) == (1, 2)
    assert (first.previous, second.previous) == ("", first.digest)
    assert first.accepted_at is not None
    assert second.accepted_at is not None
    # In an epoch that nobody raised with the restore key they begin again in vain.
    Epoch.objects.update(epoch=2)
    assert make_reconciler(keys, node_a).pass_once() == {"node-a": "bundle_refused"}
    assert node_a.accepted is not None
    assert (node_a.accepted.epoch, node_a.accepted.generation) == (1, 2)


def test_a_node_ahead_of_control_is_an_alarm_and_keeps_its_state(
    keys: ReconcilerKeys, node_a: SimulatedNode, pin: ModelPin
) -> None:
    make_reconciler(keys, node_a).pass_once()
    node_a.accepted = Accepted(epoch=1, generation=9, digest="9" * 64)
    node_a.issue_receipt("a" * 64)
    assert make_reconciler(keys, node_a).pass_once() == {"node-a": "refused"}
    assert Alarm.objects.get().kind == AlarmKind.NODE_AHEAD
    assert node_a.accepted.generation == 9
    # What the node has to tell is taken all the same.
    assert ReceiptRecord.objects.count() == 1


def test_receipts_are_admitted_exactly_once(keys: ReconcilerKeys, node_a: SimulatedNode) -> None:
    signed = [node_a.issue_receipt(client * 64) for client in "aabba"]
    for _ in range(2):
        make_reconciler(keys, node_a).pass_once()
    # A database of before is given pieces again.
    Node.objects.update(receipts_position=1, receipts_past="")
    make_reconciler(keys, node_a).pass_once()
    assert ReceiptRecord.objects.filter(verified=True).count() == 5
    assert not Alarm.objects.exists()
    assert Node.objects.get().receipts_position == 5
    keyring = Keyring.parse_canonical(settings.PATHS.keyring.read_bytes().strip())
    for record, original in zip(ReceiptRecord.objects.all(), signed, strict=True):
        assert record.signed() == original
        verify_receipt(record.signed(), keyring)


def _kinds() -> set[str]:
    return set(Alarm.objects.values_list("kind", flat=True))


def test_a_receipt_that_comes_again_with_other_bytes_is_an_alarm(
    keys: ReconcilerKeys, node_a: SimulatedNode
) -> None:
    first = node_a.issue_receipt("a" * 64)
    make_reconciler(keys, node_a).pass_once()
    node_a.journal.clear()
    node_a.issue_receipt("a" * 64, id=first.receipt.id, requests=7)
    make_reconciler(keys, node_a).pass_once()
    assert _kinds() == {AlarmKind.RECEIPT_CHANGED, AlarmKind.JOURNAL_REPLACED}
    assert ReceiptRecord.objects.get().signed() == first


def test_a_receipt_with_a_bad_signature_is_kept_as_evidence_and_is_an_alarm(
    keys: ReconcilerKeys, node_a: SimulatedNode
) -> None:
    honest, node_a.receipt_key = node_a.receipt_key, Ed25519PrivateKey.generate()
    node_a.issue_receipt("a" * 64)
    node_a.receipt_key = honest
    node_a.issue_receipt("b" * 64, node="node-b")
    node_a.issue_receipt("c" * 64)
    make_reconciler(keys, node_a).pass_once()
    assert _kinds() == {AlarmKind.BAD_SIGNATURE}
    assert list(ReceiptRecord.objects.values_list("verified", flat=True)) == [False, False, True]


def test_a_dropped_receipt_shows_as_a_gap_in_the_chain(keys: ReconcilerKeys, node_a: SimulatedNode) -> None:
    for _ in range(3):
        node_a.issue_receipt("a" * 64)
    del node_a.journal[1]
    make_reconciler(keys, node_a).pass_once()
    assert _kinds() == {AlarmKind.CHAIN_GAP}


def test_an_entry_that_is_no_receipt_stops_no_other(keys: ReconcilerKeys, node_a: SimulatedNode) -> None:
    node_a.journal.append({"prompt": "not a receipt"})
    bad, node_a.journal = node_a.journal, []
    node_a.issue_receipt("a" * 64)
    node_a.journal = bad + node_a.journal
    assert make_reconciler(keys, node_a).pass_once() == {"node-a": ""}
    assert _kinds() == {AlarmKind.BAD_SCHEMA}
    assert ReceiptRecord.objects.count() == 1


def test_a_journal_that_became_shorter_is_an_alarm_and_is_read_anew(
    keys: ReconcilerKeys, node_a: SimulatedNode
) -> None:
    for _ in range(3):
        node_a.issue_receipt("a" * 64)
    make_reconciler(keys, node_a).pass_once()
    del node_a.journal[1:]
    make_reconciler(keys, node_a).pass_once()
    assert _kinds() == {AlarmKind.JOURNAL_SHRUNK}
    make_reconciler(keys, node_a).pass_once()
    assert ReceiptRecord.objects.count() == 3
    assert Node.objects.get().receipts_position == 1


def test_a_node_that_breaks_the_protocol_shows_a_code_and_stops_nothing(
    keys: ReconcilerKeys, node_a: SimulatedNode, pin: ModelPin
) -> None:
    node_a.health = {"load": [0.5, 1, 1]}  # integers only
    node_a.issue_receipt("a" * 64)
    assert make_reconciler(keys, node_a).pass_once() == {"node-a": "refused"}
    assert ReceiptRecord.objects.count() == 1
    assert node_a.bundle is not None


def test_a_changed_weights_file_never_reaches_a_node(
    keys: ReconcilerKeys, node_a: SimulatedNode, pin: ModelPin
) -> None:
    stored = model_files().path(pin.manifest["files"][0]["sha256"])
    stored.write_bytes(stored.read_bytes()[::-1])
    assert make_reconciler(keys, node_a).pass_once() == {"node-a": "refused"}
    assert node_a.models == {}


def test_the_database_holds_no_bundle_text(
    keys: ReconcilerKeys, node_a: SimulatedNode, pin: ModelPin
) -> None:
    make_reconciler(keys, node_a).pass_once()
    services.create_client(NewClient(name="acme"))
    configuration = add_device(NewDevice(client="acme", name="a", public_key=new_public_key()))
    make_reconciler(keys, node_a).pass_once()
    preshared = configuration.wireguard_conf.split("PresharedKey = ")[1].splitlines()[0]
    assert preshared in node_a.peers.values()  # positive control: it did travel
    for model in (BundleRecord, Device, Client, Node):
        for row in model.objects.values():
            assert preshared not in str(row)


def test_a_device_is_granted_before_the_bundle_with_it_comes(
    keys: ReconcilerKeys, node_a: SimulatedNode, pin: ModelPin
) -> None:
    reconciler = make_reconciler(keys, node_a)
    services.create_client(NewClient(name="acme"))
    reconciler.pass_once()
    first = add()
    reconciler.pass_once()
    added = add(name="phone")
    assert next(iter(reconciler._workers.values())).grant_now() == ""
    assert set(node_a.peers) == {first, added}
    assert in_bundle(node_a) == 1
    reconciler.pass_once()
    assert in_bundle(node_a) == 2


def test_a_device_that_was_granted_and_is_in_no_bundle_yet_can_be_revoked(
    keys: ReconcilerKeys, node_a: SimulatedNode, pin: ModelPin
) -> None:
    reconciler = make_reconciler(keys, node_a)
    client = services.create_client(NewClient(name="acme"))
    reconciler.pass_once()
    worker = next(iter(reconciler._workers.values()))
    added = add(name="phone")
    worker.grant_now()
    assert set(node_a.peers) == {added}
    services.revoke_device(services.find_device(client, "phone"))
    assert worker.revoke_now() == ""
    assert node_a.peers == {}


def test_many_devices_at_once_wait_for_their_bundle(
    keys: ReconcilerKeys, node_a: SimulatedNode, pin: ModelPin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("control.reconciler.grants.MAX_DEVICES", 2)
    reconciler = make_reconciler(keys, node_a)
    services.create_client(NewClient(name="acme"))
    reconciler.pass_once()
    for number in range(3):
        add(name=f"d{number}")
    worker = next(iter(reconciler._workers.values()))
    assert worker.grant_now() == ""
    assert "grant" not in node_a.ops()
    reconciler.pass_once()
    assert len(node_a.peers) == 3


def test_a_grant_that_was_taken_back_is_taken_back_once(
    keys: ReconcilerKeys, node_a: SimulatedNode, pin: ModelPin
) -> None:
    reconciler = make_reconciler(keys, node_a)
    client = services.create_client(NewClient(name="acme"))
    reconciler.pass_once()
    worker = next(iter(reconciler._workers.values()))
    add(name="phone")
    worker.grant_now()
    services.revoke_device(services.find_device(client, "phone"))
    worker.revoke_now()
    assert node_a.peers == {}
    node_a.seen.clear()
    reconciler.pass_once()
    worker.revoke_now()
    worker.grant_now()
    assert not {"revoke", "grant"} & set(node_a.ops())


def test_an_activation_and_a_rollback_reach_the_node_and_show_how_far_they_are(
    keys: ReconcilerKeys, node_a: SimulatedNode, pin: ModelPin
) -> None:
    services.create_client(NewClient(name="acme"))
    reconciler = make_reconciler(keys, node_a)
    reconciler.pass_once()
    newer = store_pin(b"newer weights", PinState.VERIFIED, version="2.0")
    assert not node_progress(newer)[0]["verified"]
    activate_pin(newer)
    node_a.seen.clear()
    reconciler.pass_once()
    assert node_a.bundle is not None
    assert [held.version for held in node_a.bundle.pins] == ["2.0"]
    # The files are there before the bundle that needs them.
    assert node_a.ops().index("model") < node_a.ops().index("apply")
    row = node_progress(newer)[0]
    assert (row["fetched"], row["verified"], row["applied"]) == (1, True, True)
    assert not node_progress(pin)[0]["applied"]
    rollback("tiny")
    node_a.seen.clear()
    reconciler.pass_once()
    assert [held.version for held in node_a.bundle.pins] == ["1.0"]
    assert "model" not in node_a.ops()  # it kept the files: going back sends nothing
    assert (node_progress(pin)[0]["applied"], node_progress(newer)[0]["applied"]) == (True, False)


def test_a_node_that_refuses_the_bundle_shows_the_model_fetched_and_not_applied(
    keys: ReconcilerKeys, node_a: SimulatedNode, pin: ModelPin, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_self: SimulatedNode, **_fields: str) -> None:
        raise RefusedError("not now", field="bundle")

    monkeypatch.setattr(SimulatedNode, "op_apply", refuse)
    assert make_reconciler(keys, node_a).pass_once() == {"node-a": "refused"}
    row = node_progress(pin)[0]
    assert (row["verified"], row["applied"], row["error"]) == (True, False, "refused")
