"""A device is enrolled by one command with an invitation, beside a tunnel that is up; and its throw-away peer reaches the mailbox alone."""

import json
import subprocess
import sys

import pytest

from appliance.client.guest_tunnel import INTERFACE
from appliance.core.enrolment import PORT
from appliance.core.ticket import Ticket
from appliance.lab import provision, tunnel
from appliance.lab.lab import CLIENT_FOLDER
from appliance.lab.provision import appliance, control
from appliance.lab.topology import ACME, MGMT, NODE, TUNNEL, TUNNEL_ADDRESS4

pytestmark = pytest.mark.lab

TABLET = f"{CLIENT_FOLDER}/tablet"
TICKET = "/etc/appliance-client/ticket"
CONNECT = """
import socket, sys
interface, address, port = sys.argv[1:]
with socket.socket() as probe:
    probe.settimeout(1.5)
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
    print(probe.connect_ex((address, int(port))))
"""


def reaches(machine, interface, port):
    """Whether a TCP connection to the node's tunnel address comes about through this interface."""
    done = machine.run(sys.executable, "-I", "-c", CONNECT, interface, TUNNEL_ADDRESS4, str(port))
    return done.stdout.strip() == "0"


def peers(node):
    return {line.split()[0] for line in node.run("wg", "show", TUNNEL, "allowed-ips").stdout.splitlines()}


def invitation(mgmt, number):
    listed = control(mgmt, "invitation", "list", "--client", ACME.name)["invitations"]
    return next(one for one in listed if one["id"] == number)


@pytest.fixture
def invited(lab):
    """An invitation that asks for approval, and the command that redeems it, waiting."""
    made = control(lab[MGMT], "invitation", "create", ACME.name, "tablet", "--approval")
    lab[ACME].write(TICKET, made["invitation"] + "\n", 0o600)
    command = appliance("client", "enroll", TICKET, "--out", TABLET, "--wait", "60", "--json")
    with lab[ACME].popen(*command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as enrolling:
        try:
            yield made, enrolling
        finally:
            enrolling.kill()


def test_an_invitation_is_redeemed_by_one_command_and_the_device_chats(lab, invited):
    acme, node, mgmt = lab[ACME], lab[NODE], lab[MGMT]
    made, enrolling = invited
    number, guest = made["id"], Ticket.read(made["invitation"]).keys.public_key
    provision.wait_until(lambda: invitation(mgmt, number)["state"] == "redeemed", "the letter", mgmt)
    assert guest in peers(node)

    # The throw-away peer reaches the mailbox and nothing else; a device everything but the mailbox.
    assert reaches(acme, INTERFACE, PORT)
    assert not reaches(acme, INTERFACE, 443)
    assert not reaches(acme, INTERFACE, 22)
    assert reaches(acme, TUNNEL, 443), "the tunnel that was up before goes on"
    assert not reaches(acme, TUNNEL, PORT)

    fingerprint = invitation(mgmt, number)["fingerprint"]
    assert control(mgmt, "invitation", "approve", str(number))["ok"] is True
    printed, said = enrolling.communicate(timeout=60)
    assert enrolling.returncode == 0, said
    assert fingerprint in said
    result = json.loads(printed.strip().splitlines()[-1])
    assert (result["folder"], result["device"]) == (TABLET, "tablet")
    provision.wait_until(lambda: guest not in peers(node), "the throw-away peer's end", node)
    assert INTERFACE not in acme.run("ip", "link").stdout

    use(acme, TABLET)
    try:
        chat = appliance("client", "chat", "--json", "--dir", TABLET, "--max-tokens", "8", "Hello")
        answered = json.loads(acme.run(*chat).stdout.strip().splitlines()[-1])
        assert answered["receipt"]["verified"] is True
        again = appliance("client", "enroll", TICKET, "--out", f"{TABLET}-2", "--wait", "3", "--json")
        refused = acme.run(*again, check=False)
        assert refused.returncode == 1, "nothing answers a ticket that is used up"
        assert json.loads(refused.stdout.strip().splitlines()[-1])["error"]["code"] == "unavailable"
    finally:
        use(acme, f"{CLIENT_FOLDER}/laptop")
        control(mgmt, "device", "revoke", ACME.name, "tablet")


def use(machine, folder):
    """Let the client's tunnel be another device's."""
    machine.run("ip", "address", "flush", "dev", TUNNEL)
    tunnel.bring_up(machine, f"{folder}/appliance.conf")
    tunnel.first_handshake(machine, TUNNEL_ADDRESS4)
