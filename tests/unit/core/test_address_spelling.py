"""An address has one spelling, whoever computes it."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.names import is_canonical_address, packed

# Groups of zeros, and the ranges in which an IPv4 address may be written inside.
_groups = st.lists(st.sampled_from([0, 0, 0, 1, 0xFFFF]) | st.integers(0, 0xFFFF), min_size=8, max_size=8)
_embedded = st.integers(0, 2**32 - 1).map(lambda low: (0xFFFF << 32) | low) | st.integers(0, 2**32 - 1)


def _value(groups: list[int]) -> int:
    return sum(group << 16 * place for place, group in enumerate(groups))


@given(_groups.map(_value) | _embedded | st.integers(0, 2**128 - 1))
def test_the_c_library_and_ipaddress_agree_on_ipv6(value: int) -> None:
    address = ipaddress.IPv6Address(value)

    assert is_canonical_address(str(address))
    assert packed(str(address)) == address.packed
    assert not is_canonical_address(address.exploded) or address.exploded == str(address)
    assert not is_canonical_address(str(address).upper()) or str(address).upper() == str(address)


@given(st.integers(0, 2**32 - 1))
def test_they_agree_on_ipv4(value: int) -> None:
    address = ipaddress.IPv4Address(value)

    assert is_canonical_address(str(address))
    assert packed(str(address)) == address.packed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1.2.3",
        "1.2.3.4.5",
        "01.2.3.4",
        "1.2.3.4 ",
        "1.2.3.4\0",
        "::g",
        "fe80::1%eth0",
        ":::",
        "1::2::3",
        "\ud800",
        "1.2.3.4/32",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        is_canonical_address(text)


@pytest.mark.parametrize(
    "text", ["::ffff:1.2.3.4", "::1.2.3.4", "2001:db8:0:0:0:0:0:1", "2001:DB8::1", "0::1"]
)
def test_another_spelling_is_not_the_canonical_one(text: str) -> None:
    assert not is_canonical_address(text)
