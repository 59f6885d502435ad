"""What the agent tells the notary of each client: its pseudonym, and its budgets where it has them."""

import json
import socket
import tempfile
import threading
from pathlib import Path

import pytest

from appliance.core.bundle import Limits, Revocation
from appliance.core.node import NodePaths
from netops import actions
from netops.cut import plan_cut
from netops.desired import render_account, render_state
from netops.model import Account
from netops.services import Notary
from tests.unit.netops import cast

BUDGET = Limits(tokens_per_day=1000)


def rich(name, first):
    return cast.client(name, first, 1).model_copy(update={"limits": BUDGET})


def test_a_budget_of_the_bundle_is_in_the_account():
    client = rich("acme", 2)
    assert render_account(client) == Account(client.pseudonym, None, 1000)
    assert render_account(cast.client("bolt", 9, 1)) == Account(cast.client("bolt", 9, 1).pseudonym)
    state = render_state(cast.bundle(1, client), cast.settings(), NodePaths(), cast.public_key("node"))
    assert state.served.accounts == {"acme": render_account(client)}


@pytest.fixture
def paths():
    with tempfile.TemporaryDirectory(prefix="apl-a-") as folder:  # short: a socket's path has 108 bytes
        yield NodePaths(Path(folder))


def test_what_the_notary_is_told_leaves_out_what_there_is_not(paths):
    paths.notary_control.parent.mkdir(parents=True)
    heard = []

    def answer():
        connection, _ = listener.accept()
        with connection, connection.makefile("rwb") as lines:
            request = json.loads(lines.readline())
            heard.append(request)
            lines.write(json.dumps({"id": request["id"], "ok": True, "result": {}}).encode() + b"\n")
            lines.flush()

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(paths.notary_control))
        listener.listen()
        thread = threading.Thread(target=answer)
        thread.start()
        Notary(paths).serve({"bolt": Account("b" * 64), "acme": Account("a" * 64, 5, 1000)})
        thread.join()
    assert heard[0]["clients"] == [
        {"name": "acme", "pseudonym": "a" * 64, "requests_per_day": 5, "tokens_per_day": 1000},
        {"name": "bolt", "pseudonym": "b" * 64},
    ]


def test_a_revocation_of_one_client_lifts_no_budget_of_another():
    bundle = cast.bundle(1, rich("acme", 2), rich("bolt", 9))
    revocation = Revocation(node="node-a", epoch=1, generation=1, public_keys=(), clients=("bolt",))
    (told,) = [step for step in plan_cut(revocation, bundle, {}, {}) if isinstance(step, actions.ServeNotary)]
    assert told.clients == {"acme": render_account(rich("acme", 2))}
