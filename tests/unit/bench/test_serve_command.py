"""The command line of the bench."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from appliance.bench.serve.serve import Options, measure_serve
from appliance.cli import bench, main
from appliance.core.errors import UsageError


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    bench.configure(parser)
    return parser.parse_args(arguments)


def test_the_way_in_is_what_is_measured_unless_something_else_is_asked_for() -> None:
    assert parse().part == "path"
    assert parse("--name", "other").name == "other"


def test_a_run_is_five_rounds_on_the_smallest_shape() -> None:
    args = parse("serve")
    assert (args.shape, args.rounds, args.case, args.full) == ("135m", 5, [], False)


def test_cases_add_up() -> None:
    assert parse("serve", "--case", "chat", "--case", "streams-8").case == ["chat", "streams-8"]


@pytest.mark.parametrize(
    "arguments",
    [("serve", "--rounds", "0"), ("serve", "--rounds", "x"), ("model", "--shape", "70b"), ("nothing",)],
)
def test_what_makes_no_sense_is_bad_usage(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(*arguments)
    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_an_unknown_case_is_refused_before_anything_is_built() -> None:
    with pytest.raises(UsageError) as refused:
        measure_serve(Options("135m", cases=("nothing",)), lambda _: None)
    assert "streams-8" in (refused.value.hint or "")


def test_the_model_of_a_shape_is_written_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from appliance.bench import shapes

    small = shapes.Shape("135m", "nothing", 1, 64, 2, 1, 64, 5000)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(shapes.SHAPES, "135m", small)
    assert main(["bench", "model", "--json"]) == 0
    (path,) = tmp_path.rglob("*.gguf")
    written = path.stat().st_mtime_ns
    assert main(["bench", "model"]) == 0
    assert path.stat().st_mtime_ns == written
    assert capsys.readouterr().out.splitlines()[-1] == str(path)
