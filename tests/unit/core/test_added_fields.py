"""Fields that came to the bundle later: who does not use them says and signs what was said before."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.bundle import Bundle, Client, Device, Limits
from appliance.core.canonical import encode
from appliance.core.errors import BundleError
from appliance.core.policy import Policy, render_policy
from tests.unit.netops import cast

LIMITS = ("context_tokens", "requests_per_day", "requests_per_minute", "tokens_per_day", "tokens_per_minute")
# What a bundle of before said of a client's limits and devices, field by field.
BEFORE = {
    Limits: "answer_tokens body_bytes cell_idle_s guess_in_streams session_idle_s session_max_s sessions share_prefixes",
    Device: "address4 address6 name preshared_key public_key token_sha256",
    Client: "devices limits models name pseudonym",
}


def test_a_bundle_that_uses_nothing_new_has_the_bytes_it_had_before() -> None:
    said = json.loads(cast.bundle().canonical_bytes())
    client = said["clients"][0]
    for part, schema in ((client, Client), (client["limits"], Limits), (client["devices"][0], Device)):
        assert sorted(part) == BEFORE[schema].split()
    assert Bundle.parse_canonical(encode(said), BundleError) == cast.bundle()


@pytest.mark.parametrize("place", ["limits", "device", "client"])
def test_a_field_that_says_nothing_is_left_out_and_null_is_a_second_spelling(place: str) -> None:
    said = json.loads(cast.bundle().canonical_bytes())
    client = said["clients"][0]
    part = {"limits": client["limits"], "device": client["devices"][0], "client": client}[place]
    part["tokens_per_day" if place == "limits" else "expires_at"] = None
    with pytest.raises(BundleError, match="second spelling"):
        Bundle.parse_canonical(encode(said), BundleError)
    part["tokens_per_day" if place == "limits" else "expires_at"] = 7  # the positive control
    assert Bundle.parse_canonical(encode(said), BundleError).canonical_bytes() == encode(said)


@given(
    st.dictionaries(st.sampled_from(LIMITS), st.integers(1, 10**12)),
    st.none() | st.integers(1, 253_402_300_799),
    st.none() | st.integers(1, 253_402_300_799),
)
def test_what_is_said_reaches_the_cell_in_one_spelling(
    limits: dict[str, int], client_ends: int | None, device_ends: int | None
) -> None:
    client = cast.client("acme", 2, 1)
    device = client.devices[0].model_copy(update={"expires_at": device_ends})
    client = client.model_copy(
        update={"limits": Limits(**limits), "expires_at": client_ends, "devices": (device,)}
    )
    bundle = cast.bundle(1, client)
    assert Bundle.parse_canonical(bundle.canonical_bytes()) == bundle
    policy = render_policy(bundle, client)
    assert Policy.parse_canonical(policy.canonical_bytes()) == policy
    assert (policy.expires_at, policy.devices[0].expires_at) == (client_ends, device_ends)
    assert policy.limits.model_dump(exclude_none=True).items() >= limits.items()


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("value", [0, -1, 10**12 + 1, 1.0, True, "1"])
def test_a_limit_out_of_its_bounds_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(BundleError) as refused:
        Limits.parse({name: value}, BundleError)
    assert refused.value.field == name


def test_a_device_whose_key_is_being_replaced_is_there_twice() -> None:
    from appliance.core import signing
    from appliance.core.bundle import sign_bundle, verify_bundle

    client = cast.client("acme", 2, 2)
    both = tuple(device.model_copy(update={"name": "laptop"}) for device in client.devices)
    bundle = cast.bundle(1, client.model_copy(update={"devices": both}))
    data, signature = bundle.canonical_bytes(), sign_bundle(bundle, cast.CONTROL)
    public_key = signing.public_text(cast.CONTROL)
    assert verify_bundle(data, signature, public_key=public_key, node="node-a", accepted=None) == bundle
