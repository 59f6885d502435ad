"""The firewall's text. That it means what it says is tested with real packets in tests/lab/test_netops.py."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.errors import HostError
from netops import nftables
from tests.unit.netops import cast, golden

ELEMENTS = {"peers4": ("10.86.0.2",), "peers6": ("fd86:5e:1::2",), "guests4": ("10.86.0.9",)}


def test_the_table_before_any_bundle_is_as_reviewed():
    golden.check("nft/closed/rules.nft", nftables.render_rules(cast.settings(), None))


def test_the_table_of_a_bundle_is_as_reviewed():
    golden.check("nft/serving/rules.nft", nftables.render_rules(cast.settings(), cast.TUNNEL))


def test_the_table_with_control_over_ipv6_and_a_router_is_as_reviewed():
    settings = cast.settings(control_addresses=("fd00:99::1",), outer_neighbours=("fe80::1",))
    golden.check("nft/ipv6-management/rules.nft", nftables.render_rules(settings, cast.TUNNEL))


def test_the_load_is_one_transaction_that_names_our_table_alone():
    text = nftables.render_load("table inet appliance {\n}\n", ELEMENTS).decode()
    golden.check("nft/load/load.nft", text)
    assert "flush" not in text
    assert set(re.findall(r"(?:table|element) (\w+ \w+)", text)) == {"inet appliance"}


@pytest.mark.parametrize("tunnel", [None, cast.TUNNEL])
def test_every_chain_that_decides_drops_by_default(tunnel):
    rules = nftables.render_rules(cast.settings(), tunnel)
    assert len(re.findall(r"hook (?:input|forward|output) priority filter; policy drop;", rules)) == 3


@pytest.mark.parametrize("tunnel", [None, cast.TUNNEL])
def test_no_rule_lets_the_node_open_a_connection(tunnel):
    """P7: what leaves is an answer, lo, or WireGuard's own datagrams."""
    rules = nftables.render_rules(cast.settings(), tunnel)
    output = rules[rules.index("chain output") :]
    leaving = [line.strip() for line in output.splitlines() if line.strip().startswith("oifname")]
    for line in leaving:
        assert "ct state established" in line or line == 'oifname "lo" accept' or "udp sport 51820" in line


def test_deleting_an_element_that_is_not_there_cannot_fail():
    lines = nftables.render_delete({"peers4": ("10.86.0.2",)}).decode().splitlines()
    assert [line.split()[0] for line in lines] == ["add", "delete"]


def test_nothing_to_change_is_no_transaction():
    assert nftables.render_add({}) == b""


@given(st.text())
def test_text_that_is_no_address_never_reaches_nft(text):
    try:
        rendered = nftables.render_add({"peers4": (text,)})
    except ValueError:
        return
    assert re.fullmatch(rb"add element inet appliance peers4 \{ [0-9a-f.:]+ \}\n", rendered)


def test_the_elements_of_a_listing_are_read():
    listing = (
        b'{"nftables": [{"metainfo": {}}, {"set": {"name": "peers4", "elem": ["10.86.0.2", "10.86.0.3"]}},'
        b' {"set": {"name": "peers6"}}]}'
    )
    assert nftables.parse_sets(listing) == {"peers4": {"10.86.0.2", "10.86.0.3"}, "peers6": frozenset()}
    assert nftables.parse_sets(b'{"nftables": []}') == {}


@pytest.mark.parametrize("listing", [b"", b"{}", b"[]", b'{"nftables": [{"set": 1}]}'])
def test_what_is_no_listing_is_refused(listing):
    with pytest.raises(HostError):
        nftables.parse_sets(listing)
