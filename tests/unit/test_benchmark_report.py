"""The benchmark's report: what a row says, and when it is on disk."""

import io
import json

import pytest

from tests.benchmarks.report import Failed, Report, RowSpec, Skipped

RATE = RowSpec("rate", "events/s", target=1000)
SECONDS = RowSpec("seconds", "s", target=2, at_most=True)
PEER = RowSpec("peer", "events/s")


@pytest.fixture
def file(tmp_path):
    return tmp_path / "build" / "bench.json"


def make_report(file, *specs, quick=False):
    out = io.StringIO()
    return Report(specs, out, file, quick=quick), out


@pytest.mark.parametrize(
    ("spec", "value", "holds"),
    [
        (RATE, 999.0, False),
        (RATE, 1000.0, True),
        (RATE, 1001.0, True),
        (SECONDS, 1.99, True),
        (SECONDS, 2.0, True),
        (SECONDS, 2.01, False),
        (PEER, 5.0, None),
    ],
)
def test_row_holds_on_the_right_side_of_its_target(file, spec, value, holds):
    """A target is the least or the most, itself included; without one nothing is judged."""
    report, _ = make_report(file, spec)
    report.add(spec.name, value)
    assert json.loads(file.read_text()) == [
        {"name": spec.name, "value": value, "unit": spec.unit, "target": spec.target, "holds": holds}
    ]


def test_row_is_judged_by_the_value_it_shows(file):
    """Rounding never leaves a row that says 2.0 against a target of 2 and yet fails."""
    report, _ = make_report(file, SECONDS)
    report.add("seconds", 2.0001)
    (row,) = json.loads(file.read_text())
    assert (row["value"], row["holds"]) == (2.0, True)


def test_file_is_whole_after_each_row(file):
    """A run that is broken off leaves the rows it measured."""
    report, _ = make_report(file, RATE, SECONDS)
    report.add("seconds", 1.0)
    assert [row["name"] for row in json.loads(file.read_text())] == ["seconds"]
    report.add("rate", 5.0)
    assert [row["name"] for row in json.loads(file.read_text())] == ["seconds", "rate"]


def test_skipped_row_says_why_and_is_not_judged(file):
    """A peer that is missing is listed with what to do about it, and is no failure."""
    report, out = make_report(file, RATE)
    report.add("rate", Skipped("the peer is missing; install it"))
    (row,) = json.loads(file.read_text())
    assert (row["value"], row["holds"], row["note"]) == (None, None, "skipped: the peer is missing; install it")
    assert "install it" in out.getvalue()
    assert report.finish() == 0


def test_failed_row_does_not_hold_and_fails_the_run(file):
    """A measurement that went wrong is no reached target, and the exit code says so."""
    report, _ = make_report(file, RATE)
    report.add("rate", Failed("broken"))
    (row,) = json.loads(file.read_text())
    assert (row["value"], row["holds"], row["note"]) == (None, False, "failed: broken")
    assert report.finish() == 1


def test_missed_target_does_not_fail_the_run(file):
    """A figure of a slower machine is a figure too: only its row says that the target is missed."""
    report, out = make_report(file, RATE)
    report.add("rate", 1.0)
    assert report.finish() == 0
    assert "0 of 1 targets hold" in out.getvalue()


def test_quick_rows_are_marked(file):
    """Nobody takes a figure of a quick run for a real one."""
    report, out = make_report(file, RATE, PEER, quick=True)
    report.add("rate", 2000.0)
    report.add("peer", Skipped("missing"))
    assert [row["note"] for row in json.loads(file.read_text())] == ["quick run", "quick run; skipped: missing"]
    assert out.getvalue().count("quick run") == 2


def test_table_is_aligned_and_shows_the_target_beside_the_figure(file):
    """Each line has figure, target and mark in the same columns."""
    report, out = make_report(file, RATE, SECONDS, PEER)
    report.add("rate", 123456.0)
    report.add("seconds", 2.5)
    report.add("peer", 7.0)
    assert out.getvalue().splitlines() == [
        "figure               measured        target",
        "rate         123,456 events/s       ≥ 1,000  ✓",
        "seconds                 2.5 s           ≤ 2  ✗",
        "peer               7 events/s",
    ]


def test_row_that_is_left_out_is_our_bug(file):
    """Each row that was asked for has an outcome, once."""
    report, _ = make_report(file, RATE, PEER)
    report.add("rate", 1.0)
    with pytest.raises(AssertionError, match="there already"):
        report.add("rate", 1.0)
    with pytest.raises(AssertionError, match="peer"):
        report.finish()
