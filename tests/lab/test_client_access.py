"""What a provisioned client can do from its own machine, and what it cannot."""

import hashlib
import json
import subprocess
import sys
import textwrap
import time

import pytest

from appliance.lab import lab as labs
from appliance.lab import provision
from appliance.lab.lab import CLIENT_FOLDER
from appliance.lab.provision import appliance, control
from appliance.lab.topology import ACME, BOLT, MGMT, NODE, TUNNEL_ADDRESS4, TUNNEL_ADDRESS6

pytestmark = pytest.mark.lab

LAPTOP = f"{CLIENT_FOLDER}/laptop"

OPENAI = """
import json
import openai
client = openai.OpenAI(max_retries=0)  # everything else comes from the environment, as the README says
models = [model.id for model in client.models.list()]
messages = [{"role": "user", "content": "Hello"}]
plain = client.chat.completions.create(model=models[0], messages=messages, max_tokens=16)
stream = client.chat.completions.create(
    model=models[0], messages=messages, max_tokens=16, stream=True, stream_options={"include_usage": True}
)
chunks = list(stream)
print(json.dumps({
    "models": models,
    "plain": plain.choices[0].message.content,
    "tokens": plain.usage.completion_tokens,
    "pieces": sum(1 for c in chunks if c.choices and c.choices[0].delta.content),
    "streamed_tokens": chunks[-1].usage.completion_tokens,
}))
"""


def in_machine(machine, program, *arguments, stdin=None, timeout_s=90):
    done = machine.run(sys.executable, "-I", "-c", program, *arguments, stdin=stdin, timeout_s=timeout_s)
    return json.loads(done.stdout.strip().splitlines()[-1])


def curl(
    machine, token, *, path="/v1/models", address=TUNNEL_ADDRESS4, folder=LAPTOP, body=None, headers=None
):
    """Make one request; return (status, body, headers), status 0 if the connection was closed without an answer."""
    program = textwrap.dedent(
        """
        import http.client, json, ssl, sys
        address, path, ca = sys.argv[1:]
        given = json.loads(sys.stdin.read())
        context = ssl.create_default_context(cafile=ca)
        connection = http.client.HTTPSConnection(address, 443, context=context, timeout=30)
        try:
            body = given["body"].encode() if given["body"] is not None else None
            connection.request("POST" if body is not None else "GET", path, body, given["headers"])
            reply = connection.getresponse()
            print(json.dumps([reply.status, reply.read().decode(), dict(reply.getheaders())]))
        except (http.client.HTTPException, ConnectionError, ssl.SSLError):
            print(json.dumps([0, "", {}]))
        """
    )
    given = json.dumps({"body": body, "headers": {"Authorization": f"Bearer {token}", **(headers or {})}})
    return in_machine(machine, program, address, path, f"{folder}/ca.pem", stdin=given)


def token(machine, folder=LAPTOP):
    return (machine.root / folder.lstrip("/") / "token").read_text().strip()


@pytest.mark.parametrize("base_url", [f"https://{TUNNEL_ADDRESS4}/v1", f"https://[{TUNNEL_ADDRESS6}]/v1"])
def test_the_openai_package_works_unmodified(lab, base_url):
    environment = {
        "OPENAI_BASE_URL": base_url,
        "OPENAI_API_KEY": token(lab[ACME]),
        "SSL_CERT_FILE": f"{LAPTOP}/ca.pem",
    }
    done = lab[ACME].run(sys.executable, "-I", "-c", OPENAI, env=environment)
    result = json.loads(done.stdout.strip().splitlines()[-1])
    assert result["models"] == ["tiny-reader"]
    assert result["plain"]
    assert 0 < result["tokens"] <= 16
    assert result["pieces"] >= 1
    assert 0 < result["streamed_tokens"] <= 16


def test_a_wrong_token_is_refused_although_the_address_is_right(lab):
    for wrong in ("", "sa_" + "A" * 43, token(lab[ACME])[:-1]):
        status, body, _ = curl(lab[ACME], wrong)
        assert status == 401
        assert json.loads(body)["error"]["code"] == "invalid_api_key"
    assert curl(lab[ACME], token(lab[ACME]))[0] == 200


def test_a_right_token_of_another_client_is_refused(lab):
    assert curl(lab[BOLT], token(lab[BOLT]))[0] == 200
    assert curl(lab[BOLT], token(lab[ACME]))[0] == 401


BAD_BODIES = {
    "malformed": ('{"messages": [kanarie', {}, {400}),
    "second key": ('{"messages": [], "messages": "kanarie"}', {}, {400}),
    "deep": ("[" * 5000 + "kanarie", {}, {400}),
    "compressed": ("kanarie", {"Content-Encoding": "gzip"}, {415}),
    "multipart": ("kanarie", {"Content-Type": "multipart/form-data; boundary=x"}, {415}),
    "too large": ("kanarie" * 300_000, {}, {0, 413}),
    "unknown field": (
        '{"model": "tiny-reader", "messages": [{"role": "user", "content": "hi"}], "kanarie": 1}',
        {},
        {400},
    ),
    "image": (
        '{"model": "tiny-reader", "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///kanarie"}}]}]}',
        {},
        {400},
    ),
    "too many tokens": (
        '{"model": "tiny-reader", "messages": [{"role": "user", "content": "' + "kanarie " * 5000 + '"}]}',
        {},
        {400},
    ),
}


@pytest.mark.parametrize(("body", "headers", "expected"), BAD_BODIES.values(), ids=BAD_BODIES.keys())
def test_a_bad_body_gets_a_closed_code_and_is_echoed_nowhere(lab, body, headers, expected):
    headers = {"Content-Type": "application/json", **headers}
    status, answer, _ = curl(
        lab[ACME], token(lab[ACME]), path="/v1/chat/completions", body=body, headers=headers
    )
    assert status in expected
    assert "kanarie" not in answer
    logs = b"".join(log.read_bytes() for log in lab.folder.rglob("*.log"))
    assert b"kanarie" not in logs
    # The same client and the others are undisturbed.
    assert curl(lab[ACME], token(lab[ACME]))[0] == 200
    assert curl(lab[BOLT], token(lab[BOLT]))[0] == 200


SLOW = """
import json, socket, ssl, sys, time
address, ca, part = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
received, started = b"", time.monotonic()
with socket.create_connection((address, 443), timeout=40) as plain:
    with context.wrap_socket(plain, server_hostname=address) as stream:
        head = f"POST /v1/chat/completions HTTP/1.1\\r\\nHost: {address}\\r\\n"
        if part == "body":
            head += "Content-Type: application/json\\r\\nContent-Length: 1000\\r\\n\\r\\n{"
        stream.sendall(head.encode())
        try:
            while data := stream.recv(4096):
                received += data
        except (ConnectionError, ssl.SSLError):
            pass
print(json.dumps({"received": len(received), "seconds": time.monotonic() - started}))
"""


@pytest.mark.parametrize("part", ["header", "body"])
def test_a_slow_request_is_dropped_without_a_byte(lab, part):
    result = in_machine(lab[ACME], SLOW, TUNNEL_ADDRESS4, f"{LAPTOP}/ca.pem", part)
    assert result["received"] == 0
    assert result["seconds"] < 30


def test_a_peer_reaches_nothing_but_the_api(lab):
    connect = "import socket,sys\ns=socket.socket(); s.settimeout(1)\nprint(s.connect_ex((sys.argv[1], int(sys.argv[2]))))"
    for address, port in (
        (TUNNEL_ADDRESS4, 22),
        (TUNNEL_ADDRESS4, 80),
        ("10.86.0.3", 443),
        (str(NODE.outer4), 443),
    ):
        assert in_machine(lab[ACME], connect, address, str(port)) != 0
    assert in_machine(lab[ACME], connect, TUNNEL_ADDRESS4, "443") == 0


def test_a_session_keeps_its_state_and_ends_with_a_receipt_that_verifies(lab):
    conversation = "Hello\\nAnd again\\n"
    chat = appliance("client", "chat", "--dir", LAPTOP, "--max-tokens", "8")
    done = lab[ACME].run(*chat, stdin=conversation.encode().decode("unicode_escape"))
    receipts = sorted(
        (lab[ACME].root / LAPTOP.lstrip("/") / "receipts").iterdir(), key=lambda f: f.stat().st_mtime
    )
    receipt = json.loads(receipts[-1].read_text())["receipt"]
    assert receipt["end"] == "deleted"
    assert receipt["requests"] == 2
    assert receipt["erase"]["verified"] is True
    assert receipt["erase"]["bytes"] > 0
    assert receipt["id"] in done.stderr
    file = f"{LAPTOP}/receipts/{receipts[-1].name}"
    verified = lab[ACME].run(*appliance("receipt", "verify", file))
    assert "The receipt verifies." in verified.stdout


def test_a_receipt_changed_by_one_byte_does_not_verify(lab):
    lab[ACME].run(*appliance("client", "chat", "--json", "--dir", LAPTOP, "--max-tokens", "4", "Hello"))
    receipts = sorted(
        (lab[ACME].root / LAPTOP.lstrip("/") / "receipts").iterdir(), key=lambda f: f.stat().st_mtime
    )
    text = receipts[-1].read_text()
    changed = text.replace('"requests":1', '"requests":2')
    assert changed != text
    lab[ACME].write(f"{LAPTOP}/receipts/changed.json", changed)
    refused = lab[ACME].run(*appliance("receipt", "verify", f"{LAPTOP}/receipts/changed.json"), check=False)
    (lab[ACME].root / f"{LAPTOP}/receipts/changed.json".lstrip("/")).unlink()
    assert refused.returncode == 1
    assert "signature" in refused.stderr


PIPES = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}

ADD_DEVICES = """
import base64, secrets, sys
from control.startup import start_django
start_django(None)
from django.db import transaction
from control.clients.enrolment import add_device
from control.clients.requests import NewDevice
from control.journal.actors import acting, unix_actor
from control.journal.event import Source
with acting(Source.CLI, unix_actor()), transaction.atomic():
    for number in range(1000):
        key = base64.b64encode(secrets.token_bytes(32)).decode()
        add_device(NewDevice.parse({"client": "bolt", "name": f"bulk-{number}", "public_key": key}))
    print("ready", flush=True)
    sys.stdin.readline()
print("committed", flush=True)
"""

STREAM = """
import json, http.client, ssl, sys, time
address, folder, marker = sys.argv[1:]
token = open(f"{folder}/token").read().strip()
context = ssl.create_default_context(cafile=f"{folder}/ca.pem")
headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
text = "[1] " + "The quiet wind can carry the letter. " * 40 + "\\n\\nQuote passage 1."
body = json.dumps({"model": "tiny-reader", "messages": [{"role": "user", "content": text}], "stream": True, "max_tokens": 1024})
connection = http.client.HTTPSConnection(address, 443, context=context, timeout=60)
gap, started, answers, broken = 0.0, time.monotonic(), 0, 0
import os
while not os.path.exists(marker):
    connection.request("POST", "/v1/chat/completions", body, headers)
    reply = connection.getresponse()
    last, tail = time.monotonic(), b""
    while piece := reply.read1(65536):
        gap, last, tail = max(gap, time.monotonic() - last), time.monotonic(), (tail + piece)[-64:]
    answers += 1
    broken += b"[DONE]" not in tail
print(json.dumps({"gap_s": gap, "answers": answers, "broken": broken, "seconds": time.monotonic() - started}))
"""


def test_a_thousand_more_devices_interrupt_no_stream_and_reload_no_nginx(lab):
    machine, node, mgmt = lab[ACME], lab[NODE], lab[MGMT]
    marker = "/tmp/enough"
    add = (sys.executable, "-I", "-c", ADD_DEVICES)
    stream = (sys.executable, "-I", "-c", STREAM, TUNNEL_ADDRESS4, LAPTOP, marker)
    environment = provision.CONTROL_ENVIRONMENT
    with (
        mgmt.popen(*add, user=provision.WEB_USER, env=environment, **PIPES) as adding,
        machine.popen(*stream, **PIPES) as streaming,
    ):
        try:
            assert adding.stdout.readline().strip() == "ready"
            time.sleep(1.5)  # the stream is running, and its cell with it
            nginx = sorted(node.run("pgrep", "-x", "nginx").stdout.split())
            config = digest(node.root / "run/appliance/nginx/nginx.conf")
            committed_at = time.monotonic()
            assert adding.communicate("go\n", timeout=60)[0].strip() == "committed"
            provision.wait_until(lambda: peers(node) >= 1002, "the thousand devices", node, 60)
            applied_s = time.monotonic() - committed_at
            time.sleep(1)
            # Nothing but new workers after an idle cell may change NGINX's processes, and no cell went idle.
            assert digest(node.root / "run/appliance/nginx/nginx.conf") == config
            assert sorted(node.run("pgrep", "-x", "nginx").stdout.split()) == nginx
            (machine.root / marker.lstrip("/")).touch()
            result = json.loads(streaming.communicate(timeout=120)[0])
        finally:
            streaming.kill()
            adding.kill()
    print(
        f"1,000 devices effective after {applied_s:.2f} s; longest gap in a stream {result['gap_s'] * 1000:.0f} ms"
    )
    assert result["broken"] == 0
    assert result["gap_s"] < 1.5


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def keys(node):
    """The public keys that the node's kernel or wireguard-go has as peers now."""
    return {line.split()[0] for line in node.run("wg", "show", "wg0", "allowed-ips").stdout.splitlines()}


def peers(node):
    observed = json.loads(node.run(*appliance("node", "observe", "--json")).stdout.strip().splitlines()[-1])
    return len(observed.get("result", observed)["peers"])


def test_a_right_token_from_another_device_of_the_same_client_is_refused_and_revoking_it_harms_nobody(lab):
    before = keys(lab[NODE])
    labs.add_device(lab, ACME, "phone")
    provision.wait_until(lambda: len(keys(lab[NODE])) == len(before) + 1, "the phone", lab[NODE])
    phone = f"{CLIENT_FOLDER}/phone"
    # The phone's token is right, and this is the laptop's address.
    assert curl(lab[ACME], token(lab[ACME], phone))[0] == 401
    assert curl(lab[ACME], token(lab[ACME]))[0] == 200
    assert control(lab[MGMT], "device", "revoke", ACME.name, "phone")["ok"] is True
    provision.wait_until(lambda: keys(lab[NODE]) == before, "the phone's end", lab[NODE])
    assert curl(lab[ACME], token(lab[ACME]))[0] == 200


def test_a_drained_node_goes_on_with_what_is_open_and_opens_nothing(lab):
    asked = json.dumps(
        {"model": "tiny-reader", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
    )
    kind = {"Content-Type": "application/json"}

    def chat(**headers):
        return curl(
            lab[ACME],
            token(lab[ACME]),
            path="/v1/chat/completions",
            body=asked,
            headers={**kind, **headers},
        )

    opened = curl(lab[ACME], token(lab[ACME]), path="/v1/sessions", body="{}", headers=kind)
    kept = {"X-Session-Id": json.loads(opened[1])["id"]}
    assert chat(**kept)[0] == chat()[0] == 200
    assert control(lab[MGMT], "node", "drain", "node-a")["duty"] == "drained"
    try:
        provision.wait_until(lambda: chat()[0] == 503, "the drain", lab[NODE])
        _, body, headers = chat()
        assert json.loads(body)["error"]["code"] == "node_drained"
        assert {name.lower(): value for name, value in headers.items()}["retry-after"] == "30"
        assert chat(**kept)[0] == 200
        plan = control(lab[MGMT], "node", "plan", "node-a")
        assert (plan["total"], plan["error"]) == (0, ""), "what control wants is in force"
    finally:
        control(lab[MGMT], "node", "undrain", "node-a")
    provision.wait_until(lambda: chat()[0] == 200, "the node's return", lab[NODE])
    history = control(lab[MGMT], "node", "history", "node-a")["bundles"]
    assert [bundle["changes"] for bundle in history[-2:]] == [["drained"], ["serving again"]]


def test_control_hears_how_the_node_is(lab):
    assert curl(lab[ACME], token(lab[ACME]))[0] == 200  # the tunnel is up

    def told():
        health = control(lab[MGMT], "node", "show", "node-a")["health"]
        states = {model["state"] for model in health.get("models", ())}
        return health if health and states == {"verified"} and health["tunnel"]["connected"] else None

    provision.wait_until(told, "a report", lab[NODE], 90)
    health = told()
    assert health["nginx"]
    assert health["notary"]["up"]
    assert health["tunnel"]["up"]
    assert all(cell["confined"] for cell in health["cells"])
    assert control(lab[MGMT], "node", "health", "node-a")["samples"]
    assert control(lab[MGMT], "node", "show", "node-a")["conditions"] == {}
