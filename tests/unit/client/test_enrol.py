"""The client's side of an invitation: what it keeps, what it sends, and what it does when it cannot go on."""

from __future__ import annotations

import json
import ssl
import stat
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from appliance.cli import main
from appliance.client import enrol, guest_tunnel
from appliance.client.mailbox import Mailbox
from appliance.core.enrolment import Answer, close_answer, open_redemption
from appliance.core.errors import HostError, RefusedError, UnavailableError, UsageError
from appliance.core.names import encode_base64
from appliance.core.ticket import Ticket
from control.authority import Authority, make_ca_certificate

CA_KEY, OTHER_CA_KEY = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
CA = make_ca_certificate(CA_KEY)


def ticket(**changes: Any) -> Ticket:
    fields = {
        "client": "acme",
        "device": "laptop",
        "approval": False,
        "expires_at": 4_000_000_000,
        "secret": encode_base64(b"s" * 32),
        "endpoint": "203.0.113.10:51820",
        "node_public_key": encode_base64(b"n" * 32),
        "node4": "127.0.0.1",
        "node6": "::1",
        "address4": "10.86.0.9",
        "address6": "fd86:5e:1::9",
        "mtu": 1420,
        "ca_pem": CA,
    }
    return Ticket.parse({**fields, **changes})


class Post:
    """A mailbox that says what it was told to say."""

    def __init__(self, *answers: str | Exception | None) -> None:
        self.answers = [*answers]
        self.letters: list[str] = []
        self.confirmed = 0

    def post(self, letter: str) -> None:
        self.letters.append(letter)

    def fetch(self) -> str | None:
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def confirm(self) -> None:
        self.confirmed += 1
        raise UnavailableError("the tunnel went down")


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enrol, "POLL_S", 0.001)


def run(post: Post, out: Path, one: Ticket | None = None, wait_s: float = 0.02) -> Any:
    return enrol.enrol(one or ticket(), out, post, wait_s=wait_s, report=lambda _: None)


def test_what_is_secret_is_kept_before_it_is_sent_for_its_owner_alone_and_sent_again(tmp_path: Path) -> None:
    out, post = tmp_path / "folder", Post()
    with pytest.raises(UnavailableError, match="no answer yet") as refused:
        run(post, out)
    assert "run the same command again" in (refused.value.hint or "")
    with pytest.raises(UnavailableError):
        run(post, out)
    assert len(set(post.letters)) == 1, "the same keys, so that the mailbox knows who it is"
    pending = tmp_path / "folder.enrolling"
    assert stat.S_IMODE(pending.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in pending.iterdir()} == {0o600}
    redemption = open_redemption(ticket().keys.box, post.letters[0])
    assert redemption.preshared_key == (pending / "preshared.key").read_text().strip()
    assert (pending / "token").read_text().strip() not in redemption.canonical_bytes().decode()
    assert (pending / "wireguard.key").read_text().strip() not in redemption.canonical_bytes().decode()


def test_a_run_that_was_cut_off_before_anything_was_sent_begins_anew(tmp_path: Path) -> None:
    first = enrol.Pending.open(ticket(), tmp_path / "p")
    key = first.key.read_text()
    (tmp_path / "p" / "letter").unlink()
    assert enrol.Pending.open(ticket(), tmp_path / "p").key.read_text() != key


def test_keys_of_one_invitation_are_never_used_for_another(tmp_path: Path) -> None:
    enrol.Pending.open(ticket(), tmp_path / "p")
    with pytest.raises(UsageError, match="another invitation"):
        enrol.Pending.open(ticket(secret=encode_base64(b"t" * 32)), tmp_path / "p")


def test_a_folder_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    post = Post()
    with pytest.raises(UsageError, match="exists"):
        run(post, tmp_path)
    assert post.letters == []


def test_a_refusal_is_shown_and_the_keys_are_dropped(tmp_path: Path) -> None:
    post = Post(None, close_answer(ticket().keys.box, Answer(refused="the client was revoked")))
    with pytest.raises(RefusedError, match="the client was revoked"):
        run(post, tmp_path / "folder", wait_s=5)
    assert post.confirmed == 1
    assert list(tmp_path.iterdir()) == []


def test_an_answer_that_control_did_not_close_is_refused_and_the_keys_are_kept(tmp_path: Path) -> None:
    forged = close_answer(b"f" * 32, Answer(refused="no"))
    with pytest.raises(RefusedError, match="does not open"):
        run(Post(forged), tmp_path / "folder", wait_s=5)
    assert (tmp_path / "folder.enrolling" / "letter").exists()


def test_a_mailbox_that_is_silent_for_a_while_is_asked_again(tmp_path: Path) -> None:
    answer = close_answer(ticket().keys.box, Answer(refused="in the end"))
    post = Post(UnavailableError("silent"), UnavailableError("silent"), answer)
    with pytest.raises(RefusedError, match="in the end"):
        run(post, tmp_path / "folder", wait_s=5)


# -- the mailbox over TLS


class Handler(BaseHTTPRequestHandler):
    replies: list[tuple[int, object]] = []
    seen: list[tuple[str, str, str | None, bytes]] = []

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.seen.append((self.command, self.path, self.headers.get("Authorization"), body))
        status, value = self.replies.pop(0)
        text = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_DELETE = answer  # noqa: N815 - the base class looks for these names

    def log_message(self, *_: object) -> None:
        """No log."""


class Quiet(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is what a test is about."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[int]:
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = Authority(CA_KEY, CA).issue(key.public_key(), ("node-a.appliance.internal", "127.0.0.1"))
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "node.pem").write_bytes(leaf.encode() + pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "node.pem")
    serving = Quiet(("127.0.0.1", 0), Handler)
    serving.socket = context.wrap_socket(serving.socket, server_side=True)
    Handler.replies, Handler.seen = [], []
    thread = threading.Thread(target=serving.serve_forever, args=(0.02,))
    thread.start()
    yield serving.server_address[1]
    serving.shutdown()
    thread.join()
    serving.server_close()


def test_the_mailbox_is_asked_over_tls_of_the_invitations_ca(server: int) -> None:
    Handler.replies = [
        (202, {"state": "waiting"}),
        (202, {"state": "waiting"}),
        (200, {"answer": "abc"}),
        (200, {}),
    ]
    mailbox = Mailbox(ticket(), None, server)
    mailbox.post("letter")
    assert mailbox.fetch() is None
    assert mailbox.fetch() == "abc"
    mailbox.confirm()
    bearer = f"Bearer {ticket().keys.redeem}"
    assert [(method, path, secret) for method, path, secret, _ in Handler.seen] == [
        (method, "/enrolment", bearer) for method in ("POST", "GET", "GET", "DELETE")
    ]
    assert Handler.seen[0][3] == b'{"box": "letter"}'


def test_a_node_of_another_ca_is_told_nothing(server: int) -> None:
    other = Mailbox(ticket(ca_pem=make_ca_certificate(OTHER_CA_KEY)), None, server)
    with pytest.raises(RefusedError, match="not the node of this invitation"):
        other.post("letter")
    assert Handler.seen == []


@pytest.mark.parametrize(
    ("status", "value", "error", "says"),
    [
        (404, {"error": {"code": "unknown_invitation"}}, RefusedError, "it is over"),
        (409, {"error": {"code": "redeemed_before"}}, RefusedError, "somebody else"),
        (429, {"error": {"code": "too_many_requests"}}, UnavailableError, "busy"),
        (503, {}, UnavailableError, "busy"),
        (500, [], RefusedError, "500"),
        (202, [], RefusedError, "202"),
    ],
)
def test_each_refusal_says_what_it_means(
    server: int, status: int, value: object, error: type[Exception], says: str
) -> None:
    Handler.replies = [(status, value)]
    with pytest.raises(error, match=says):
        Mailbox(ticket(), None, server).post("letter")


def test_a_node_that_does_not_answer_is_asked_again_by_whoever_waits(unused_port: int) -> None:
    with pytest.raises(UnavailableError):
        Mailbox(ticket(), None, unused_port).fetch()


@pytest.fixture
def unused_port() -> int:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


# -- the tunnel and the command line


def test_the_throw_away_tunnel_carries_the_node_and_nothing_else() -> None:
    text = guest_tunnel.render_wg_quick(ticket())
    assert "AllowedIPs = 127.0.0.1/32, ::1/128\n" in text
    assert f"PrivateKey = {encode_base64(ticket().keys.private_key)}\n" in text
    assert "Address = 10.86.0.9/32, fd86:5e:1::9/128\n" in text
    assert "Address" not in guest_tunnel.render_setconf(ticket()), "wg(8) knows no address"


def test_without_root_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(HostError) as refused, guest_tunnel.guest_tunnel(ticket()):
        pass
    assert "sudo" in (refused.value.hint or "")
    assert "--no-tunnel" in (refused.value.hint or "")


@pytest.mark.parametrize("way", ["text", "file"])
def test_the_tunnel_is_written_for_whatever_speaks_wireguard(
    tmp_path: Path, way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ticket().render()
    if way == "file":
        (tmp_path / "invitation").write_text(given + "\n")
        given = str(tmp_path / "invitation")
    out = tmp_path / "tunnel.conf"
    assert main(["client", "enroll", given, "--write-tunnel", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"ok": True, "file": str(out)}
    assert out.read_text() == guest_tunnel.render_wg_quick(ticket())
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert main(["client", "enroll", given, "--write-tunnel", str(out)]) == 2, "not written over"


def test_a_typo_on_the_command_line_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["client", "enroll", ticket().render()[:-3], "--json"]) == 2
    assert "mistyped" in json.loads(capsys.readouterr().out)["error"]["message"]
    assert main(["client", "enroll", "no-such-file", "--json"]) == 2
