"""The demo's figures are what the README promises, on this machine, in this run."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def figures():
    command = [sys.executable, "-m", "appliance", "demo", "--json", "--name", "test-demo"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, (done.stderr or done.stdout)[-2000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_a_client_gets_right_answers_from_the_shipped_model(figures):
    wrong = [(turn["question"], turn["answer"]) for turn in figures["conversation"] if not turn["right"]]
    assert not wrong, wrong
    assert len(figures["model"]) == 64
    assert figures["ttft_ms"] > 0
    assert figures["handshake_ms"] > 0


def test_the_log_holds_a_receipt_and_its_client_verifies_the_proof(figures):
    assert figures["logged"]["is_ours"] is True
    assert 0 <= figures["logged"]["place"] < figures["logged"]["size"]


def test_the_proof_of_one_receipt_shows_nothing_about_another(figures):
    assert figures["logged"]["proves_another"] is False


def test_the_receipt_verifies(figures):
    assert len(figures["receipt"]["id"]) == 32
    assert figures["receipt"]["verified"] is True


def test_two_clients_have_two_cells(figures):
    assert figures["cells"]["acme"]["pid"] != figures["cells"]["bolt"]["pid"]


def test_a_stranger_gets_no_packet_while_a_peer_is_served(figures):
    assert figures["stranger"]["probes"] >= 1000
    assert figures["stranger"]["probes_arrived"] >= figures["stranger"]["probes"]
    assert figures["stranger"]["packets_received"] == 0
    assert figures["peer"]["status"] == 200


def test_malformed_requests_get_no_byte(figures):
    assert figures["malformed"]["loud"] == []
    assert figures["malformed"]["bytes_received"] == 0


def test_the_node_cannot_reach_management(figures):
    assert figures["management_listener"] is True
    assert figures["control_reaches_node"] is True
    assert figures["management_reachable_from_node"] is False


def test_a_revocation_is_effective_within_a_second(figures):
    assert 0 <= figures["revocation_ms"] <= 1000


def test_content_is_found_during_the_session_and_nowhere_after(figures):
    assert figures["canary"]["found_during"] > 0
    assert figures["canary"]["after"] == {}
    assert figures["canary"]["found_after"] == 0
    assert figures["canary"]["processes"] >= 6
