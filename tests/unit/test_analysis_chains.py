"""Chains on real traces and on made-up ones: trees, critical paths, gaps, drawings, comparison, causes."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis_service.chains.causes import rank_causes
from analysis_service.chains.chain import NO_PARENT, Chain, chain_of, chains_of
from analysis_service.chains.drawing import draw_graphviz, draw_mermaid, draw_text
from analysis_service.chains.related import related_chains
from analysis_service.chains.shape import compare_with_usual
from analysis_service.chains.spans import find_spans
from analysis_service.chains.timing import measure
from analysis_service.columns import EventColumns
from tests.support.event_columns import columns_of, real_columns

_MS = 1_000_000
SPAN_KEYS = ("span_id", "parent_id", "start_unix_nano", "end_unix_nano", "duration_ms")


@pytest.fixture(scope="module")
def traces(data_dir: Path) -> EventColumns:
    """The spans of the shop."""
    return real_columns(data_dir / "traces_onlineboutique/spans.jsonl.gz", payload=SPAN_KEYS)


def _span(name: str, parent: str | None, start: float, end: float, **more) -> dict:
    return {
        "type": more.pop("type", name),
        "source": more.pop("source", f"service {name}"),
        "correlation_id": more.pop("chain", "chain"),
        "timestamp": int(start * _MS),
        "payload.span_id": name,
        "payload.parent_id": parent,
        "payload.duration_ms": float(end - start),
        **more,
    }


def _chain(rows: list[dict]) -> Chain:
    events = columns_of(rows)
    spans = find_spans(events)
    return chain_of(events, spans, measure(spans), 0)


def _facts(events: EventColumns) -> list[tuple]:
    """What a trace's analysis says, in terms that do not depend on the numbering of rows."""
    spans = find_spans(events)
    timing = measure(spans)
    ids = events.labels("payload.span_id")
    count = len(spans)
    names = [ids.values[code] for code in ids.codes[spans.rows]]
    parents = [names[parent] if parent < count else None for parent in spans.parents]
    return sorted(
        zip(
            spans.chain.tolist(),
            names,
            parents,
            timing.path_ns[:count].tolist(),
            timing.self_ns[:count].tolist(),
            strict=True,
        )
    )


def test_every_real_trace_has_one_root_and_a_path_as_long_as_it(traces: EventColumns):
    """No orphans; the parts of each critical path sum exactly to the root's duration; nothing is negative."""
    spans = find_spans(traces)
    timing = measure(spans)
    count = len(spans)
    assert count == len(traces.labels("payload.span_id").values)
    assert (np.bincount(spans.chain[spans.roots], minlength=spans.chains) == 1).all()
    assert not spans.orphans.any()
    assert spans.duplicates.sum() == len(traces) - count
    roots = np.flatnonzero(spans.roots)
    path = np.bincount(spans.chain, timing.path_ns[:count], spans.chains)
    assert (path == (spans.ends - spans.starts)[roots]).all()
    assert (timing.path_ns[count:] == 0).all()
    assert min(timing.path_ns.min(), timing.self_ns.min()) == 0


def test_order_and_repetition_of_real_spans_do_not_matter(traces: EventColumns):
    """Shuffled, and with a third of the spans delivered again, the answer is the same."""
    some = traces.take(np.flatnonzero(traces.labels("correlation_id").codes < 300))
    random = np.random.default_rng(3)
    again = random.integers(0, len(some), len(some) // 3)
    rows = random.permutation(np.concatenate((np.arange(len(some)), again)))
    assert _facts(some.take(rows)) == _facts(some)


def test_self_time_and_path_agree_with_a_walk_over_the_tree(traces: EventColumns):
    """The columnar computation gives what a plain recursive one gives, on 40 real traces."""
    some = traces.take(np.flatnonzero(traces.labels("correlation_id").codes < 40))
    spans = find_spans(some)
    timing = measure(spans)
    for chain in chains_of(some, spans, timing, range(spans.chains)):
        self_ns, path_ns = _walked(chain)
        assert chain.self_ns.tolist() == self_ns
        assert chain.path_ns.tolist() == path_ns


def _walked(chain: Chain) -> tuple[list[int], list[int]]:
    children: dict[int, list[int]] = {}
    for span, parent in enumerate(chain.parents.tolist()):
        children.setdefault(parent, []).append(span)
    self_ns, path_ns = [0] * len(chain), [0] * len(chain)

    def visit(span: int, low: int, high: int, *, on_path: bool) -> tuple[int, int]:
        start = min(max(int(chain.starts[span]), low), high)
        end = min(max(int(chain.ends[span]), low), high)
        clamp = lambda child: (  # noqa: E731
            min(max(int(chain.starts[child]), start), end),
            min(max(int(chain.ends[child]), start), end),
        )
        below = sorted(children.get(span, ()), key=lambda child: (clamp(child)[1], clamp(child)[0], child))
        cursor, covered, chosen = end, 0, set()
        for child in reversed(below):
            if clamp(child)[1] <= cursor:
                chosen.add(child)
                cursor = clamp(child)[0]
        busy = start
        for child in sorted(below, key=clamp):
            child_start, child_end = clamp(child)
            covered += max(0, child_end - max(busy, child_start))
            busy = max(busy, child_end)
        self_ns[span] = end - start - covered
        for child in below:
            visit(child, start, end, on_path=on_path and child in chosen)
        if on_path:
            path_ns[span] = end - start - sum(clamp(child)[1] - clamp(child)[0] for child in chosen)
        return start, end

    for root in children[NO_PARENT]:
        visit(root, int(chain.starts[root]), int(chain.ends[root]), on_path=True)
    return self_ns, path_ns


_SHAPES = st.lists(
    st.tuples(st.integers(-2, 14), st.integers(0, 40), st.integers(0, 30), st.sampled_from(["a", "b"])),
    min_size=1,
    max_size=15,
)


@given(_SHAPES, st.randoms(use_true_random=False))
def test_paths_sum_to_the_chain_whatever_the_causes(shape, random):
    """Also with orphans, circles, several roots, instants and children outside their parents; order does not matter."""
    rows = [
        {
            **_span(str(number), None if parent < 0 else str(parent), start, start + length, chain=chain),
            "position": number + 1,
        }
        for number, (parent, start, length, chain) in enumerate(shape)
    ]
    events = columns_of(rows)
    spans = find_spans(events)
    timing = measure(spans)
    count = len(spans)
    length = (timing.ends - timing.starts)[count:]
    assert (np.bincount(spans.chain, timing.path_ns[:count], spans.chains) + timing.path_ns[count:] == length).all()
    assert min(timing.path_ns.min(), timing.self_ns.min()) >= 0
    assert (timing.self_ns <= timing.ends - timing.starts).all()
    random.shuffle(rows)
    assert _facts(columns_of(rows)) == _facts(events)


def test_critical_path_goes_back_through_what_finished_last():
    """The root waited for b, which could begin only after a; c ran beside and delayed nothing."""
    chain = _chain(
        [
            _span("root", None, 0, 100),
            _span("a", "root", 10, 40),
            _span("b", "root", 50, 95),
            _span("c", "root", 20, 60),
        ]
    )
    shares = dict(zip(chain.types, (chain.path_ns / _MS).tolist(), strict=True))
    assert shares == {"root": 25.0, "a": 30.0, "c": 0.0, "b": 45.0}
    assert chain.duration_ns == 100 * _MS
    assert dict(zip(chain.types, (chain.self_ns / _MS).tolist(), strict=True))["root"] == 15.0


def test_child_that_outlasts_its_parent_is_clamped():
    """It counts up to the parent's end, and the sum still holds."""
    chain = _chain([_span("root", None, 0, 100), _span("child", "root", 60, 140)])
    assert (chain.path_ns / _MS).tolist() == [60.0, 40.0]


_EXTREMES = st.sampled_from((-(2**63), -(2**62), 0, 2**62, 2**63 - 1))


@given(st.lists(st.tuples(_EXTREMES, st.sampled_from((0.0, 9e11)), st.sampled_from(("a", "b.done"))), min_size=1))
def test_times_centuries_apart_overflow_nothing(events):
    """No length is negative, and the parts sum to the chain, from the first to the last time there is."""
    rows = [
        {"type": kind, "correlation_id": "c", "timestamp": time, "payload.duration_ms": duration}
        for time, duration, kind in events
    ]
    chain = _chain(rows)
    assert (chain.ends >= chain.starts).all()
    assert min(chain.self_ns.min(), chain.path_ns.min(), chain.waiting_ns) >= 0
    assert 0 <= chain.duration_ns < 2**63
    assert chain.duration_ns == int(chain.ends.max()) - int(chain.starts.min())


def test_gaps_orphans_circles_and_duplicates_are_told():
    """A missing parent and a circle of causes are orphans; the longest gap comes first."""
    chain = _chain(
        [
            _span("root", None, 0, 10),
            _span("late", "missing", 50, 60),
            _span("late", "missing", 50, 60),
            _span("x", "y", 90, 95),
            _span("y", "x", 91, 94),
        ]
    )
    assert [chain.types[span] for span in np.flatnonzero(chain.orphans)] == ["late", "x"]
    assert chain.duplicates == 1
    assert [(gap.start_ns // _MS, gap.end_ns // _MS) for gap in chain.gaps] == [(10, 50), (60, 91)]
    assert [chain.types[span] for span in chain.roots] == ["root"]


def test_failure_began_at_the_deepest_failed_span():
    """Spans above that failed because of it are not where it began."""
    chain = _chain(
        [
            _span("root", None, 0, 100, **{"payload.status": "error"}),
            _span("middle", "root", 10, 90, **{"payload.status": "error"}),
            _span("deep", "middle", 20, 30, **{"payload.status": "error"}),
            _span("fine", "middle", 40, 50, **{"payload.status": "ok"}),
        ]
    )
    assert chain.failed.tolist() == [True, True, True, False]
    assert [chain.types[span] for span in chain.origins] == ["deep"]


def test_without_causes_a_longer_event_contains_what_ran_in_it():
    """Events that tell of their end are put where they ran; events of one type stay side by side."""
    rows = [
        {"type": "job.started", "correlation_id": "c", "timestamp": 1 * _MS, "payload.duration_ms": None},
        {"type": "stage.completed", "correlation_id": "c", "timestamp": 60 * _MS, "payload.duration_ms": 50.0},
        {"type": "part.completed", "correlation_id": "c", "timestamp": 40 * _MS, "payload.duration_ms": 30.0},
        {"type": "part.completed", "correlation_id": "c", "timestamp": 35 * _MS, "payload.duration_ms": 15.0},
        {"type": "job.completed", "correlation_id": "c", "timestamp": 100 * _MS, "payload.duration_ms": 100.0},
    ]
    chain = _chain(rows)
    assert chain.inferred
    parents = [
        (chain.types[span], chain.types[parent]) for span, parent in enumerate(chain.parents) if parent != NO_PARENT
    ]
    assert sorted(parents) == [
        ("job.started", "job.completed"),
        ("part.completed", "stage.completed"),
        ("part.completed", "stage.completed"),
        ("stage.completed", "job.completed"),
    ]
    assert chain.duration_ns == 100 * _MS


def test_text_drawing_is_a_tree():
    """Golden: what a person sees of a small chain."""
    chain = _chain(
        [
            _span("checkout", None, 0, 100, source="shop"),
            _span("charge", "checkout", 10, 60, source="bank", **{"payload.status": "error"}),
            _span("retry", "charge", 20, 30, source="bank", **{"payload.status": "ok"}),
            _span("ship", "checkout", 70, 95, source="depot"),
        ]
    )
    assert draw_text(chain).splitlines() == [
        "chain: 4 events, 100.00 ms, 1 failed",
        "checkout     shop        100.00 ms  ████████████████████████  path 25.00 ms",
        "├─ charge    bank         50.00 ms    █████████████           path 40.00 ms, FAILED, began here",
        "│  └─ retry  bank         10.00 ms      ████                  path 10.00 ms",
        "└─ ship      depot        25.00 ms                  ███████   path 25.00 ms",
    ]


def test_diagrams_escape_what_events_say():
    """Text of an event cannot add nodes or edges to a diagram."""
    hostile = 'a"]; evil --> "b\\n'
    chain = _chain([_span("one", None, 0, 10, type=hostile), _span("two", "one", 2, 8)])
    mermaid, dot = draw_mermaid(chain), draw_graphviz(chain)
    assert mermaid.count("-->") + mermaid.count("==>") == 1
    assert '"]; evil' not in mermaid
    assert '\\"]; evil' in dot
    assert dot.count("->") - dot.count("-->") == 1
    assert len(dot.splitlines()) == 7
    assert "more events" in draw_text(chain, spans_max=1)


def test_chain_is_compared_with_the_usual_ones():
    """A step that is missing, one that is new and one that is slow are named, in words."""
    rows = []
    for number in range(20):
        chain = f"chain {number:02d}"
        odd = number == 7
        rows += [
            _span(f"r{number}", None, 0, 100 + number % 3, type="request", chain=chain),
            _span(f"d{number}", f"r{number}", 5, 80 if odd else 10 + number % 3, type="database", chain=chain),
            _span(f"c{number}", f"r{number}", 85, 90, type="backdoor" if odd else "cache", chain=chain),
        ]
    events = columns_of(rows)
    spans = find_spans(events)
    comparison = compare_with_usual(events, spans, measure(spans), 7)
    assert (comparison.kind, comparison.references) == ("request", 19)
    assert {(each.what, each.type) for each in comparison.differences} == {
        ("missing", "cache"),
        ("extra", "backdoor"),
        ("slower", "database"),
    }
    words = " ".join(each.describe() for each in comparison.differences)
    assert "cache below request is missing; 100% of such chains have it" in words
    assert "database below request took 75 ms itself" in words
    few = columns_of(rows[:9])
    spans = find_spans(few)
    assert compare_with_usual(few, spans, measure(spans), 0).differences == ()


def test_planted_fault_is_the_first_cause(traces: EventColumns):
    """A service made slow in a tenth of the real traces explains the slowness best; one that fails, the errors."""
    table = _slowed(traces, "currencyservice", delay_ms=3000)
    spans = find_spans(table)
    causes = rank_causes(table, spans, measure(spans))
    slowness = next(cause for cause in causes if cause.what == "slowness")
    errors = next(cause for cause in causes if cause.what == "errors")
    assert slowness.source == "currencyservice"
    assert errors.source == "currencyservice"
    assert errors.score == 1.0
    assert slowness.expression().startswith("source = 'currencyservice' AND type = 'span.")
    assert slowness.examples[0] in table.labels("correlation_id").values
    assert "delay" in slowness.describe()


def _slowed(traces: EventColumns, source: str, *, delay_ms: int) -> EventColumns:
    """Every tenth trace: one span of the source takes longer, with all that waits for it, and fails."""
    spans = find_spans(traces)
    ends = spans.ends.copy()
    status = np.full(len(traces), "ok", dtype=object)
    sources = traces.labels("source")
    theirs = sources.codes[spans.rows] == sources.values.index(source)
    for chain in range(0, spans.chains, 10):
        mine = np.flatnonzero(theirs[spans.borders[chain] : spans.borders[chain + 1]]) + spans.borders[chain]
        if not len(mine):
            continue
        span = int(mine[0])
        status[spans.rows[span]] = "error"
        while span < len(spans):
            ends[span] += delay_ms * _MS
            span = int(spans.parents[span])
    rows = spans.rows
    names = {
        name: traces.labels(name)
        for name in ("type", "source", "correlation_id", "payload.span_id", "payload.parent_id")
    }
    columns = {
        name: pa.array([each.text(code) for code in each.codes[rows].tolist()], pa.string())
        for name, each in names.items()
    }
    columns["payload.start_unix_nano"] = pa.array(spans.starts)
    columns["payload.end_unix_nano"] = pa.array(ends)
    columns["payload.status"] = pa.array(status[rows].tolist(), pa.string())
    columns["position"] = pa.array(traces.positions[rows].astype(np.uint64))
    columns["timestamp"] = pa.array(traces.times[rows], pa.timestamp("ns", tz="UTC"))
    return EventColumns(pa.table(columns))


def test_related_chains_name_causes_first():
    """The chain that a payload names, those that name it, and those of the same session."""
    rows = [
        {"type": "t", "correlation_id": "mine", "session_id": "s", "payload.caused_by": "boss"},
        {"type": "t", "correlation_id": "boss", "session_id": "s", "payload.caused_by": None},
        {"type": "t", "correlation_id": "child", "session_id": "x", "payload.caused_by": "mine"},
        {"type": "t", "correlation_id": "mate", "session_id": "s", "payload.caused_by": None},
        {"type": "t", "correlation_id": "stranger", "session_id": "y", "payload.caused_by": None},
    ]
    found = related_chains(columns_of(rows), "mine")
    assert [(each.correlation_id, each.why) for each in found] == [
        ("boss", "caused by"),
        ("child", "causes"),
        ("mate", "same session"),
    ]


def test_no_events_have_no_chains():
    """Nothing comes of nothing, without an error."""
    events = columns_of([_span("a", None, 0, 1)]).take(np.array([], np.int64))
    spans = find_spans(events)
    assert (len(spans), spans.chains) == (0, 0)
    assert len(measure(spans).starts) == 0
    assert rank_causes(events, spans, measure(spans)) == []
