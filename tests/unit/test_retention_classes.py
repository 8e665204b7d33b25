"""Retention classes: which class a type has, and safe names."""

import re

import pyarrow as pa
import pytest

from shared.log.retention_classes import RetentionClasses


def classes(**by_type: int) -> RetentionClasses:
    return RetentionClasses(default_seconds=90, by_type=by_type)


def test_plain_pattern_matches_the_type_and_all_below():
    """A pattern without wildcards matches the type itself and what lies below it, nothing else."""
    retention = classes(error=365)
    names = [retention.of_type(each).name for each in ("error", "error.disk.full", "errors", "my.error", "")]
    assert names == ["error", "error", "default", "default", "default"]


@pytest.mark.parametrize(
    ("event_type", "pattern"),
    [
        ("hook.tool.before", "hook.tool.before"),
        ("hook.tool.after", "hook.tool.*"),
        ("hook.session", "hook.*"),
        ("hook", "*"),
        ("a.failed", "*.failed"),
        ("ab.failed", "??.failed"),
        ("x[1]", "*"),
    ],
)
def test_most_specific_pattern_wins(event_type, pattern):
    """The equal pattern decides, then the longest; brackets are no wildcards."""
    by_type = {
        "hook.*": 1,
        "hook.tool.*": 2,
        "hook.tool.before": 3,
        "*.failed": 4,
        "?.failed": 5,
        "??.failed": 7,
        "x[2]": 6,
    }
    retention = RetentionClasses(default_seconds=90, by_type=by_type)
    assert retention.of_type(event_type).pattern == pattern
    assert retention.of_type(event_type).seconds == by_type.get(pattern, 90)


def test_equal_pattern_wins_over_a_longer_one():
    """A type that is itself a pattern has that class, whatever longer pattern matches it too."""
    retention = RetentionClasses(default_seconds=90, by_type={"ab": 1, "a*****": 2})
    assert retention.of_type("ab").seconds == 1


def test_classify_names_the_class_of_each_type():
    """Classification of a column agrees with that of single types and keeps the order."""
    retention = classes(error=365, audit=2555)
    types = ["error.x", "a", "audit", "error.x", "a"]
    expected = ["error", "default", "audit", "error", "default"]
    assert retention.classify(pa.array(types)).to_pylist() == expected
    assert retention.classify(pa.chunked_array([types[:2], types[2:]])).to_pylist() == expected
    assert retention.classify(pa.array([], pa.string())).to_pylist() == []


def test_names_are_safe_and_distinct():
    """Any pattern gets a file name of its own from a small alphabet, and can be found by it."""
    patterns = ["error", "error.*", "Error", "ERROR", "*", "**", "default", "é/..", "a" * 200, "a" * 201, ".."]
    retention = RetentionClasses(default_seconds=90, by_type=dict.fromkeys(patterns, 1))
    names = {pattern: retention.of_type(pattern).name for pattern in patterns}
    assert len(set(names.values())) == len(patterns)
    assert all(re.fullmatch(r"[a-z0-9_-]{1,60}", name) for name in names.values())
    assert names["error"] == "error"
    assert "default" not in names.values()
    assert all(retention.named(name).pattern == pattern for pattern, name in names.items())


def test_unknown_name_is_a_key_error():
    """Asking for a class that is not configured raises KeyError."""
    with pytest.raises(KeyError):
        classes(error=1).named("audit")
