"""A pinned model is read and verified, and a model that cannot read fails its examination."""

import json
import subprocess
import sys

import pytest

from appliance.bench.model import measure_model
from appliance.core.errors import PinError
from appliance.lab.synthetic_model import synthetic_manifest, write_model
from appliance.models import read_model


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    weights = tmp_path_factory.mktemp("model") / "tiny-random.gguf"
    write_model(weights)
    pin = weights.with_suffix(".json")
    pin.write_bytes(synthetic_manifest(weights).canonical_bytes())
    return pin


@pytest.fixture
def copy(tmp_path, written):
    for suffix in (".json", ".gguf"):
        (tmp_path / written.with_suffix(suffix).name).write_bytes(written.with_suffix(suffix).read_bytes())
    return tmp_path / written.name


def test_a_pinned_model_is_read(written):
    assert read_model(written).manifest.name == "tiny-random"
    assert read_model(written).weights == written.with_suffix(".gguf")


def test_a_changed_byte_is_refused(copy):
    weights = copy.with_suffix(".gguf")
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    with pytest.raises(PinError, match="sha256"):
        read_model(copy)


@pytest.mark.parametrize("text", ["", "no manifest", '{"v": 1}', "[" * 100_000])
def test_what_is_no_manifest_is_refused(copy, text):
    copy.write_text(text)
    with pytest.raises(PinError):
        read_model(copy)


def test_missing_weights_are_named(copy):
    copy.with_suffix(".gguf").unlink()
    with pytest.raises(PinError, match=r"no weights .*tiny-random\.gguf"):
        read_model(copy)


@pytest.mark.engine
def test_a_model_that_cannot_read_fails_the_exam_in_the_common_form(written):
    report, wrong = measure_model(
        read_model(written), questions=3, seed=1, threads=1, progress=lambda *_: None
    )
    value = report.json()
    assert not report.ok
    assert wrong
    assert value["control"] == {"name": "without its passage no question is answered", "ok": True}
    assert all(set(check) == {"name", "value", "bound", "unit", "n", "ok"} for check in value["checks"])
    assert [check["bound"] for check in value["checks"]] == [0.9, 0.85, 0.9, None, None, 1.0]


@pytest.mark.engine
def test_the_command_prints_the_report_as_its_last_line(written):
    command = [
        sys.executable,
        "-m",
        "appliance",
        "model",
        "bench",
        str(written),
        "--questions",
        "2",
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    value = json.loads(done.stdout.strip().splitlines()[-1])
    assert {"ok", "checks", "control"} == set(value)
    assert done.returncode == 1


def test_the_command_refuses_what_is_no_model(tmp_path):
    command = [sys.executable, "-m", "appliance", "model", "bench", str(tmp_path / "none.json"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["code"] == "pin_mismatch"
    assert "Traceback" not in done.stderr
