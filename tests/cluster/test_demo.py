"""The demo, as `make demo` runs it where there is no real data."""

import pytest

from deploy.demo.__main__ import main


@pytest.mark.cluster
def test_demo_brings_every_event_back(capsys, tmp_path):
    """Simulated events come back equal, are found, counted, exported, streamed, replayed; nothing is left running."""
    assert main(["--data", str(tmp_path / "missing"), "--days", "1"]) == 0
    out, err = capsys.readouterr()
    assert out.count("all equal, field by field") == 2
    assert "nothing logged twice" in out
    assert "sealed" in out
    assert "evaluated in Python: all counts equal" in out
    assert [name in out for name in ("events.jsonl ", "events.jsonl.zst", "events.parquet", "found.csv")] == [True] * 4
    assert [text in out for text in ("by hour of the day", "the slowest types", "directly follows")] == [True] * 3
    assert [text in out for text in ("the strongest first", "compared with", "half of such cases")] == [True] * 3
    assert "watching while 1,200 requests come" in out
    assert "programs subscribe" in out
    assert "goes on behind them" in out
    assert "as they were logged, each at its time" in out
    assert out.endswith("all services stopped\neverything that was logged came back as it was\n")
    assert err == ""
