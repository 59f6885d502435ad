"""What the verbs of clients and devices promise."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path
from typing import Any

import pytest
import wgconfig
from control_cast import new_public_key
from django.conf import settings
from hypothesis import given
from hypothesis import strategies as st

from appliance.client import wireguard_key
from appliance.client.folder import write
from appliance.core.bundle import Tunnel
from appliance.core.client_configuration import PRIVATE_KEY_PLACEHOLDER, ClientConfiguration
from appliance.core.errors import RefusedError, UnavailableError
from appliance.core.names import encode_base64
from appliance.core.sealed import unseal
from control.clients import services
from control.clients.addresses import device_addresses, next_index
from control.clients.enrolment import add_device, seal_context
from control.clients.models import Client, ClientState, Device, DeviceState
from control.clients.requests import NewClient, NewDevice
from control.config import WitnessConfig
from control.fleet.models import Node
from control.pins.models import ModelPin
from control.reconciler.keys import ReconcilerKeys


def add(name: str = "laptop", **changes: Any) -> ClientConfiguration:
    wanted = {"client": "acme", "name": name, "public_key": new_public_key(), **changes}
    return add_device(NewDevice.parse(wanted))


def test_a_device_takes_home_everything_it_needs(acme: Client, node: Node, pin: ModelPin) -> None:
    key = new_public_key()
    configuration = add(public_key=key)
    conf = wgconfig.WGConfig()
    conf.lines = configuration.wireguard_conf.splitlines()
    interface, peer = conf.get_interface(), conf.get_peer(node.wireguard_public_key)
    assert interface["PrivateKey"] == PRIVATE_KEY_PLACEHOLDER
    assert interface["Address"] == ["10.77.0.2/32", "fd00:77::2/128"]
    assert interface["MTU"] == 1420
    # Nothing but the node goes into the tunnel: a hostile node is no gateway to the client's traffic.
    assert peer["AllowedIPs"] == ["10.77.0.1/32", "fd00:77::1/128"]
    assert peer["Endpoint"] == "203.0.113.77:51820"
    assert peer["PersistentKeepalive"] == 25
    assert configuration.public_key == key
    assert configuration.base_url == "https://10.77.0.1/v1"
    assert configuration.pin_ids == (pin.pin_id,)
    assert configuration.pseudonym_key == acme.pseudonym_key
    assert ClientConfiguration.parse(json.loads(configuration.model_dump_json())) == configuration


def test_control_keeps_no_secret_that_the_web_process_can_read(acme: Client, keys: ReconcilerKeys) -> None:
    configuration = add()
    device = Device.objects.get()
    stored = json.dumps([str(value) for value in vars(device).values()])
    preshared = configuration.wireguard_conf.split("PresharedKey = ")[1].splitlines()[0]
    assert configuration.token not in stored
    assert preshared not in stored
    # Positive control: the reconciler, which has the key, can read it.
    opened = unseal(keys.seal, device.sealed_preshared_key, seal_context(device.public_key))
    assert opened.decode() == preshared


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"public_key": encode_base64(bytes(32))}, "public_key"),
        ({"public_key": encode_base64(b"k" * 31)}, "public_key"),
        ({"public_key": encode_base64(b"k" * 32)[:-1]}, "public_key"),
        ({"public_key": encode_base64(b"k" * 32)[:-2] + "t="}, "public_key"),
        ({"public_key": "no key"}, "public_key"),
        ({"public_key": 7}, "public_key"),
        ({"name": "../etc"}, "name"),
        ({"name": "a;b"}, "name"),
        ({"name": "Laptop"}, "name"),
        ({"name": "a" * 33}, "name"),
        ({"name": "a\n"}, "name"),
        ({"client": "nobody"}, "client"),
        ({"extra": 1}, "extra"),
    ],
)
def test_a_bad_device_is_refused_with_the_field_named(acme: Client, changes: Any, field: str) -> None:
    with pytest.raises(RefusedError) as refused:
        add(**changes)
    assert refused.value.field == field
    assert not Device.objects.exists()


def test_a_key_is_used_once_and_never_again(acme: Client, node: Node) -> None:
    key = new_public_key()
    add("first", public_key=key)
    with pytest.raises(RefusedError, match="public_key"):
        add("second", public_key=key)
    services.revoke_device(Device.objects.get())
    with pytest.raises(RefusedError, match="public_key"):
        add("third", public_key=key)
    with pytest.raises(RefusedError, match="public_key"):
        add("fourth", public_key=node.wireguard_public_key)


def test_the_configuration_names_the_log_s_keys_and_its_witnesses(
    acme: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    witnesses = tuple(WitnessConfig(url=f"https://w{n}.example", key=f"w{n}.example+key") for n in (1, 2))
    monkeypatch.setattr(settings, "CONFIG", settings.CONFIG.model_copy(update={"witnesses": witnesses}))
    key = tmp_path / "key"
    wireguard_key.generate(key)
    given = add("laptop", public_key=wireguard_key.public_key(key))
    folder = write(given, key, tmp_path / "client")
    assert folder.log_keys.read_text("utf-8") == settings.PATHS.log_keys.read_text("utf-8")
    assert folder.witness_keys.read_text("utf-8").split() == ["w1.example+key", "w2.example+key"]


def test_a_device_name_is_free_again_after_its_revocation(acme: Client) -> None:
    add("laptop")
    with pytest.raises(RefusedError, match="name"):
        add("laptop")
    services.revoke_device(services.find_device(acme, "laptop"))
    add("laptop")
    assert services.find_device(acme, "laptop").state == DeviceState.ACTIVE


def test_addresses_are_never_given_out_twice(acme: Client) -> None:
    seen = []
    for number in range(6):
        configuration = add(f"device-{number}")
        seen.append(configuration.wireguard_conf.split("Address = ")[1].splitlines()[0])
        services.revoke_device(services.find_device(acme, f"device-{number}"))
    assert len(set(seen)) == 6


def test_a_full_network_is_refused_and_nothing_is_stored(acme: Client, node: Node) -> None:
    Node.objects.filter(pk=node.pk).update(network4="10.77.0.0/30")
    add("one")
    with pytest.raises(RefusedError, match="no address left"):
        add("two")
    assert Device.objects.count() == 1


def test_a_device_waits_until_the_node_was_met(acme: Client, node: Node) -> None:
    Node.objects.filter(pk=node.pk).update(receipt_public_key="")
    with pytest.raises(UnavailableError):
        add()


def test_a_revoked_client_stays_revoked(acme: Client) -> None:
    add()
    services.suspend_client(acme)
    services.resume_client(acme)
    assert acme.state == ClientState.ACTIVE
    services.revoke_client(acme)
    services.revoke_client(acme)
    assert Device.objects.get().state == DeviceState.REVOKED
    for verb in (services.suspend_client, services.resume_client):
        with pytest.raises(RefusedError, match="for good"):
            verb(acme)
    with pytest.raises(RefusedError, match="name"):
        services.create_client(NewClient(name="acme"))
    with pytest.raises(RefusedError, match="client"):
        add("another")


def test_a_client_needs_a_model_and_a_home(db: None, pin: ModelPin) -> None:
    with pytest.raises(RefusedError, match="node"):
        services.create_client(NewClient(name="acme"))
    assert not Client.objects.exists()


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"name": "bolt", "models": ["unknown"]}, "models.0"),
        ({"name": "bolt", "models": ["tiny", "tiny"]}, "models.1"),
        ({"name": "bolt", "models": []}, "models"),
        ({"name": "bolt", "limits": {"sessions": 0}}, "limits.sessions"),
        ({"name": "bolt", "limits": {"sessions": 1.5}}, "limits.sessions"),
        ({"name": "bolt", "node": "elsewhere"}, "node"),
        ({"name": "acme"}, "name"),
    ],
)
def test_a_bad_client_is_refused_with_the_field_named(acme: Client, wanted: Any, field: str) -> None:
    with pytest.raises(RefusedError) as refused:
        services.create_client(NewClient.parse(wanted))
    assert refused.value.field == field


@given(index=st.integers(1, 65_534))
def test_both_addresses_of_a_device_come_from_its_index(index: int) -> None:
    tunnel = Tunnel(
        listen_port=51820,
        address4="10.7.0.1",
        address6="fd00:7::1",
        network4="10.7.0.0/16",
        network6="fd00:7::/64",
    )
    four, six = device_addresses(tunnel, index)
    assert int(ipaddress.IPv4Address(four)) - int(ipaddress.IPv4Address("10.7.0.0")) == index
    assert int(ipaddress.IPv6Address(six)) - int(ipaddress.IPv6Address("fd00:7::")) == index
    assert next_index(0, tunnel) == 2  # 1 is the node itself


def test_the_public_material_is_all_that_enrolment_reads() -> None:
    assert settings.PATHS.seal_public.parent == settings.PATHS.public
    assert settings.PATHS.keyring.parent == settings.PATHS.public
    assert settings.PATHS.ca_certificate.parent == settings.PATHS.public
