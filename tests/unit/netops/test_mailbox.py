"""What the mailbox answers, to whom, and what the agent takes from its folder."""

from __future__ import annotations

import http.client
import json
import os
import socket
import threading
from pathlib import Path

import pytest
import uvicorn

from appliance.core.bundle import Guest
from appliance.core.enrolment import PATH
from appliance.core.names import encode_base64
from appliance.core.node import NodePaths
from appliance.core.ticket import TicketKeys
from netops.files import NodeFiles
from netops.mailbox.http import MAX_BODY_BYTES, Http, Mailbox
from netops.mailbox.roster import RosterFile, render_roster
from netops.mailbox.service import listen
from netops.mailbox.spool import Letter, Progress, Spool, clear_letters, read_letters
from tests.unit.netops import cast

NOW = 1_700_000_000
LETTER, OTHER_LETTER = encode_base64(b"letter" * 8), encode_base64(b"other!" * 8)
ANSWER = encode_base64(b"answer" * 8)
KEYS = {host: TicketKeys.derive(cast.digest(f"ticket {host}")) for host in (9, 10)}


def guest(host: int, **changes: object) -> Guest:
    keys = KEYS[host]
    fields: dict[str, object] = {"secret_sha256": keys.redeem_sha256, "expires_at": NOW + 60}
    return cast.guest(host, **{**fields, **changes})


class Box:
    """A mailbox with its folder, as the agent and NGINX see it."""

    def __init__(self, folder: Path) -> None:
        self.roster, self.spool = folder / "guests.json", folder / "spool"
        self.spool.mkdir()
        self.now = float(NOW)
        self.restart()
        self.lets_in(guest(9), guest(10))

    def restart(self) -> None:
        self.mailbox = Mailbox(RosterFile(self.roster), Spool(self.spool), lambda: self.now)

    def lets_in(self, *guests: Guest) -> None:
        fresh = self.roster.with_suffix(".new")
        fresh.write_bytes(render_roster(guests))
        fresh.replace(self.roster)

    def ask(
        self,
        method: str = "POST",
        *,
        address: str = "10.86.0.9",
        secret: str | None = None,
        letter: object = LETTER,
    ) -> tuple[int, str]:
        body = json.dumps({"box": letter}).encode()
        secret = KEYS[9].redeem if secret is None else secret
        status, value = self.mailbox.answer(method, address, secret, body)
        return status, value.get("state") or value["error"]["code"]


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def test_a_letter_is_taken_and_its_answer_handed_out(box: Box) -> None:
    assert box.ask() == (202, "waiting")
    assert box.ask("GET") == (202, "waiting")
    assert box.ask("DELETE") == (202, "waiting"), "nobody has what was not handed out"
    box.lets_in(guest(9, answer=ANSWER))
    assert box.mailbox.answer("GET", "fd86:5e:1::9", KEYS[9].redeem, b"")[1] == {
        "state": "ready",
        "answer": ANSWER,
    }
    assert [letter.progress for letter in read_letters(box.spool)] == [Progress.DELIVERED]
    assert box.ask("DELETE") == (200, "done")
    assert box.ask("GET") == (200, "ready"), "an answer that was lost on its way is given again"
    assert read_letters(box.spool) == [
        Letter(box=LETTER, progress=Progress.CONFIRMED, secret_sha256=KEYS[9].redeem_sha256)
    ]


def test_the_same_letter_again_does_no_harm_and_another_one_is_refused_also_after_a_restart(box: Box) -> None:
    assert box.ask() == (202, "waiting")
    box.restart()
    assert box.ask() == (202, "waiting")
    assert box.ask(letter=OTHER_LETTER) == (409, "redeemed_before")
    assert [letter.box for letter in read_letters(box.spool)] == [LETTER]


WRONG = {
    "no secret": {"secret": ""},
    "a wrong secret": {"secret": "A" * 43},
    "a secret that is no text of ours": {"secret": "\udcff\n" * 9},
    "another invitation's secret through this tunnel": {"secret": KEYS[10].redeem},
    "this secret through another invitation's tunnel": {"address": "10.86.0.10"},
    "an address that nobody has": {"address": "10.86.0.77"},
    "no address": {"address": ""},
}


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_whatever_is_wrong_is_answered_with_the_same_words(
    box: Box, method: str, wrong: dict[str, str]
) -> None:
    never = box.mailbox.answer(method, "10.86.0.99", "unknown", b"")
    address, secret = wrong.get("address", "10.86.0.9"), wrong.get("secret", KEYS[9].redeem)
    assert box.mailbox.answer(method, address, secret, b'{"box": 7}') == never
    assert read_letters(box.spool) == []
    assert box.ask() == (202, "waiting"), "the positive control: the right ones are let in"


def test_an_expired_invitation_is_unknown_although_control_is_away(box: Box) -> None:
    box.now += 59
    assert box.ask() == (202, "waiting")
    box.now += 1
    assert box.ask("GET") == (404, "unknown_invitation")


def test_a_cancelled_invitation_is_unknown_at_once(box: Box) -> None:
    assert box.ask() == (202, "waiting")
    box.lets_in(guest(10))
    assert box.ask() == (404, "unknown_invitation")
    box.roster.unlink()
    assert box.ask(address="10.86.0.10", secret=KEYS[10].redeem) == (404, "unknown_invitation")


@pytest.mark.parametrize("letter", [7, None, "", "A" * 39, "%" * 64, "A" * 4000])
def test_a_body_that_is_no_letter_is_refused_and_keeps_the_invitation_open(box: Box, letter: object) -> None:
    assert box.ask(letter=letter) == (400, "malformed")
    assert box.ask() == (202, "waiting")


def test_the_agent_takes_letters_and_nothing_else(box: Box, tmp_path: Path) -> None:
    """The folder is somebody else's: whatever lies there, the agent neither follows, nor waits, nor reads without end."""
    box.ask()
    secret = tmp_path / "secret"
    secret.write_bytes((box.spool / f"{KEYS[9].redeem_sha256}.json").read_bytes())
    (box.spool / f"{'1' * 64}.json").symlink_to(secret)
    os.mkfifo(box.spool / f"{'2' * 64}.json")
    (box.spool / f"{'3' * 64}.json").write_bytes(b"[" * 100_000)
    (box.spool / f"{'4' * 64}.json").write_bytes(secret.read_bytes())  # another's name
    (box.spool / f"{'5' * 64}.json").mkdir()
    (box.spool / "..json").write_bytes(b"")
    assert [letter.secret_sha256 for letter in read_letters(box.spool)] == [KEYS[9].redeem_sha256]
    clear_letters(box.spool, {KEYS[9].redeem_sha256})
    assert {path.name for path in box.spool.iterdir() if not path.is_dir()} == {
        f"{KEYS[9].redeem_sha256}.json"
    }
    assert secret.exists()


def test_a_spool_that_is_a_link_or_not_there_is_empty(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "kept").touch()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    for folder in (tmp_path / "link", tmp_path / "none"):
        assert read_letters(folder) == []
        clear_letters(folder, set())
    assert (tmp_path / "real" / "kept").exists()


def test_a_roster_without_a_guest_clears_its_letter(tmp_path: Path) -> None:
    paths = NodePaths(tmp_path)
    for folder in (paths.run, paths.mailbox):
        folder.mkdir(parents=True)
    spool = Spool(paths.mailbox)
    for host in (9, 10):
        letter = Letter(box=LETTER, progress=Progress.REDEEMED, secret_sha256=KEYS[host].redeem_sha256)
        spool.keep(letter)
    files = NodeFiles(paths)
    files.write_roster(render_roster([guest(9)]))
    assert [letter.secret_sha256 for letter in files.letters()] == [KEYS[9].redeem_sha256]
    files.write_roster(None)
    assert files.letters() == []
    assert not paths.roster.exists()


@pytest.fixture
def served(box: Box, tmp_path: Path):
    """The mailbox as a process serves it, over its Unix socket."""
    listener = listen(tmp_path / "http.sock")
    server = uvicorn.Server(
        uvicorn.Config(Http(box.mailbox), lifespan="off", log_config=None, access_log=False)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield tmp_path / "http.sock"
    server.should_exit = True
    thread.join(10)
    listener.close()


def over_http(
    path: Path, method: str, body: bytes | None, where: str = PATH, **headers: str
) -> tuple[int, dict]:
    connection = http.client.HTTPConnection("mailbox")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(path))
    try:
        connection.request(
            method, where, body, {name.replace("_", "-"): text for name, text in headers.items()}
        )
        reply = connection.getresponse()
        assert reply.headers["Cache-Control"] == "no-store"
        return reply.status, json.loads(reply.read())
    finally:
        connection.close()


def test_over_http_it_takes_one_address_and_one_secret(served: Path) -> None:
    letter = json.dumps({"box": LETTER}).encode()
    right = {"X_Peer_Address": "10.86.0.9", "Authorization": f"Bearer {KEYS[9].redeem}"}
    unknown = over_http(served, "GET", None)
    assert unknown[0] == 404
    assert over_http(served, "POST", letter, where="/v1/models", **right) == unknown
    assert over_http(served, "PUT", letter, **right) == unknown
    assert (
        over_http(served, "POST", letter, X_Peer_Address="10.86.0.9", Authorization=KEYS[9].redeem) == unknown
    )
    assert over_http(served, "POST", b" " * (MAX_BODY_BYTES + 1), X_Peer_Address="10.86.0.9") == unknown
    assert over_http(served, "POST", b" " * (MAX_BODY_BYTES + 1), **right)[0] == 400
    assert over_http(served, "POST", letter, **right) == (202, {"state": "waiting"})


def test_clearing_leaves_what_is_being_written_of_a_letter_that_is_kept(tmp_path):
    kept, gone = (f".{digit * 64}.json.e8a1" for digit in "ab")
    for name in (kept, gone):
        (tmp_path / name).write_bytes(b"")
    clear_letters(tmp_path, {"a" * 64})
    assert [path.name for path in tmp_path.iterdir()] == [kept]
