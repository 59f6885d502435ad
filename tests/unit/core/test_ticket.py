"""A ticket says one thing in one spelling, and whoever mistypes it is told so."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.errors import RefusedError, UsageError
from appliance.core.names import encode_base64
from appliance.core.ticket import PREFIX, Ticket, TicketKeys
from control.authority import make_ca_certificate

CA = make_ca_certificate(ec.generate_private_key(ec.SECP256R1()))


def ticket(**changes: object) -> Ticket:
    fields: dict[str, object] = {
        "client": "acme",
        "device": "laptop",
        "approval": False,
        "expires_at": 1_800_000_000,
        "secret": encode_base64(b"s" * 32),
        "endpoint": "203.0.113.10:51820",
        "node_public_key": encode_base64(b"n" * 32),
        "node4": "10.86.0.1",
        "node6": "fd86:5e:1::1",
        "address4": "10.86.0.9",
        "address6": "fd86:5e:1::9",
        "mtu": 1420,
        "ca_pem": CA,
    }
    return Ticket.parse({**fields, **changes})


KEYS = st.binary(min_size=32, max_size=32).filter(any).map(encode_base64)
NAMES = st.from_regex(r"[a-z][a-z0-9]{0,14}(-[a-z0-9]{1,8}){0,2}", fullmatch=True)


@given(
    client=NAMES,
    device=NAMES,
    approval=st.booleans(),
    expires_at=st.integers(0, 2**32 - 1),
    secret=KEYS,
    endpoint=st.sampled_from(["203.0.113.10:51820", "[2001:db8::10]:1", "192.0.2.1:65535"]),
    node_public_key=KEYS,
    address4=st.ip_addresses(v=4).map(str),
    address6=st.ip_addresses(v=6).map(str),
    mtu=st.integers(1280, 9000),
)
def test_what_is_written_is_read_and_is_one_url_safe_line(**fields: object) -> None:
    written = ticket(**fields)
    text = written.render()
    assert Ticket.read(text) == written
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
    assert len(text) < 1000, "a QR code that a telephone reads from a screen"


def test_white_space_that_a_mail_program_put_there_does_not_count() -> None:
    text = ticket().render()
    lines = "\n ".join(text[start : start + 70] for start in range(0, len(text), 70))
    assert Ticket.read(f"\t{lines}\r\n") == ticket()


@given(st.data())
def test_a_typo_is_named_as_one(data: st.DataObject) -> None:
    text = ticket().render()
    place = data.draw(st.integers(len(PREFIX), len(text) - 1))
    other = data.draw(st.sampled_from("ABCXYZabcxyz0189_-").filter(lambda letter: letter != text[place]))
    with pytest.raises(UsageError, match="mistyped or cut short"):
        Ticket.read(text[:place] + other + text[place + 1 :])


@pytest.mark.parametrize(
    "change", [lambda t: t[:-1], lambda t: t[:40], lambda t: t + "A", lambda t: t + "!", lambda t: t + t]
)
def test_a_line_that_is_not_whole_is_named_as_such(change: object) -> None:
    with pytest.raises(UsageError, match="mistyped or cut short"):
        Ticket.read(change(ticket().render()))  # type: ignore[operator]


@pytest.mark.parametrize("text", ["", "hello", "sai2_AAAA", "https://example.org/", "sa_" + "A" * 43])
def test_what_is_no_invitation_is_named_as_such(text: str) -> None:
    with pytest.raises(UsageError, match="not an invitation"):
        Ticket.read(text)


@given(st.binary(max_size=300))
def test_bytes_under_a_right_checksum_are_refused_and_never_crash(body: bytes) -> None:
    raw = body + hashlib.sha256(body).digest()[:4]
    text = PREFIX + base64.urlsafe_b64encode(raw).decode().rstrip("=")
    with pytest.raises(RefusedError):
        Ticket.read(text)


def test_a_second_spelling_is_refused() -> None:
    """A flag that is 2 is true as well; and the checksum is right."""
    raw = base64.urlsafe_b64decode(ticket(approval=True).render().removeprefix(PREFIX) + "==")
    body = b"\2" + raw[1:-4]
    forged = PREFIX + base64.urlsafe_b64encode(body + hashlib.sha256(body).digest()[:4]).decode().rstrip("=")
    with pytest.raises(RefusedError, match="second spelling"):
        Ticket.read(forged)


def test_the_secrets_of_an_exchange_are_four_and_the_throw_away_key_is_wireguards() -> None:
    keys = TicketKeys.derive(b"s" * 32)
    assert (
        len({keys.private_key, keys.preshared_key, keys.box, base64.urlsafe_b64decode(keys.redeem + "=")})
        == 4
    )
    assert keys == TicketKeys.derive(b"s" * 32)
    assert keys.box != TicketKeys.derive(b"t" * 32).box
    assert keys.private_key[0] & 7 == 0
    assert keys.private_key[31] >> 6 == 1
    public = X25519PrivateKey.from_private_bytes(keys.private_key).public_key().public_bytes_raw()
    assert keys.public_key == encode_base64(public)
    assert keys.redeem not in repr(keys)


def test_the_secrets_are_those_of_the_specification() -> None:
    text = (Path(__file__).parents[3] / "docs/spec/enrolment-v1.md").read_text("utf-8")
    keys = TicketKeys.derive(bytes(range(32)))
    derived = (keys.public_key, encode_base64(keys.preshared_key), keys.redeem, keys.redeem_sha256)
    for value in (*derived, encode_base64(keys.box)):
        assert f"| `{value}` |" in text
