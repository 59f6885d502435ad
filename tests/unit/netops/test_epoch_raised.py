"""An agent goes on in another epoch by word of the restore key alone, whoever holds the bundle key."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.core import signing
from appliance.core.bundle import sign_bundle
from appliance.core.epoch import EpochStatement, sign_statement
from appliance.core.errors import BundleError, HostError
from appliance.core.names import encode_base64
from netops.agent.memory import Signed
from tests.unit.netops import cast
from tests.unit.netops.simulated_world import SimulatedWorld
from tests.unit.netops.test_passes import ACME, BOLT, Node, bundle

RESTORE = Ed25519PrivateKey.from_private_bytes(cast.digest("restore"))
PUBLIC = signing.public_text(RESTORE)


class RaisedNode(Node):
    """A node that was provisioned with a restore key."""

    settings = {"restore_key": PUBLIC}


@pytest.fixture
def node(tmp_path):
    node = RaisedNode(tmp_path)
    node.apply(1, ACME)
    node.apply(2, ACME, BOLT)
    return node


def statement(epoch=2, key=RESTORE, **changes):
    value = EpochStatement(**{"control": signing.public_text(cast.CONTROL), "epoch": epoch, **changes})
    return Signed(value.canonical_bytes().decode(), sign_statement(value, key))


def refused(node, signed):
    """Return the field that is refused; the node is as it was."""
    before = node.memory.epoch, node.memory.raised, node.memory.accepted, node.world.state
    with pytest.raises(BundleError) as error:
        node.passes.raise_epoch(signed)
    assert (node.memory.epoch, node.memory.raised, node.memory.accepted, node.world.state) == before
    return error.value.field


def test_after_the_word_of_the_restore_key_generations_begin_again(node):
    assert node.passes.raise_epoch(statement()) == 2
    assert node.memory.epoch == 2
    applied = node.apply(1, ACME, epoch=2)
    assert (applied.accepted.epoch, applied.accepted.generation) == (2, 1)
    assert len(node.keys) == 2


def test_a_thief_of_the_bundle_key_raises_nothing(node):
    """Not by a bundle of a higher epoch, and not by a statement that the bundle key signed, under either purpose."""
    for epoch in (2, 3, 2**53 - 1):
        with pytest.raises(BundleError) as error:
            node.apply(1, ACME, epoch=epoch)
        assert error.value.field == "epoch"
    assert refused(node, statement(key=cast.CONTROL)) == "signature"
    text = statement().text
    as_bundle = signing.sign(cast.CONTROL, signing.Purpose.BUNDLE, text.encode())
    assert refused(node, Signed(text, as_bundle)) == "signature"
    wrong_purpose = signing.sign(RESTORE, signing.Purpose.BUNDLE, text.encode())
    assert refused(node, Signed(text, wrong_purpose)) == "signature"
    assert node.memory.accepted.epoch == 1


def test_the_restore_key_signs_no_bundle(node):
    value = bundle(3, ACME)
    with pytest.raises(BundleError):
        node.passes.apply(Signed(value.canonical_bytes().decode(), sign_bundle(value, RESTORE)))


def test_a_statement_is_taken_once_and_never_backwards(node):
    old = statement(2)
    node.passes.raise_epoch(old)
    assert refused(node, old) == "epoch"
    node.passes.raise_epoch(statement(5))
    for replayed in (old, statement(4), statement(5)):
        assert refused(node, replayed) == "epoch"
    # Between the two a thief might want the epoch that was skipped.
    with pytest.raises(BundleError):
        node.apply(1, ACME, epoch=4)
    node.apply(1, ACME, epoch=5)


def test_a_statement_about_another_control_s_nodes_is_refused(node):
    foreign = signing.public_text(cast.IMPOSTOR)
    assert refused(node, statement(control=foreign)) == "control"


def test_a_node_without_a_restore_key_is_raised_by_nobody(tmp_path):
    node = Node(tmp_path)
    node.apply(1, ACME)
    assert refused(node, statement()) == "signature"


@pytest.mark.parametrize(
    "text", ["", "{}", '{"control":"x","epoch":2,"v":1}', " " + statement().text, "x" * 2000]
)
def test_what_is_no_statement_is_refused_though_signed(node, text):
    refused(node, Signed(text, signing.sign(RESTORE, signing.Purpose.EPOCH, text.encode())))


def test_until_a_bundle_comes_the_old_one_stays_in_force_and_no_other_of_its_epoch_is_taken(node):
    node.passes.raise_epoch(statement())
    assert node.keys, "who was served is served"
    with pytest.raises(BundleError) as error:
        node.apply(3, ACME)
    assert error.value.field == "epoch"
    node.apply(2, ACME, BOLT)  # the one in force, byte for byte, repairs drift


def test_a_raised_epoch_survives_a_restart_and_the_bundle_in_force_does_too(node):
    node.passes.raise_epoch(statement())
    node.world = SimulatedWorld()
    stored = node.restart()
    assert (node.memory.raised, node.memory.epoch) == (2, 2)
    assert node.passes.apply(stored).accepted.generation == 2
    assert len(node.keys) == 3
    assert refused(node, statement()) == "epoch"
    node.apply(1, ACME, epoch=2)
    stored = node.restart()
    assert node.passes.apply(stored).accepted.epoch == 2


def test_a_damaged_memory_of_the_epoch_is_not_guessed(node, tmp_path):
    node.passes.raise_epoch(statement())
    (node.paths.state / "raised.json").write_bytes(b'{"epoch":0}')
    with pytest.raises(HostError):
        node.restart()


def test_a_fresh_node_begins_where_its_control_is(tmp_path):
    fresh = RaisedNode(tmp_path)
    assert fresh.memory.epoch == 0
    assert fresh.apply(1, ACME, epoch=7).accepted.epoch == 7


def test_base64_of_the_signature_has_one_spelling(node):
    signed = statement()
    assert refused(node, Signed(signed.text, signed.signature + "\n")) == "signature"
    assert refused(node, Signed(signed.text, encode_base64(bytes(64)))) == "signature"
    node.passes.raise_epoch(signed)
