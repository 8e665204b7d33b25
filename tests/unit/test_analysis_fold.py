"""State folded from events: merge patches, snapshots, reducers."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis_service.fold import (
    NOTHING,
    FoldedEvent,
    StateFolder,
    decode_events,
    merge_patch,
    nearest_snapshot,
    reducer_of,
)
from shared.errors import EventAnalysisException, EventValidationException

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)
_OBJECTS = st.dictionaries(st.sampled_from("abc"), _JSON, max_size=3)


def _events(payloads: list[dict]) -> list[FoldedEvent]:
    return [FoldedEvent(number, number, f"t{number % 2}", payload) for number, payload in enumerate(payloads, 1)]


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ('{"a":"b"}', '{"a":"c"}', '{"a":"c"}'),
        ('{"a":"b"}', '{"b":"c"}', '{"a":"b","b":"c"}'),
        ('{"a":"b"}', '{"a":null}', "{}"),
        ('{"a":"b","b":"c"}', '{"a":null}', '{"b":"c"}'),
        ('{"a":["b"]}', '{"a":"c"}', '{"a":"c"}'),
        ('{"a":"c"}', '{"a":["b"]}', '{"a":["b"]}'),
        ('{"a":{"b":"c"}}', '{"a":{"b":"d","c":null}}', '{"a":{"b":"d"}}'),
        ('{"a":[{"b":"c"}]}', '{"a":[1]}', '{"a":[1]}'),
        ('["a","b"]', '["c","d"]', '["c","d"]'),
        ('{"a":"b"}', '["c"]', '["c"]'),
        ('{"a":"foo"}', "null", "null"),
        ('{"a":"foo"}', '"bar"', '"bar"'),
        ('{"e":null}', '{"a":1}', '{"e":null,"a":1}'),
        ("[1,2]", '{"a":"b","c":null}', '{"a":"b"}'),
        ("{}", '{"a":{"bb":{"ccc":null}}}', '{"a":{"bb":{}}}'),
    ],
)
def test_merge_patch_does_what_its_standard_shows(target, patch, result):
    """The examples of RFC 7396, appendix A."""
    decode = msgspec.json.decode
    assert merge_patch(decode(target), decode(patch)) == decode(result)


@given(st.lists(_OBJECTS, max_size=12), st.integers(1, 4), st.integers(0, 12))
def test_folding_from_a_snapshot_gives_what_folding_from_the_beginning_gives(payloads, every, until):
    """At every position, for merge patches."""
    whole = StateFolder(reducer_of("merge_patch"), snapshot_every=every)
    whole.advance(_events(payloads))
    direct = StateFolder(reducer_of("merge_patch"))
    direct.advance(_events(payloads)[:until])
    start = nearest_snapshot(whole.snapshots, until)
    assert start.position <= until
    resumed = StateFolder(reducer_of("merge_patch"), start=start)
    resumed.advance(_events(payloads)[:until])
    assert resumed.state == direct.state
    assert resumed.events == direct.events


def test_event_counts_once():
    """Repeated delivery does not count twice; the position says so."""
    folder = StateFolder(reducer_of("counter"))
    folder.advance(_events([{}, {}, {}]))
    folder.advance(_events([{}, {}, {}, {}]))
    assert folder.state == {"t1": 2, "t0": 2}
    assert folder.position == 4


def test_snapshots_are_bounded_and_spread():
    """However many events there are, snapshots are at most a thousand, and reach near the end."""
    folder = StateFolder(reducer_of("latest"), snapshot_every=1)
    folder.advance(FoldedEvent(number, 0, "t", {"n": number}) for number in range(1, 5001))
    assert 250 <= len(folder.snapshots) <= 1000
    assert nearest_snapshot(folder.snapshots, 5000).position > 4900
    assert nearest_snapshot([], 10) == NOTHING


def test_payload_text_is_decoded():
    """Columns become events, one by one."""
    (event,) = decode_events([7], [9], ["t"], ['{"a":1}'])
    assert event == FoldedEvent(7, 9, "t", {"a": 1})


def test_failing_reducer_says_where():
    """The error names the position, and the state before stays."""

    def fails(state: object, event: FoldedEvent) -> object:
        return {"ok": True} if event.position == 1 else 1 / 0

    folder = StateFolder(fails)
    with pytest.raises(EventAnalysisException, match="position 2"):
        folder.advance(_events([{}, {}]))
    assert folder.state == {"ok": True}
    folder = StateFolder(lambda _state, _event: object())
    folder.advance(_events([{}]))
    with pytest.raises(EventAnalysisException, match="no JSON"):
        folder.snapshot()


def test_unknown_reducer_names_those_that_there_are():
    """The refusal is of use to whoever mistyped."""
    with pytest.raises(EventValidationException, match="counter, latest, merge_patch"):
        reducer_of("nope")
