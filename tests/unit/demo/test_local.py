"""`appliance demo --local`: without root and without the tunnel, the shipped model answers and its receipts verify."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def figures():
    command = [sys.executable, "-m", "appliance", "demo", "--local", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout, done.stderr[-2000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_every_promise_that_it_shows_holds(figures):
    assert figures["receipt"]["verified"] is True
    assert figures["erase"]["verified"] is True
    assert figures["ok"] is True, figures


def test_the_model_answers_from_the_passages_and_says_what_they_do_not_hold(figures):
    wrong = [(turn["question"], turn["answer"]) for turn in figures["conversation"] if not turn["right"]]
    assert not wrong, wrong


def test_it_says_what_it_does_not_show(figures):
    assert any("tunnel" in line for line in figures["not_shown"])
