"""A throw-away peer gets the mailbox and nothing else, and goes as fast as a device."""

from __future__ import annotations

from appliance.core.node import NodePaths
from netops import actions
from netops.agent.memory import difference
from netops.cut import plan_cut
from netops.desired import prune, render_state
from netops.mailbox.roster import parse_roster
from netops.nftables import render_rules
from netops.plan import plan
from tests.unit.netops import cast

GUEST = cast.guest(9)
WITH, WITHOUT = cast.bundle(1, guests=(GUEST,)), cast.bundle(1)


def state(bundle):
    return render_state(bundle, cast.settings(), NodePaths(), cast.public_key("node"))


def test_a_guest_has_a_peer_and_the_mailbox_and_no_way_to_a_cell():
    held = state(WITH)
    assert held.peers[GUEST.public_key].allowed_ips == {"10.86.0.9/32", "fd86:5e:1::9/128"}
    assert held.firewall.guests4 == {"10.86.0.9"}
    assert held.firewall.guests6 == {"fd86:5e:1::9"}
    assert held.firewall.peers4 == state(WITHOUT).firewall.peers4
    assert held.files.routes == state(WITHOUT).files.routes
    assert held.files.policies == state(WITHOUT).files.policies
    assert parse_roster(held.files.roster).digests() == {GUEST.secret_sha256}


def test_the_rules_let_guests_to_the_mailbox_and_devices_to_the_cells():
    lines = [line.strip() for line in render_rules(cast.settings(), cast.TUNNEL).splitlines()]
    assert {line.split("dport ")[1] for line in lines if "saddr @guests" in line} == {"8444 accept"}
    assert {line.split("dport ")[1] for line in lines if "saddr @peers" in line and "dport" in line} == {
        "443 accept"
    }
    assert len([line for line in lines if "@guests" in line]) == 4, "in and out, in both families"


def test_a_guest_is_let_in_last_and_goes_first():
    adding, removing = plan(state(WITHOUT), state(WITH)), plan(state(WITH), state(WITHOUT))
    assert [type(action) for action in adding] == [actions.WriteRoster, actions.AddElements, actions.SetPeers]
    expected = [actions.RemovePeers, actions.DeleteElements, actions.EndFlows, actions.WriteRoster]
    assert [type(action) for action in removing] == expected
    assert "open mailbox for 10.86.0.9" in adding.lines()


def test_a_new_answer_touches_the_roster_alone():
    answered = cast.bundle(1, guests=(GUEST.model_copy(update={"answer": "A" * 40}),))
    steps = list(plan(state(WITH), state(answered)))
    assert [type(action) for action in steps] == [actions.WriteRoster]


def test_a_revocation_cuts_a_guest_off_at_once():
    revocation = cast.revocation(keys=(GUEST.public_key,))
    from appliance.core.bundle import Revocation

    value = Revocation.parse_canonical(revocation.text.encode())
    peers = state(WITH).peers
    steps = plan_cut(value, WITH, {GUEST.public_key: peers[GUEST.public_key]}, {})
    assert steps[0] == actions.RemovePeers((GUEST.public_key,))
    assert steps[1].guests4 == ("10.86.0.9",)
    assert set(steps[2].addresses) == {"10.86.0.9", "fd86:5e:1::9"}
    (roster,) = (step.roster for step in steps if isinstance(step, actions.WriteRoster))
    assert parse_roster(roster).guests == ()


def test_what_was_revoked_stays_out_of_a_bundle_that_still_holds_it():
    assert prune(WITH, {GUEST.public_key}, set()).guests == ()
    assert difference(WITH, WITHOUT).public_keys == (GUEST.public_key,)
    assert difference(WITH, WITH).public_keys == ()
