"""The common form of every bench: a broken bound or a failed control is never ok."""

from appliance.bench.report import Check, Report


def check(value, bound=3.0):
    return Check("added", value, bound, "ms", 10)


def test_a_report_has_the_common_form():
    report = Report((check(1.5),), "control", True).json()
    assert report == {
        "ok": True,
        "checks": [{"name": "added", "value": 1.5, "bound": 3.0, "unit": "ms", "n": 10, "ok": True}],
        "control": {"name": "control", "ok": True},
    }


def test_a_broken_bound_or_a_failed_control_is_not_ok():
    assert not Report((check(3.5),), "control", True).ok
    assert not Report((check(1.5),), "control", False).ok
    assert Report((check(99.0, None),), "control", True).ok


def test_people_see_which_bound_is_broken():
    lines = Report((check(3.5), check(1.0)), "control", True).lines()
    assert [line.split()[0] for line in lines] == ["OUT", "ok", "ok"]
    assert "at most 3" in lines[0]
