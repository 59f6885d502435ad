"""Against a real sshd on loopback: the pinned host key and nothing else, and a forced command that speaks JSON lines."""

from __future__ import annotations

import getpass
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from appliance.core.errors import BundleError, HostError, PinError, RefusedError, UnavailableError
from provisioning.node import NodeClient
from provisioning.ssh import SshConnection, SshTarget

SSHD = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin")
pytestmark = pytest.mark.skipif(SSHD is None, reason="sshd is not installed (apt install openssh-server)")


@dataclass
class Server:
    target: SshTarget
    log: Path

    def said(self, text: str) -> bool:
        return text in self.log.read_text()


def make_key(path: Path, kind: str = "ed25519") -> str:
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(path)], check=True)
    return " ".join(path.with_suffix(".pub").read_text().split()[:2])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("sshd")
    folder.chmod(0o755)
    host_key = make_key(folder / "host")
    client_key = make_key(folder / "client")
    port = free_port()
    responder = Path(__file__).with_name("responder.py")
    command = f'restrict,command="{sys.executable} {responder}"'
    (folder / "authorized_keys").write_text(f"{command} {client_key}\n")
    (folder / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized_keys\n"
        "StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        f"PermitRootLogin forced-commands-only\nPidFile none\nLogLevel VERBOSE\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # privilege separation, sshd(8)
    log = folder / "log"
    argv = [str(SSHD), "-D", "-f", str(folder / "sshd_config"), "-E", str(log)]
    with subprocess.Popen(argv) as process:
        _wait_for(port)
        yield Server(SshTarget("127.0.0.1", port, getpass.getuser(), host_key, folder / "client"), log)
        process.terminate()


def _wait_for(port: int) -> None:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    pytest.fail("sshd did not start")


@pytest.fixture
def node(server: Server) -> Iterator[NodeClient]:
    with NodeClient(SshConnection(server.target)) as client:
        yield client


def test_requests_are_answered_over_one_kept_connection(node: NodeClient, server: Server) -> None:
    before = server.log.read_text().count("Accepted publickey")
    for _ in range(3):
        assert node.revoke("{}", "s").milliseconds == 1
        assert node.apply("{}", "").accepted.generation == 1
    assert server.log.read_text().count("Accepted publickey") == before + 1


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
def test_another_host_key_is_refused_and_never_accepted(server: Server, tmp_path: Path, kind: str) -> None:
    before = server.log.read_text().count("Accepted publickey")
    other = replace(server.target, host_key=make_key(tmp_path / "other", kind))
    for _ in range(2):  # the second time as well: nothing was learned from the first
        with pytest.raises((RefusedError, UnavailableError)) as refused:
            NodeClient(SshConnection(other)).identity()
        if kind == "ed25519":
            assert isinstance(refused.value, RefusedError)
            assert refused.value.field == "host_key"
    # Control never offered its own key to the wrong server.
    assert server.log.read_text().count("Accepted publickey") == before


def test_the_system_s_known_hosts_and_agent_play_no_part(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home/.ssh"
    home.mkdir(parents=True)
    target = server.target
    (home / "known_hosts").write_text(f"[127.0.0.1]:{target.port} {target.host_key}\n")
    shutil.copy(target.key_file, home / "id_ed25519")
    monkeypatch.setenv("HOME", str(home.parent))
    wrong_pin = replace(target, host_key=make_key(tmp_path / "other"))
    with pytest.raises(RefusedError):
        NodeClient(SshConnection(wrong_pin)).identity()
    make_key(tmp_path / "stranger")
    wrong_key = replace(target, key_file=tmp_path / "stranger")
    with pytest.raises(UnavailableError):
        NodeClient(SshConnection(wrong_key)).identity()


def test_a_refusal_keeps_its_class_and_field(node: NodeClient) -> None:
    with pytest.raises(BundleError) as refused:
        node.plan("{}", "s")
    assert refused.value.field == "clients.0.name"


def test_a_file_arrives_whole_and_other_bytes_are_refused(node: NodeClient, tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(os.urandom(3_000_001))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert node.send_model(path, digest) is True
    with pytest.raises(PinError):
        node.send_model(path, "0" * 64)
    # The conversation is still in step.
    assert node.apply("{}", "").milliseconds == 1


def test_a_file_that_is_gone_is_named(node: NodeClient, tmp_path: Path) -> None:
    with pytest.raises(HostError):
        node.send_model(tmp_path / "missing", "0" * 64)


def test_a_revocation_overtakes_a_long_apply(node: NodeClient) -> None:
    node.open()
    done: list[str] = []

    def apply() -> None:
        node.apply("{}", "2")
        done.append("apply")

    thread = threading.Thread(target=apply)
    thread.start()
    time.sleep(0.2)
    node.revoke("{}", "s")
    done.append("revoke")
    thread.join()
    assert done == ["revoke", "apply"]


def test_an_answer_that_is_not_what_the_protocol_says_is_refused(node: NodeClient) -> None:
    with pytest.raises(RefusedError, match="is not what the protocol says"):
        node.health()


def test_a_forced_command_that_ends_is_started_again(node: NodeClient) -> None:
    with pytest.raises(UnavailableError):
        node.observe()
    assert node.apply("{}", "").milliseconds == 1


def test_a_closed_port_is_unavailable(server: Server) -> None:
    target = replace(server.target, port=free_port())
    with pytest.raises(UnavailableError):
        NodeClient(SshConnection(target)).identity()


def test_a_missing_key_file_says_whose_fault_it_is(server: Server, tmp_path: Path) -> None:
    with pytest.raises(HostError):
        NodeClient(SshConnection(replace(server.target, key_file=tmp_path / "no"))).identity()


def test_no_secret_goes_into_an_argument_list(server: Server) -> None:
    # The forced command is what ran; what control asked for is one fixed word.
    assert not server.said("bundle")
