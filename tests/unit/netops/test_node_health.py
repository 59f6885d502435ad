"""What the agent reads off the machine, against the machine itself."""

import ctypes
import os
import socket
import struct

import pytest

from appliance.core.node import NodePaths
from netops.agent.health import is_confined, observe_host, sort_peers, waiting_connections
from netops.agent.rate import TokenRate
from netops.model import Peer
from netops.wireguard import PeerStatus

NOW = 1_000_000
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, SECCOMP_RET_ALLOW = 38, 22, 2, 0x7FFF0000


def status(name, age_s):
    return PeerStatus(Peer(name, None, frozenset()), 0 if age_s is None else NOW - age_s)


def test_a_peer_is_connected_until_its_session_is_dead_and_then_stale():
    peers = [
        status("new", 0),
        status("old", 179),
        status("dead", 180),
        status("none", None),
        status("ahead", -5),
    ]
    assert sort_peers(peers, NOW) == {
        "connected": [
            {"left_s": 0, "public_keys": ["old"]},
            {"left_s": 180, "public_keys": ["ahead", "new"]},
        ],
        "stale": ["dead"],
    }


@pytest.mark.parametrize("age_s", range(0, 180, 7))
def test_nobody_is_called_connected_for_longer_than_three_minutes(age_s):
    (fresh,) = sort_peers([status("one", age_s)], NOW)["connected"]
    assert age_s + fresh["left_s"] <= 180
    assert fresh["left_s"] % 30 == 0


def test_connections_are_counted_until_a_cell_takes_them(tmp_path):
    clients = tmp_path / "clients"
    (clients / "acme").mkdir(parents=True)
    (clients / "other.d").mkdir()
    with socket.socket(socket.AF_UNIX) as cell, socket.socket(socket.AF_UNIX) as other:
        for listener, path in ((cell, "acme/http.sock"), (other, "other.d/notary.sock")):
            listener.bind(str(clients / path))
            listener.listen()
        assert waiting_connections(clients) == 0
        callers = [socket.socket(socket.AF_UNIX) for _ in range(4)]
        for caller in callers[:3]:
            caller.connect(str(clients / "acme/http.sock"))
        callers[3].connect(str(clients / "other.d/notary.sock"))
        assert waiting_connections(clients) == 3
        taken, _ = cell.accept()
        assert waiting_connections(clients) == 2
        for connection in (taken, *callers):
            connection.close()


def confine_like_a_cell():
    """Give up what root has, then take a filter that allows everything: the kernel shows the same facts as of a cell."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
    libc = ctypes.CDLL(None, use_errno=True)
    allow = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, SECCOMP_RET_ALLOW))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", 1, ctypes.addressof(allow)))
    assert libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    assert libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0) == 0


@pytest.mark.parametrize("confined", [True, False])
def test_a_cell_counts_as_confined_only_if_the_kernel_shows_it(confined):
    told, tell = os.pipe()
    go, end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(end)
        try:
            if confined:
                confine_like_a_cell()
            os.write(tell, b"1")
            os.read(go, 1)
        finally:
            os._exit(0)
    try:
        assert os.read(told, 1) == b"1"
        assert is_confined(child) is confined
    finally:
        for descriptor in (end, go, told, tell):
            os.close(descriptor)
        os.waitpid(child, 0)
    assert is_confined(child) is False


def test_each_file_system_is_told_once(tmp_path):
    paths = NodePaths(tmp_path)
    paths.models.mkdir(parents=True)
    disks = observe_host(paths)["disks"]
    assert [disk["name"] for disk in disks] == ["root"]
    assert 0 < disks[0]["free_bytes"] <= disks[0]["total_bytes"]


def test_a_rate_needs_a_minute_and_is_coarse():
    rate = TokenRate()
    assert rate.note(0, 0.0) == 0
    assert rate.note(590, 59.0) == 0
    assert rate.note(1234, 61.0) == 20
    assert rate.note(1234, 3000.0) == 0


def test_a_rate_begins_anew_with_the_notary():
    rate = TokenRate()
    rate.note(1_000_000, 0.0)
    assert rate.note(10, 100.0) == 0
    assert rate.note(1010, 200.0) == 10


def test_a_rate_looks_back_five_minutes_and_no_further():
    rate = TokenRate()
    rates = [rate.note(100 * 30 * min(step, 10), 30.0 * step) for step in range(40)]
    assert max(rates) == 100
    assert rates[-1] == 0
