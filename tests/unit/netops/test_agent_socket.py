"""The agent's socket: the protocol, what it refuses, and that nothing is changed then. Real socket, simulated world."""

import json
import os
import socket
import threading
import time
from types import SimpleNamespace

import pytest

from appliance.core import canonical
from appliance.core.bundle import sign_bundle
from appliance.core.errors import UnavailableError
from appliance.core.health import Fresh, Health, NotaryHealth, Peers
from appliance.core.signing import Purpose, sign
from netops.agent.models import ModelStore
from netops.agent.operations import Operations
from netops.agent.server import Server
from netops.lines import RemoteError, call
from tests.unit.netops import cast
from tests.unit.netops.test_passes import ACME, BOLT, Node, bundle, key

ZERO_KEY = "A" * 43 + "="


class Socket:
    """A running agent's socket."""

    def __init__(self, root):
        self.node = Node(root)
        self.path = root / "agent.sock"
        notary = SimpleNamespace(
            status=lambda: {
                "public_key": ZERO_KEY,
                "records": 7,
                "open": 2,
                "tokens": 0,
                "waiting": 3,
                "bytes": 9,
                "max_bytes": 10,
            },
            export=lambda after, limit: {"entries": [], "next": after},
        )
        self.node.world.notary = notary
        self.node.world.report = dict
        self.node.world.cells.running = list
        self.node.paths.seats.mkdir(parents=True)
        operations = Operations(
            cast.settings(),
            self.node.paths,
            world=self.node.world,
            memory=self.node.memory,
            models=self.node.passes._models,
            identity=self.node.passes._identity,
            passes=self.node.passes,
        )
        self.server = Server(self.path, operations, "no-such-user")
        self.thread = threading.Thread(target=self.server.serve)
        self.thread.start()

    def close(self):
        self.server.close()
        self.thread.join(5)
        assert not self.thread.is_alive()

    def ask(self, op, **fields):
        return call(self.path, op, timeout_s=10, **fields)

    def apply(self, value, key=cast.CONTROL):
        return self.ask("apply", bundle=value.canonical_bytes().decode(), signature=sign_bundle(value, key))

    def apply_raw(self, value):
        """Sign and apply a JSON value that the schema would not let us make."""
        data = canonical.encode(value)
        return self.ask("apply", bundle=data.decode(), signature=sign(cast.CONTROL, Purpose.BUNDLE, data))

    def send(self, data):
        """Send bytes over a fresh connection, hang up on our side, and return the replies."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(str(self.path))
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            with connection.makefile("rb") as stream:
                return [json.loads(line) for line in stream]


@pytest.fixture
def agent(tmp_path):
    running = Socket(tmp_path)
    yield running
    running.close()


def refusal(agent, ask):
    """Return the error of a refused request; the world and the memory must be as before."""
    before = (agent.node.world.state, agent.node.memory.accepted)
    with pytest.raises(RemoteError) as refused:
        ask()
    assert (agent.node.world.state, agent.node.memory.accepted) == before
    return refused.value


def device_change(**changes):
    def change(value):
        value["clients"][0]["devices"][1].update(changes)

    return change


def client_change(**changes):
    return lambda value: value["clients"][0].update(changes)


BAD_BUNDLES = {
    "another node": (lambda v: v.update(node="node-b"), "node"),
    "older epoch": (lambda v: v.update(epoch=1), "epoch"),
    "older generation": (lambda v: v.update(generation=4), "generation"),
    "same number, other bytes": (lambda v: v.update(generation=5, seats=7), "generation"),
    "unknown field": (lambda v: v.update(extra=1), "extra"),
    "unknown field of a device": (device_change(extra=1), "clients.0.devices.1.extra"),
    "all-zero key": (device_change(public_key=ZERO_KEY), "clients.0.devices.1.public_key"),
    "key of 31 bytes": (device_change(public_key="A" * 42 + "=="), "clients.0.devices.1.public_key"),
    "not canonical base64": (device_change(public_key="A" * 42 + "B="), "clients.0.devices.1.public_key"),
    "all-zero preshared key": (device_change(preshared_key=ZERO_KEY), "clients.0.devices.1.preshared_key"),
    "duplicate key": (device_change(public_key=key("acme", 0)), "clients.0.devices.1.public_key"),
    "another client's key": (device_change(public_key=key("bolt", 0)), "clients.1.devices.0.public_key"),
    "overlapping IPv4": (device_change(address4="10.86.0.2"), "clients.0.devices.1.address4"),
    "overlapping IPv6": (device_change(address6="fd86:5e:1::2"), "clients.0.devices.1.address6"),
    "the node's own address": (device_change(address4="10.86.0.1"), "clients.0.devices.1.address4"),
    "outside the network": (device_change(address4="10.87.0.2"), "clients.0.devices.1.address4"),
    "address with a zone": (device_change(address6="fd86:5e:1::7%x;y"), "clients.0.devices.1.address6"),
    "address of another form": (device_change(address6="fd86:5e:1::1:7"), "clients.0.devices.1.address6"),
    "client name with a path": (client_change(name="../acme"), "clients.0.name"),
    "client name with a shell": (client_change(name="acme;reboot"), "clients.0.name"),
    "client named twice": (client_change(name="bolt"), "clients.1.name"),
    "no such model": (client_change(models=["other"]), "clients.0.models.0"),
    "node address outside": (lambda v: v["tunnel"].update(address4="10.99.0.1"), "tunnel.address4"),
    "no chain": (lambda v: v.update(previous=None), "previous"),
}


@pytest.mark.parametrize("name", BAD_BUNDLES)
def test_a_bad_bundle_is_refused_with_its_field_and_the_node_keeps_its_state(agent, name):
    agent.apply(bundle(5, ACME, BOLT, epoch=2, previous="0" * 64))
    value = bundle(6, ACME, BOLT, epoch=2, previous="0" * 64).model_dump(mode="json")
    change, field = BAD_BUNDLES[name]
    change(value)
    error = refusal(agent, lambda: agent.apply_raw(value))
    assert (error.code, error.field) == ("bundle_refused", field)


def test_a_bundle_that_control_did_not_sign_is_refused(agent):
    error = refusal(agent, lambda: agent.apply(bundle(1, ACME), cast.IMPOSTOR))
    assert (error.code, error.field) == ("bundle_refused", "signature")


def test_a_bundle_in_a_second_spelling_is_refused_although_it_is_signed(agent):
    data = b" " + bundle(1, ACME).canonical_bytes()
    signature = sign(cast.CONTROL, Purpose.BUNDLE, data)
    error = refusal(agent, lambda: agent.ask("apply", bundle=data.decode(), signature=signature))
    assert error.code == "bundle_refused"


def test_a_revocation_signature_does_not_pass_for_a_bundle(agent):
    text = bundle(1, ACME).canonical_bytes().decode()
    signature = sign(cast.CONTROL, Purpose.REVOCATION, text.encode())
    error = refusal(agent, lambda: agent.ask("apply", bundle=text, signature=signature))
    assert error.field == "signature"


def test_plan_refuses_what_apply_refuses(agent):
    value = bundle(1, ACME)
    signature = sign_bundle(value, cast.IMPOSTOR)
    error = refusal(
        agent, lambda: agent.ask("plan", bundle=value.canonical_bytes().decode(), signature=signature)
    )
    assert error.field == "signature"


def test_plan_says_why_it_is_empty(agent):
    agent.apply(bundle(1, ACME))
    signed = cast.signed(bundle(1, ACME))
    answer = agent.ask("plan", bundle=signed.text, signature=signed.signature)
    assert answer == {"actions": [], "why_empty": "the node is what this bundle says"}


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"[]\n",
        b"{}\n",
        b'{"id":"1","op":"state"}\n',
        b'{"id":true,"op":"state"}\n',
        b'{"id":1,"op":"format"}\n',
        b'{"id":1,"op":"_apply"}\n',
        b'{"id":1,"op":["state"]}\n',
        b'{"id":1,"op":"state","extra":1}\n',
        b'{"id":1,"op":"apply","bundle":1,"signature":""}\n',
        b'{"id":1,"op":"receipts","after":true,"limit":1}\n',
        b'{"id":1,"op":"receipts","after":-1,"limit":1}\n',
        b'{"id":1,"op":"receipts","after":0,"limit":10001}\n',
        b'{"id":1,"op":"model","sha256":"../../etc/passwd","size":1}\n',
        b'{"id":1,"op":"model","sha256":"' + b"0" * 64 + b'","size":0}\n',
        b"\xff\xfe\n",
        b"[" * 100_000 + b"\n",
    ],
)
def test_what_the_protocol_does_not_know_is_refused_as_usage(agent, line):
    (reply,) = agent.send(line)
    assert reply["ok"] is False
    assert reply["error"]["code"] == "usage"
    assert agent.ask("state")["accepted"] is None


def test_replies_come_in_order_over_one_connection(agent):
    replies = agent.send(b'{"id":5,"op":"state"}\n{"id":3,"op":"nothing"}\n{"id":9,"op":"health"}\n')
    assert [(reply["id"], reply["ok"]) for reply in replies] == [(5, True), (3, False), (9, True)]


def model_request(data, size=None, digest=None):
    import hashlib

    sha256 = digest or hashlib.sha256(data).hexdigest()
    line = json.dumps({"id": 1, "op": "model", "sha256": sha256, "size": len(data) if size is None else size})
    return line.encode() + b"\n" + data


def test_a_model_is_stored_once_and_requests_go_on_after_its_bytes(agent):
    data = os.urandom(3_000_000)
    replies = agent.send(model_request(data) + model_request(data) + b'{"id":2,"op":"state"}\n')
    assert [reply["result"].get("stored") for reply in replies] == [True, False, None]
    (name,) = set(replies[2]["result"]["models"]) - {cast.PIN.files[0].sha256}
    assert (agent.node.paths.models / name).read_bytes() == data


def test_a_model_with_another_digest_is_not_stored(agent):
    before = os.listdir(agent.node.paths.models)
    replies = agent.send(model_request(b"some bytes", digest="1" * 64) + b'{"id":2,"op":"state"}\n')
    assert replies[0]["error"]["code"] == "pin_mismatch"
    assert replies[1]["ok"] is True
    assert os.listdir(agent.node.paths.models) == before


def test_a_model_that_ends_early_leaves_nothing(agent):
    before = os.listdir(agent.node.paths.models)
    (reply,) = agent.send(model_request(b"short", size=1_000_000))
    assert reply["error"]["code"] == "unavailable"
    assert os.listdir(agent.node.paths.models) == before


def test_a_model_that_does_not_fit_is_refused_before_its_bytes_are_read(agent):
    (reply,) = agent.send(model_request(b"", size=2**42))
    assert reply["error"]["code"] == "host"


def test_identity_holds_public_halves_alone(agent):
    identity = agent.ask("identity")
    assert set(identity) == {
        "node", "wireguard_public_key", "receipt_public_key", "tls_request", "boot", "appliance",
    }  # fmt: skip
    private = (agent.node.paths.keys / "wireguard.key").read_text().strip()
    assert private not in json.dumps(identity)
    assert "PRIVATE" not in identity["tls_request"]
    assert (agent.node.paths.keys / "wireguard.key").stat().st_mode & 0o777 == 0o600
    assert (agent.node.paths.keys / "tls.key").stat().st_mode & 0o777 == 0o600
    assert agent.ask("identity")["wireguard_public_key"] == identity["wireguard_public_key"]


def test_health_is_what_the_schema_says(agent):
    agent.apply(bundle(1, ACME))
    health = Health.parse(agent.ask("health"))
    assert health.accepted.generation == 1
    assert health.notary == NotaryHealth(up=True, records=7, sessions=2, waiting=3, bytes=9, max_bytes=10)
    assert health.memory.total_bytes > health.memory.available_bytes > 0
    assert 0 < health.disks[0].free_bytes < health.disks[0].total_bytes
    assert (health.tunnel.connected, health.tunnel.stale, health.tunnel.never_seen) == (0, 0, 2)


def test_health_goes_on_without_the_notary(agent):
    def away():
        raise UnavailableError("the notary does not answer")

    agent.node.world.notary.status = away
    notary = Health.parse(agent.ask("health")).notary
    assert notary == NotaryHealth(up=False, records=0, sessions=0, waiting=0, bytes=0, max_bytes=0)


def test_health_says_of_each_pinned_file_whether_its_bytes_are_the_pinned_ones(agent):
    def state():
        (model,) = Health.parse(agent.ask("health")).models
        return model.state

    def look():
        """What the agent's thread does after a boot, and every half minute."""
        ModelStore(agent.node.paths.models).hash_anew(lambda: False)

    agent.apply(bundle(1, ACME))
    assert state() == "reading"
    look()
    assert state() == "verified"
    file = agent.node.paths.models / cast.PIN.files[0].sha256
    file.write_bytes(cast.MODEL_BYTES[::-1])
    assert state() == "reading"
    look()
    assert state() == "failed"
    file.write_bytes(cast.MODEL_BYTES)
    look()
    assert state() == "verified"


def test_peers_are_told_without_the_times_of_their_handshakes(agent):
    agent.apply(bundle(1, ACME, BOLT))
    now = int(time.time())
    agent.node.world.handshakes = {key("acme", 0): now - 70, key("bolt", 0): now - 500}
    peers = Peers.parse(agent.ask("peers"))
    assert peers.connected == (Fresh(left_s=90, public_keys=(key("acme", 0),)),)
    assert peers.stale == (key("bolt", 0),)
    tunnel = Health.parse(agent.ask("health")).tunnel
    assert (tunnel.connected, tunnel.stale, tunnel.never_seen) == (1, 1, 1)


def test_health_does_not_wait_for_a_pass(agent):
    from netops import actions

    entered, go_on = threading.Event(), threading.Event()

    def hold():
        entered.set()
        go_on.wait(10)

    agent.node.world.before[actions.WriteRoutes] = hold
    applying = threading.Thread(target=agent.apply, args=(bundle(1, ACME),))
    applying.start()
    assert entered.wait(10)
    start = time.monotonic()
    agent.ask("health")
    assert time.monotonic() - start < 2
    go_on.set()
    applying.join(10)
