"""WireGuard's text formats, against recorded output of the real tool."""

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.errors import HostError
from netops.model import Peer
from netops.wireguard import parse_dump, render_peers
from tests.unit.netops import cast, golden

RECORDED = Path(__file__).parent / "recorded"


def recorded(name):
    return (RECORDED / f"dump-{name}.txt").read_text()


def test_a_dump_of_wireguard_go_is_read_with_every_field_that_is_compared():
    dump = parse_dump(recorded("wireguard-go"))
    assert dump.public_key == "sUC4FtavXuI6dNtfjpVQ1dGZ5NgtqlgWW1+OOhJrzVI="
    assert dump.listen_port == 51999
    first, second = (status.peer for status in dump.peers)
    assert first == Peer(
        "4BxLiT7ucrOP3hFrT51sCMgt1BBct+haB7pVKruNz2o=",
        "unE1S0CRSbQPYCjKNuyCXXHpBFzS8gmvYWBkIsIp39M=",
        frozenset({"10.0.0.2/32", "fd00::2/128"}),
        25,
    )
    assert (second.preshared_key, second.keepalive_s) == (None, 0)


def test_an_interface_without_key_and_peers_is_read():
    dump = parse_dump(recorded("fresh"))
    assert (dump.public_key, dump.listen_port, dump.peers) == (None, 0, ())


def test_a_handshake_and_a_peer_without_networks_are_read():
    (status,) = parse_dump(recorded("handshake")).peers
    assert status.handshake_at_s == 1795223887
    assert status.peer.allowed_ips == frozenset()


def test_the_private_key_is_not_kept():
    assert "kNteJyp9fvsWmTuBd6" not in repr(parse_dump(recorded("wireguard-go")))


@pytest.mark.parametrize("text", ["", "a\tb\n", "a\tb\tc\td\n", recorded("wireguard-go") + "x\ty\n"])
def test_what_is_no_dump_is_refused_without_quoting_it(text):
    with pytest.raises(HostError) as refused:
        parse_dump(text)
    assert "kNteJyp9" not in str(refused.value)


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text):
    with contextlib.suppress(HostError):
        parse_dump(text)


def test_peers_are_written_as_reviewed():
    peers = [
        Peer(d.public_key, d.preshared_key, frozenset({f"{d.address4}/32", f"{d.address6}/128"}))
        for d in cast.client("acme", 2, 2).devices
    ]
    golden.check("wg/two-devices/addconf.conf", render_peers(peers).decode())


def test_a_key_that_would_begin_another_line_is_not_written():
    bad = Peer("A" * 43 + "=\n[Peer]", None, frozenset({"10.0.0.2/32"}))
    with pytest.raises(HostError):
        render_peers([bad])
    with pytest.raises(HostError):
        render_peers([Peer(cast.public_key("a"), None, frozenset({"10.0.0.2/32\nEndpoint=1.2.3.4:5"}))])
