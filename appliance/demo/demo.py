"""`appliance demo` in the lab: one run in which each promise is tried from outside.

The steps follow the table in README.md. A step returns figures of this run and nothing else; `checks` says which of
them hold.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from appliance.audit.memory import forms, make_canary
from appliance.core.errors import HostError
from appliance.demo import scan
from appliance.demo.questions import HELLO, QUESTIONS, exchange, prompt, reads
from appliance.lab import lab as labs
from appliance.lab import provision
from appliance.lab.lab import CLIENT_FOLDER, Lab
from appliance.lab.machine import Machine
from appliance.lab.provision import appliance, control
from appliance.lab.topology import (
    ACME,
    BOLT,
    CONSOLE_PORT,
    ENDLESS_MODEL,
    MGMT,
    MGMT_ADDRESS,
    NODE,
    OUTER,
    STRANGER,
    TUNNEL_ADDRESS4,
    TUNNEL_ADDRESS6,
    MachineSpec,
    mac,
)

LAPTOP = f"{CLIENT_FOLDER}/laptop"
LONG_ANSWER_TOKENS = 1024
CELL_EXIT_TIMEOUT_S = 60.0
PULL_TIMEOUT_S = 45.0
LOG_TIMEOUT_S = 90.0  # a head is signed once a minute
Report = Callable[[str], None]


def run_demo(name: str, report: Report, *, keep: bool) -> dict[str, Any]:
    """Bring a lab up, try every promise, tear the lab down.

    Args:
        name: Of the lab.
        report: Told what is being done.
        keep: Leave the lab up.

    Returns:
        The figures of the run (see `appliance demo --json` in README.md).
    """
    started = time.monotonic()
    lab = labs.up(name, report)
    try:
        figures = {"setup_s": round(time.monotonic() - started, 1), "handshake_ms": lab.handshake_ms}
        for what, step in STEPS:
            report(what)
            figures.update(step(lab))
    finally:
        if not keep:
            report("taking everything down")
            labs.down(name)
    figures["seconds"] = round(time.monotonic() - started, 1)
    return figures


def ask(lab: Lab) -> dict[str, Any]:
    """A client behind its tunnel gets right answers; the last one's receipt verifies by the shipped command, offline."""
    conversation = []
    for question, with_passages, expected in QUESTIONS:
        answer = _chat(lab, ACME, prompt(question, with_passages))
        conversation.append(exchange(question, answer["answer"], expected))
    _chat(lab, BOLT, HELLO)
    file = str(answer["receipt"]["file"])
    verified = last_json(lab[ACME].run(*appliance("receipt", "verify", "--json", file)).stdout)
    cells = {cell["client"]: {"pid": cell["pid"]} for cell in node_health(lab)["cells"]}
    return {
        "conversation": conversation,
        "model": answer["pin"],
        "ttft_ms": answer["ttft_ms"],
        "receipt": {
            "id": answer["receipt"]["id"],
            "verified": verified["ok"] and verified["receipts"][0]["id"] == answer["receipt"]["id"],
        },
        "cells": cells,
    }


def _chat(lab: Lab, client: MachineSpec, text: str) -> dict[str, Any]:
    options = ("--max-tokens", "48", "--temperature", "0")  # what is shown is the model, not chance
    chat = appliance("client", "chat", "--json", "--dir", LAPTOP, *options, text)
    return last_json(lab[client].run(*chat).stdout)


def knock(lab: Lab) -> dict[str, Any]:
    """A stranger knocks on everything and gets nothing; the node's kernel counts what arrived."""
    node = lab[NODE]
    node.run("nft", "-f", "-", stdin=_arrivals_table())
    targets = (str(NODE.outer4), str(NODE.outer6), TUNNEL_ADDRESS4, TUNNEL_ADDRESS6)
    probe = module("stranger", OUTER, mac(NODE), *targets)
    knocked = last_json(lab[STRANGER].run(*probe, timeout_s=120).stdout)
    arrived = _arrived(node)
    node.run("nft", "delete", "table", "inet", "arrivals")
    return {
        "stranger": {
            "probes": knocked["sent"],
            "probes_arrived": arrived,
            "packets_received": knocked["received"],
        }
    }


def receipts_arrive(lab: Lab, client: MachineSpec) -> bool:
    """Return True once control has pulled this client's newest receipt from the node, over the management link."""

    def pulled() -> bool:
        receipts: Any = control(lab[MGMT], "receipts", "list", "--client", client.name)["receipts"]
        return any(receipt["verified"] for receipt in receipts)

    provision.wait_until(pulled, "the pull of receipts", lab[MGMT], PULL_TIMEOUT_S)
    return True


def _arrivals_table() -> str:
    # Before every other hook, so that what the firewall drops has been counted.
    return f"""table inet arrivals {{
        chain knocks {{
            type filter hook prerouting priority -500
            iifname {OUTER} ip saddr {STRANGER.outer4} counter
            iifname {OUTER} ip6 saddr {STRANGER.outer6} counter
        }}
    }}
    """


def _arrived(node: Machine) -> int:
    listing = json.loads(node.run("nft", "-j", "list", "table", "inet", "arrivals").stdout)
    rules = [item["rule"]["expr"] for item in listing["nftables"] if "rule" in item]
    return sum(part["counter"]["packets"] for rule in rules for part in rule if "counter" in part)


def misbehave(lab: Lab) -> dict[str, Any]:
    """A client inside the tunnel sends nonsense and gets zero bytes; a proper request in the same run gets 200."""
    result = last_json(lab[ACME].run(*module("insider", TUNNEL_ADDRESS4, LAPTOP), timeout_s=300).stdout)
    return {
        "malformed": {
            "requests": result["requests"],
            "bytes_received": result["bytes_received"],
            "loud": result["loud"],
        },
        "peer": {"status": result["status"]},
    }


def reach_management(lab: Lab) -> dict[str, Any]:
    """The node cannot reach control, although something listens there and control reaches the node by the same link."""
    probe = f"exec 3<>/dev/tcp/{MGMT_ADDRESS}/{CONSOLE_PORT}"
    listening = lab[MGMT].run("timeout", "3", "bash", "-c", probe, check=False).returncode == 0
    reached = lab[NODE].run("timeout", "3", "bash", "-c", probe, check=False).returncode == 0
    if not listening:
        raise HostError("nothing listens on the management network; the check would prove nothing")
    return {
        "management_reachable_from_node": reached,
        "management_listener": listening,
        "control_reaches_node": receipts_arrive(lab, ACME),
    }


def log_receipts(lab: Lab) -> dict[str, Any]:
    """The log holds a receipt that the client kept: the proof comes through the tunnel and verifies offline."""
    kept = lab[ACME].root / LAPTOP.lstrip("/") / "receipts"
    watch = appliance("receipt", "watch", "--json", "--dir", LAPTOP)
    logged: list[str] = []

    def found() -> bool:
        watched = lab[ACME].run(*watch, check=False)
        if watched.returncode == 0:
            logged[:] = last_json(watched.stdout)["proven"]
        return bool(logged)

    provision.wait_until(found, "a head of the log", lab[MGMT], LOG_TIMEOUT_S)
    (verified,) = last_json(lab[ACME].run(*_verify_logged(logged[0], logged[0])).stdout)["receipts"]
    other = next(file.stem for file in kept.glob("*.json") if file.stem != logged[0])
    proves_anything = lab[ACME].run(*_verify_logged(other, logged[0]), check=False).returncode == 0
    return {
        "logged": {
            "id": verified["id"],
            "is_ours": verified["id"] == logged[0],
            "place": verified["place"],
            "size": verified["size"],
            "proves_another": proves_anything,
        }
    }


def _verify_logged(receipt: str, proof: str) -> tuple[str, ...]:
    """Return the command that verifies a kept receipt with the proof of one."""
    folder = f"{LAPTOP}/receipts"
    return appliance(
        "receipt", "verify", "--json", f"{folder}/{receipt}.json", "--proof", f"{folder}/{proof}.tlog-proof"
    )


def leave_nothing(lab: Lab) -> dict[str, Any]:
    """A canary is found while a session runs and nowhere once the cell has exited."""
    canary = make_canary()
    patterns = forms(canary)
    with scan.syncing():
        with streaming(lab[BOLT], f"Repeat after me: {canary}. " * 20) as stream:
            during = scan.scan(lab[NODE], patterns)
            end_stream(stream)
        wait_for_exit(lab, BOLT)
        after = scan.scan(lab[NODE], patterns)
    return {
        "canary": {
            "found_during": during.total,
            "found_after": after.total,
            "during": during.places,
            "after": after.places,
            "processes": after.processes,
            "bytes_scanned": after.bytes,
        }
    }


def revoke(lab: Lab) -> dict[str, Any]:
    """A device is revoked by the API while it streams; the clock runs from the call to the client's last byte."""
    mgmt = lab[MGMT]
    with (
        operator(mgmt, f"/api/v1/devices/{device_id(mgmt, BOLT)}/revoke") as call,
        streaming(lab[BOLT], HELLO) as stream,
    ):
        called = last_json(call.communicate("now\n", timeout=30)[0])
        ended = end_stream(stream)
    if ended["finished"] or called["status"] >= 300:
        raise HostError("the stream ended by itself or the call was refused; the figure would prove nothing")
    milliseconds = (ended["last_byte_at"] - called["asked_at"]) * 1000
    if milliseconds <= 0:
        raise HostError("the stream was silent before the call; the figure would prove nothing")
    return {"revocation_ms": round(milliseconds, 1), "revoked_after_tokens": ended["tokens"]}


def device_id(mgmt: Machine, client: MachineSpec) -> int:
    """Return the id that the API gives a client's laptop."""
    devices: Any = control(mgmt, "device", "list", "--client", client.name)["devices"]
    return next(int(device["id"]) for device in devices if device["name"] == "laptop")


@contextmanager
def operator(mgmt: Machine, path: str) -> Iterator[subprocess.Popen[str]]:
    """Yield an API call that waits for its moment: a line on its standard input."""
    control(mgmt, "operator", "add", "demo", "--no-password")
    token = str(control(mgmt, "token", "create", "demo", "demo")["token"])
    ca = f"{provision.CONTROL_STATE}/public/ca.pem"
    with program(mgmt, "operator", MGMT_ADDRESS, str(CONSOLE_PORT), ca, path) as call:
        say(call, f"{token}\n")
        if hear(call) != "ready":
            raise HostError("the console does not answer", hint=f"look in {mgmt.folder}")
        yield call


STEPS: tuple[tuple[str, Callable[[Lab], dict[str, Any]]], ...] = (
    ("asking the model through the tunnel", ask),
    ("knocking as a stranger", knock),
    ("sending nonsense from inside the tunnel", misbehave),
    ("looking for what must not be left", leave_nothing),
    ("revoking a device while it streams", revoke),
    # Last, since a revocation makes control pull receipts, which proves that control reaches the node.
    ("reaching for management from the node", reach_management),
    ("proving that the log holds a receipt", log_receipts),
)


def module(name: str, *arguments: str) -> tuple[str, ...]:
    """Return the command line of one of the demo's programs that run in a machine."""
    return (*appliance()[:3], f"appliance.demo.{name}", *arguments)


@contextmanager
def streaming(machine: Machine, text: str) -> Iterator[subprocess.Popen[str]]:
    """Yield a long answer whose first text has come."""
    with program(
        machine, "stream", TUNNEL_ADDRESS4, LAPTOP, ENDLESS_MODEL, str(LONG_ANSWER_TOKENS)
    ) as stream:
        say(stream, text)
        pipe_of(stream.stdin).close()
        stream.stdin = None
        if hear(stream) != "streaming":
            raise HostError("no stream came", hint=f"look in {machine.folder.parent}")
        yield stream


@contextmanager
def program(machine: Machine, name: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Yield one of the demo's programs, running in a machine with pipes; it is ended and waited for afterwards."""
    pipes: dict[str, Any] = {
        "stdin": subprocess.PIPE,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.DEVNULL,
    }
    with machine.popen(*module(name, *arguments), text=True, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


def say(process: subprocess.Popen[str], text: str) -> None:
    """Write to a program."""
    pipe_of(process.stdin).write(text)
    pipe_of(process.stdin).flush()


def hear(process: subprocess.Popen[str]) -> str:
    """Read a line from a program."""
    return str(pipe_of(process.stdout).readline()).strip()


def end_stream(stream: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait for a stream's end and return what it says of itself."""
    return last_json(pipe_of(stream.stdout).read())


def pipe_of(pipe: IO[str] | None) -> IO[str]:
    """Return a pipe that was asked for."""
    if pipe is None:
        raise HostError("a pipe is missing")
    return pipe


def wait_for_exit(lab: Lab, client: MachineSpec) -> None:
    """Wait until a client's cell has exited and NGINX's workers were replaced after that."""
    provision.wait_until(
        lambda: client.name not in {cell["client"] for cell in node_health(lab)["cells"]},
        f"the exit of {client.name}'s cell",
        lab[NODE],
        CELL_EXIT_TIMEOUT_S,
    )


def node_health(lab: Lab) -> dict[str, Any]:
    """Return the node's own health report."""
    health = last_json(lab[NODE].run(*appliance("node", "health", "--json")).stdout)
    return dict(health.get("result", health))


def last_json(printed: str) -> dict[str, Any]:
    """Return the JSON object on the last line of what a command printed."""
    return dict(json.loads(printed.strip().splitlines()[-1]))


def checks(figures: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """Return (promise, what was seen, whether it holds) for people and for the exit code."""
    stranger, canary, cells = figures["stranger"], figures["canary"], figures["cells"]
    return [
        ("a peer gets an answer", f"status {figures['peer']['status']}", figures["peer"]["status"] == 200),
        reads(figures["conversation"]),
        ("the receipt verifies", figures["receipt"]["id"], figures["receipt"]["verified"] is True),
        (
            "the log holds the receipt",
            f"{figures['logged']['place'] + 1} of {figures['logged']['size']}; the proof fits no other receipt",
            figures["logged"]["is_ours"] and not figures["logged"]["proves_another"],
        ),
        (
            "each client has a cell",
            " ≠ ".join(f"pid {cell['pid']}" for cell in cells.values()),
            len({cell["pid"] for cell in cells.values()}) == 2,
        ),
        (
            "a stranger gets nothing",
            f"{stranger['probes_arrived']} probes arrived, {stranger['packets_received']} packets came back",
            stranger["probes"] >= 1000
            and stranger["probes_arrived"] >= stranger["probes"]
            and stranger["packets_received"] == 0,
        ),
        (
            "nonsense gets nothing",
            f"{figures['malformed']['requests']} requests, {figures['malformed']['bytes_received']} bytes came back",
            figures["malformed"]["bytes_received"] == 0,
        ),
        (
            "the node cannot reach management",
            "but management reaches the node"
            if figures["control_reaches_node"]
            else "nor management the node",
            not figures["management_reachable_from_node"] and figures["control_reaches_node"],
        ),
        (
            "nothing is left",
            f"{canary['found_during']} copies during, {canary['found_after']} after",
            canary["found_during"] > 0 and canary["found_after"] == 0,
        ),
        ("revocation is fast", f"{figures['revocation_ms']} ms", figures["revocation_ms"] <= 1000),
    ]


__all__ = ["checks", "run_demo"]
