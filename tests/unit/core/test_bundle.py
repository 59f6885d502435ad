"""What a node refuses to apply, and that each refusal names its field."""

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.core import bundle as b
from appliance.core import canonical, signing
from appliance.core.errors import BundleError

KEY = Ed25519PrivateKey.generate()
PUBLIC = signing.public_text(KEY)
DIGEST = "ab" * 32


def key32(n: int) -> str:
    return base64.b64encode(bytes([n]) * 32).decode()


def device(n: int, **changes):
    value = {
        "name": f"device-{n}",
        "public_key": key32(n),
        "preshared_key": key32(200),
        "address4": f"10.86.0.{n}",
        "address6": f"fd86:5e:1::{n:x}",
        "token_sha256": DIGEST,
    }
    return value | changes


def pin():
    return {
        "v": 1,
        "name": "tiny",
        "version": "1.0",
        "files": [{"path": "tiny.gguf", "size": 10, "sha256": DIGEST}],
        "chat_template": "{{ messages }}",
        "stop": [],
        "tool_calls": None,
        "launch": {"context_tokens": 2048, "max_sessions": 4, "batch_tokens": 512},
        "runtime": {"llama_cpp_python": "0.3.36"},
        "licence": "Apache-2.0",
        "source": "made here",
    }


def client(name="acme", devices=None, **changes):
    value = {
        "name": name,
        "pseudonym": DIGEST,
        "models": ["tiny"],
        "aliases": [{"alias": "chat", "model": "tiny"}],
        "limits": b.Limits().model_dump(),
        "devices": [device(2)] if devices is None else devices,
    }
    return value | changes


def bundle(**changes):
    value = {
        "v": 1,
        "node": "node-a",
        "epoch": 1,
        "generation": 3,
        "previous": DIGEST,
        "seats": 2,
        "tunnel": {
            "listen_port": 51820,
            "address4": "10.86.0.1",
            "address6": "fd86:5e:1::1",
            "network4": "10.86.0.0/16",
            "network6": "fd86:5e:1::/64",
            "mtu": 1420,
        },
        "tls": None,
        "pins": [pin()],
        "clients": [client()],
    }
    return value | changes


def verify(value, accepted=None, key=KEY, node="node-a", purpose=signing.Purpose.BUNDLE):
    data = canonical.encode(value)
    return b.verify_bundle(
        data, signing.sign(key, purpose, data), public_key=PUBLIC, node=node, accepted=accepted
    )


def accepted(epoch=1, generation=3, digest=DIGEST):
    return b.Accepted(epoch=epoch, generation=generation, digest=digest)


def test_a_proper_bundle_is_accepted():
    assert verify(bundle(), accepted(generation=2)).generation == 3


def test_the_same_bundle_again_is_accepted():
    first = verify(bundle())
    assert verify(bundle(), accepted(digest=first.digest)) == first


CASES = {
    "another node": (bundle(node="node-b"), None, "node"),
    "older epoch": (bundle(), accepted(epoch=2, generation=1), "epoch"),
    "older generation": (bundle(), accepted(generation=4), "generation"),
    "same generation, other bytes": (bundle(), accepted(), "generation"),
    "alias of another's model": (
        bundle(clients=[client(aliases=[{"alias": "chat", "model": "other"}])]),
        None,
        "clients.0.aliases.0.model",
    ),
    "the same alias twice": (
        bundle(clients=[client(aliases=[{"alias": "chat", "model": "tiny"}] * 2)]),
        None,
        "clients.0.aliases.1.alias",
    ),
    "no previous": (bundle(previous=None), accepted(generation=2), "previous"),
    "unknown field": (bundle(extra=1), None, "extra"),
    "unknown field deep": (
        bundle(clients=[client(devices=[device(2, extra=1)])]),
        None,
        "clients.0.devices.0.extra",
    ),
    "zero key": (
        bundle(clients=[client(devices=[device(2, public_key=key32(0))])]),
        None,
        "clients.0.devices.0.public_key",
    ),
    "short key": (
        bundle(clients=[client(devices=[device(2, public_key="AAAA")])]),
        None,
        "clients.0.devices.0.public_key",
    ),
    "key twice": (
        bundle(clients=[client(devices=[device(2), device(3, public_key=key32(2))])]),
        None,
        "clients.0.devices.1.public_key",
    ),
    "address twice": (
        bundle(
            clients=[client(devices=[device(2)]), client("bolt", devices=[device(3, address4="10.86.0.2")])]
        ),
        None,
        "clients.1.devices.0.address4",
    ),
    "the node's address": (
        bundle(clients=[client(devices=[device(2, address4="10.86.0.1")])]),
        None,
        "clients.0.devices.0.address4",
    ),
    "outside the network": (
        bundle(clients=[client(devices=[device(2, address4="10.87.0.2")])]),
        None,
        "clients.0.devices.0.address4",
    ),
    "second spelling of an address": (
        bundle(clients=[client(devices=[device(2, address6="fd86:5e:1:0::2")])]),
        None,
        "clients.0.devices.0.address6",
    ),
    "unpinned model": (bundle(clients=[client(models=["other"])]), None, "clients.0.models.0"),
    "client twice": (bundle(clients=[client(), client(devices=[])]), None, "clients.1.name"),
    "boolean as number": (bundle(seats=True), None, "seats"),
    "text as number": (bundle(seats="2"), None, "seats"),
    **{
        f"client name {name!r}": (bundle(clients=[client(name)]), None, "clients.0.name")
        for name in ("", "../etc", "a b", "a;b", "$(id)", "A", "a" * 33, "-a", "a\n", "a/b", "a\0")
    },
}


@pytest.mark.parametrize(("value", "before", "field"), CASES.values(), ids=CASES.keys())
def test_a_bad_bundle_is_refused_naming_its_field(value, before, field):
    with pytest.raises(BundleError) as refused:
        verify(value, before)
    assert refused.value.field == field


def test_non_canonical_base64_is_refused():
    # The last character before the padding carries two bits that must be zero; any other value is a second spelling.
    text = key32(2)
    other = text[:-2] + chr(ord(text[-2]) + 1) + "="
    with pytest.raises(BundleError) as refused:
        verify(bundle(clients=[client(devices=[device(2, public_key=other)])]))
    assert refused.value.field == "clients.0.devices.0.public_key"


def test_a_foreign_signature_is_refused():
    with pytest.raises(BundleError) as refused:
        verify(bundle(), key=Ed25519PrivateKey.generate())
    assert refused.value.field == "signature"


def test_a_signature_for_another_purpose_is_refused():
    with pytest.raises(BundleError) as refused:
        verify(bundle(), purpose=signing.Purpose.RECEIPT)
    assert refused.value.field == "signature"


def test_a_second_spelling_of_the_bundle_is_refused_though_signed():
    data = json.dumps(bundle()).encode()
    with pytest.raises(BundleError):
        b.verify_bundle(
            data,
            signing.sign(KEY, signing.Purpose.BUNDLE, data),
            public_key=PUBLIC,
            node="node-a",
            accepted=None,
        )


def test_refusals_never_quote_the_value():
    with pytest.raises(BundleError) as refused:
        verify(bundle(clients=[client(devices=[device(2, token_sha256="kanarie")])]))
    assert "kanarie" not in str(refused.value)


def revocation(**changes):
    value = {"v": 1, "node": "node-a", "epoch": 1, "generation": 3, "public_keys": [key32(2)], "clients": []}
    return value | changes


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (revocation(node="node-b"), "node"),
        (revocation(epoch=2), "epoch"),
        (revocation(generation=2), "generation"),
        (revocation(extra=1), "extra"),
        (revocation(clients=["../x"]), "clients.0"),
    ],
)
def test_a_bad_revocation_is_refused_naming_its_field(value, field):
    data = canonical.encode(value)
    signature = signing.sign(KEY, signing.Purpose.REVOCATION, data)
    with pytest.raises(BundleError) as refused:
        b.verify_revocation(data, signature, public_key=PUBLIC, node="node-a", accepted=accepted())
    assert refused.value.field == field


def grant(**changes):
    value = {"v": 1, "node": "node-a", "epoch": 1, "generation": 3, "clients": [client(devices=[device(9)])]}
    return value | changes


def verify_grant(value, purpose=signing.Purpose.GRANT):
    data = canonical.encode(value)
    signature = signing.sign(KEY, purpose, data)
    return b.verify_grant(data, signature, public_key=PUBLIC, node="node-a", accepted=accepted())


def test_a_proper_grant_is_accepted():
    assert verify_grant(grant()).clients[0].devices[0].name == device(9)["name"]


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (grant(node="node-b"), "node"),
        (grant(epoch=2), "epoch"),
        (grant(generation=2), "generation"),
        (grant(extra=1), "extra"),
        (grant(clients=[]), "clients"),
    ],
)
def test_a_bad_grant_is_refused_naming_its_field(value, field):
    with pytest.raises(BundleError) as refused:
        verify_grant(value)
    assert refused.value.field == field


@pytest.mark.parametrize("purpose", [signing.Purpose.BUNDLE, signing.Purpose.REVOCATION])
def test_a_signature_for_another_purpose_grants_nothing(purpose):
    with pytest.raises(BundleError) as refused:
        verify_grant(grant(), purpose)
    assert refused.value.field == "signature"


def guest(n: int, **changes):
    value = {
        "public_key": key32(n),
        "preshared_key": key32(201),
        "address4": f"10.86.0.{n}",
        "address6": f"fd86:5e:1::{n:x}",
        "secret_sha256": f"{n:064x}",
        "expires_at": 2_000_000_000,
        "answer": None,
    }
    return value | changes


def test_guests_come_and_are_left_out_where_there_are_none():
    with_guest = b.Bundle.parse(bundle(guests=[guest(9)]))
    assert b.Bundle.parse_canonical(with_guest.canonical_bytes()) == with_guest
    without = b.Bundle.parse(bundle())
    assert b"guests" not in without.canonical_bytes(), "nodes from before there were any accept it"
    assert b.Bundle.parse_canonical(without.canonical_bytes()).guests == ()


def test_an_empty_list_of_guests_is_a_second_spelling():
    data = canonical.encode(b.Bundle.parse(bundle()).model_dump(mode="json") | {"guests": []})
    with pytest.raises(BundleError):
        b.Bundle.parse_canonical(data, BundleError)


@pytest.mark.parametrize(
    ("guests", "field"),
    [
        ([guest(9, public_key=key32(2))], "guests.0.public_key"),
        ([guest(9, address4="10.86.0.2")], "guests.0.address4"),
        ([guest(9, address6="fd86:5e:1::1")], "guests.0.address6"),
        ([guest(9, address4="10.87.0.9")], "guests.0.address4"),
        ([guest(9), guest(10, secret_sha256=guest(9)["secret_sha256"])], "guests.1.secret_sha256"),
        ([guest(9, answer="no box")], "guests.0.answer"),
        ([guest(9, expires_at=-1)], "guests.0.expires_at"),
        ([guest(9, name="x")], "guests.0.name"),
    ],
)
def test_a_guest_that_is_not_its_own_is_refused_with_the_field_named(guests, field):
    data = canonical.encode(bundle(guests=guests))
    signature = signing.sign(KEY, signing.Purpose.BUNDLE, data)
    with pytest.raises(BundleError) as refused:
        b.verify_bundle(data, signature, public_key=PUBLIC, node="node-a", accepted=None)
    assert refused.value.field == field
