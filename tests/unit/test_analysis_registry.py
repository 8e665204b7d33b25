"""Analyses by name: what is listed, parameters with their ranges, additions of packages."""

from importlib.metadata import EntryPoint, EntryPoints

import pytest

from analysis_service import registry
from analysis_service.anomalies.detect import KINDS
from analysis_service.patterns.pattern import PatternRequest
from analysis_service.registry import Analysis, analyses, checked_parameters, chosen, refuse_unknown
from shared.errors import EventAnalysisException, EventValidationException
from tests.support.event_columns import columns_of


def _nothing(_request: PatternRequest) -> list:
    return []


ADDED = Analysis("night_shift", "Who works at night.", find_patterns=_nothing)
TAKEN = Analysis("sequence", "Another one.", find_patterns=_nothing)


def _with(monkeypatch, name: str) -> None:
    point = EntryPoint(name="x", value=f"{__name__}:{name}", group=registry.ENTRY_POINTS)
    monkeypatch.setattr(EntryPoint, "load", lambda _self: globals()[name])
    monkeypatch.setattr(registry, "entry_points", lambda group: EntryPoints([point]))


def test_every_kind_is_registered_under_its_name():
    """The kinds of patterns and of anomalies, each described, with defaults within their ranges."""
    found = analyses()
    patterns = {name for name, each in found.items() if each.family == "pattern"}
    assert {"sequence", "directly_follows", "variant", "periodic", "burst", "co_occurrence"} <= patterns
    assert set(found) - patterns == set(KINDS)
    for analysis in found.values():
        assert analysis.description.endswith(".")
        for parameter in analysis.parameters:
            assert parameter.minimum <= parameter.default <= parameter.maximum


def test_every_pattern_analysis_runs_with_its_defaults():
    """On a few events, without an error."""
    rows = [{"type": kind, "correlation_id": f"c{case}"} for case in range(4) for kind in ("a", "b")]
    for analysis in chosen((), "pattern"):
        assert analysis.find_patterns is not None
        request = PatternRequest(columns_of(rows), "correlation_id", 1.0, 2, checked_parameters(analysis, {}))
        assert isinstance(analysis.find_patterns(request), list)


def test_unknown_analysis_is_refused_with_the_nearest_name():
    """Under the reason that clients branch on."""
    with pytest.raises(EventAnalysisException, match="sequence") as caught:
        chosen(("sequense",), "pattern")
    assert caught.value.reason == "ANALYSIS_NOT_FOUND"


def test_parameters_are_checked_against_their_ranges():
    """Out of range, not whole, or unknown: each is refused by name."""
    (sequence,) = chosen(("sequence",), "pattern")
    assert checked_parameters(sequence, {"maxspan": 2.5}) == {"max_length": 6, "maxspan": 2.5}
    with pytest.raises(EventValidationException, match="from 2 to 10"):
        checked_parameters(sequence, {"max_length": 99})
    with pytest.raises(EventValidationException, match="whole"):
        checked_parameters(sequence, {"max_length": 2.5})
    with pytest.raises(EventValidationException, match="maxspan"):
        refuse_unknown({"maxspam": 1}, [sequence])


def test_package_can_add_an_analysis_but_not_replace_one(monkeypatch):
    """By an entry point that names an Analysis."""
    _with(monkeypatch, "ADDED")
    assert chosen(("night_shift",), "pattern") == [ADDED]
    _with(monkeypatch, "TAKEN")
    with pytest.raises(EventAnalysisException, match="already"):
        analyses()
    _with(monkeypatch, "_nothing")
    with pytest.raises(EventAnalysisException, match="no Analysis"):
        analyses()
