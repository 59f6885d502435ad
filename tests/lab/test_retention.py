"""Content is looked for everywhere, and where something leaks it is found: the scan's positive controls."""

import base64
import json
import subprocess
import sys
import time

import pytest

from appliance.audit.memory import forms, make_canary
from appliance.demo import demo, scan
from appliance.lab.machine import Machine
from appliance.lab.provision import wait_until
from appliance.lab.topology import ACME, NODE

pytestmark = pytest.mark.lab

HOLD = """
import ctypes, os, sys
canary = sys.stdin.readline().strip()
wide = canary.encode("utf-16-le")
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
ctypes.CDLL(None).prctl(4, 0)  # PR_SET_DUMPABLE: as unreadable as a cell
gone = open("/tmp/gone", "w+")
os.unlink("/tmp/gone")
gone.write(canary)
gone.flush()
print("holding", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def machine(tmp_path):
    booted = Machine.boot(NODE, tmp_path / "node")
    yield booted
    booted.end()


def test_the_scan_finds_a_canary_in_every_place_where_one_can_be(machine):
    canary = make_canary()
    patterns = forms(canary)
    assert scan.scan(machine, patterns).total == 0

    with machine.popen(
        sys.executable, "-I", "-c", HOLD, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        holder.stdin.write(canary + "\n")
        holder.stdin.flush()
        assert holder.stdout.readline().strip() == "holding"
        machine.write("/run/left", f"x{canary}x")
        machine.write("/var/lib/left", canary)
        found = scan.scan(machine, patterns)
        holder.kill()
    places = " ".join(found.places)
    for place in ("memory of", "deleted files of", "/run", "raw disk"):
        assert place in places
    (machine.root / "run/left").unlink()
    (machine.root / "var/lib/left").unlink()
    wait_until(lambda: len(machine.processes()) == 1, "the end of the holder", machine)
    # A file that was deleted is still on the disk: only what never came there is not.
    assert set(scan.scan(machine, patterns).places) == {"raw disk"}


@pytest.mark.parametrize("form", range(len(forms("kanarie"))))
def test_the_scan_finds_every_form_across_the_borders_of_its_pieces(form):
    canary = make_canary()
    pattern = forms(canary)[form]
    found = scan.Found()
    text = b"-" * 50 + pattern + b"-" * 50
    for cut in range(0, len(text), 7):
        scan._search(found, str(cut), [text[:cut], text[cut:]], forms(canary))
    assert all(count >= 1 for count in found.places.values())
    assert len(found.places) == len(range(0, len(text), 7))


def test_base64_of_a_longer_text_holds_one_of_the_forms():

    canary = make_canary()
    for prefix in ("", "a", "ab", "abc", "some text before "):
        encoded = base64.b64encode(f"{prefix}{canary} and after".encode())
        assert any(form in encoded for form in forms(canary)[-3:])


LARGE = """
import http.client, json, ssl, sys
address, folder = sys.argv[1:]
canary = sys.stdin.read().strip()
token = open(f"{folder}/token").read().strip()
context = ssl.create_default_context(cafile=f"{folder}/ca.pem")
connection = http.client.HTTPSConnection(address, 443, context=context, timeout=30)
body = json.dumps({"model": "tiny-reader", "messages": [{"role": "user", "content": f"{canary} " * 3000}]}).encode()
connection.putrequest("POST", "/v1/chat/completions")
for header in (("Authorization", f"Bearer {token}"), ("Content-Type", "application/json"), ("Content-Length", str(len(body)))):
    connection.putheader(*header)
connection.endheaders()
import time
for start in range(0, len(body), 8192):  # slowly, so that a temporary file would live long enough to be written back
    connection.send(body[start:start + 8192])
    time.sleep(0.05)
print(json.dumps(connection.getresponse().status))
"""


def ask_large(lab, canary):
    command = (sys.executable, "-I", "-c", LARGE, demo.TUNNEL_ADDRESS4, demo.LAPTOP)
    with scan.syncing():
        return json.loads(lab[ACME].run(*command, stdin=canary).stdout)


def test_a_large_request_is_on_no_disk_and_would_be_found_if_nginx_spooled_it(lab):
    node = lab[NODE]
    canary = make_canary()
    assert ask_large(lab, canary) == 400  # more tokens than the context holds; refused, but received in full
    assert "raw disk" not in scan.scan(node, forms(canary)).places

    # The leaky variant: a copy of the configuration that spools bodies, as NGINX does by default.
    proper = (node.root / "run/appliance/nginx/nginx.conf").read_text()
    leaky = proper.replace("client_body_buffer_size 1m;", "client_body_buffer_size 1k;")
    start = leaky.index("client_body_temp_path")
    leaky = leaky[:start] + "client_body_temp_path /var/tmp/spool;" + leaky[leaky.index(";", start) + 1 :]
    assert leaky.count("/var/tmp/spool") == 1
    # The agent would put its own configuration back at the next pass.
    (agent,) = node.run("pgrep", "-f", "--", "-m appliance agent").stdout.split()
    node.run("kill", "-STOP", agent)
    reload_with(node, leaky)
    try:
        leaked = make_canary()
        ask_large(lab, leaked)
        assert scan.scan(node, forms(leaked)).places.get("raw disk", 0) > 0
    finally:
        reload_with(node, proper)
        node.run("kill", "-CONT", agent)


def reload_with(node, configuration):
    node.write("/run/appliance/nginx/nginx.conf", configuration)
    node.run("nginx", "-c", "/run/appliance/nginx/nginx.conf", "-s", "reload")
    time.sleep(1.0)
