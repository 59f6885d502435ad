"""Laws of rendering: the same rows give the same bytes, and what is rendered is what nodes accept."""

from __future__ import annotations

import dataclasses
import random

from control_cast import manifest_for
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.bundle import Limits, Tunnel, sign_bundle, verify_bundle
from appliance.core.names import encode_base64
from appliance.core.receipt import pseudonym
from appliance.core.signing import public_text
from control.reconciler.render import ClientRow, DeviceRow, NodeRow, Rows, render_bundle, render_content

TUNNEL = Tunnel(
    listen_port=51820,
    address4="10.7.0.1",
    address6="fd00:7::1",
    network4="10.7.0.0/16",
    network6="fd00:7::/64",
)
PINS = tuple(manifest_for(name.encode(), name) for name in ("small", "large"))
KEY = Ed25519PrivateKey.generate()


def device(number: int) -> DeviceRow:
    raw = number.to_bytes(4, "big")
    return DeviceRow(
        name=f"d{number}",
        public_key=encode_base64(raw + b"p" * 28),
        preshared_key=encode_base64(raw + b"s" * 28),
        token_sha256=raw.hex() * 8,
        index=number,
    )


def rows(counts: list[int]) -> Rows:
    """One client for each count, with that many devices."""
    numbers = iter(range(2, 60_000))
    clients = tuple(
        ClientRow(
            name=f"c{n}",
            pseudonym_key=encode_base64(bytes([n + 1]) * 32),
            models=("small", "large"),
            limits=Limits(sessions=n + 1),
            devices=tuple(device(next(numbers)) for _ in range(count)),
        )
        for n, count in enumerate(counts)
    )
    return Rows(NodeRow("node-a", 2, TUNNEL, ""), PINS, clients)


def shuffled(value: Rows, seed: int) -> Rows:
    chance = random.Random(seed)

    def mix(items: tuple) -> tuple:
        return tuple(chance.sample(items, len(items)))

    clients = tuple(dataclasses.replace(c, devices=mix(c.devices)) for c in mix(value.clients))
    return dataclasses.replace(value, clients=clients, pins=mix(value.pins))


@given(counts=st.lists(st.integers(0, 4), max_size=6), seed=st.integers())
def test_the_same_rows_in_any_order_give_the_same_bytes(counts: list[int], seed: int) -> None:
    first = render_bundle(rows(counts), epoch=1, generation=3, previous="0" * 64)
    second = render_bundle(shuffled(rows(counts), seed), epoch=1, generation=3, previous="0" * 64)
    assert first.canonical_bytes() == second.canonical_bytes()


@given(counts=st.lists(st.integers(0, 4), max_size=6))
def test_what_is_rendered_is_accepted_by_a_node(counts: list[int]) -> None:
    bundle = render_bundle(rows(counts), epoch=1, generation=1, previous=None)
    accepted = verify_bundle(
        bundle.canonical_bytes(),
        sign_bundle(bundle, KEY),
        public_key=public_text(KEY),
        node="node-a",
        accepted=None,
    )
    assert accepted == bundle


def test_content_is_equal_when_only_the_numbers_differ() -> None:
    value = rows([2])
    assert render_content(value).digest == render_content(shuffled(value, 1)).digest
    renamed = dataclasses.replace(value, node=dataclasses.replace(value.node, seats=3))
    assert render_content(renamed).digest != render_content(value).digest


def test_a_client_without_a_pinned_model_is_left_out() -> None:
    value = dataclasses.replace(rows([1, 1]), pins=PINS[:1])
    bundle = render_bundle(value, epoch=1, generation=1, previous=None)
    assert [client.models for client in bundle.clients] == [("small",), ("small",)]
    none = render_bundle(dataclasses.replace(value, pins=()), epoch=1, generation=1, previous=None)
    assert none.clients == ()


def test_a_client_is_named_by_its_pseudonym_in_receipts() -> None:
    bundle = render_bundle(rows([0]), epoch=1, generation=1, previous=None)
    assert bundle.clients[0].pseudonym == pseudonym(bytes([1]) * 32, "c0")


def test_no_key_shows_when_rows_are_printed() -> None:
    value = rows([1])
    assert device(2).preshared_key not in repr(value)
    assert value.clients[0].pseudonym_key not in repr(value)
