"""The relay: copies bytes, ends when either side ends, and starts fast."""

import os
import socket
import subprocess
import sys
import threading
import time

from appliance.core.node import NodePaths
from netops import relay


def start(path, *options):
    code = f"import sys; from netops.relay import relay; sys.exit(relay({str(path)!r}))"
    return subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def listen(path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    listener.settimeout(10)
    return listener


def test_its_default_socket_is_the_agents():
    assert str(NodePaths().agent_socket) == relay.AGENT_SOCKET


def test_it_copies_both_ways_and_ends_when_the_agent_hangs_up(tmp_path):
    with listen(tmp_path / "s") as listener, start(tmp_path / "s") as process:
        connection, _ = listener.accept()
        with connection:
            process.stdin.write(b"question\n")
            process.stdin.flush()
            assert connection.recv(100) == b"question\n"
            connection.sendall(b"answer\n")
        assert process.stdout.read() == b"answer\n"
        assert process.wait(5) == 0


def test_the_answer_still_comes_after_standard_input_has_ended(tmp_path):
    with listen(tmp_path / "s") as listener, start(tmp_path / "s") as process:
        connection, _ = listener.accept()
        with connection:
            process.stdin.write(b"question\n")
            process.stdin.close()
            assert connection.makefile("rb").read() == b"question\n"
            connection.sendall(b"answer\n")
        assert process.stdout.read() == b"answer\n"
        assert process.wait(5) == 0


def test_large_transfers_both_ways_at_once_do_not_lock_up(tmp_path):
    data = os.urandom(8_000_000)
    with listen(tmp_path / "s") as listener, start(tmp_path / "s") as process:
        connection, _ = listener.accept()
        with connection:
            # Neither side reads before it has written everything.
            writer = threading.Thread(target=lambda: (process.stdin.write(data), process.stdin.close()))
            reader = threading.Thread(target=lambda: setattr(process, "read_back", process.stdout.read()))
            writer.start()
            reader.start()
            sender = threading.Thread(target=connection.sendall, args=(data,))
            sender.start()
            assert connection.makefile("rb").read() == data
            sender.join(10)
        reader.join(10)
        assert process.read_back == data


def test_without_an_agent_it_says_so_and_fails(tmp_path):
    with start(tmp_path / "nobody") as process:
        _, complaint = process.communicate(timeout=10)
    assert process.returncode == 1
    assert complaint == b"appliance: the agent does not answer\n"


def test_it_imports_little():
    code = "import sys, appliance.cli.node, netops.relay; print(' '.join(sys.modules))"
    start_at = time.monotonic()
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    took = time.monotonic() - start_at
    assert not {"pydantic", "cryptography", "psutil", "ssl"} & set(loaded.split())
    assert took < 2
