"""Events of the reference shape, made by numpy so that a benchmark's generator is not what it measures.

The text of each payload has exactly the shape of the reference event. What varies, and how:
- a correlation id of 32 random bits for each chain of 5 to 10 events; about 50 chains run at a time;
- each chain belongs to a session: some 200 run at a time, each has 25 chains, so a million events
  have about 5,500 sessions; each session belongs to one of 100 users;
- duration 0 to 4,999, message number 0 to 9,999, items 0 to 49: uniform, independent;
- 15 types, 6 stages, 5 sources, 12 hosts with uneven weights; 4 % of the statuses are not "ok";
- timestamps in microseconds, 100 µs apart on average with exponential gaps, each up to 1 ms late;
- recorded_at in nanoseconds, one for each 500 positions, as a group commit gives.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shared.columns.schema import EVENT_SCHEMA

_START_NS = 1_705_746_600_000_000_000  # 2024-01-20T10:30:00Z
_GROUP_COMMIT_EVENTS = 500
_CHAINS_AT_A_TIME = 50
_CHAIN_EVENTS_MEAN = 7.5
_SESSION_CHAINS = 25
_SESSIONS_AT_A_TIME = 200

TYPES = (
    "pipeline.stage.completed",
    "pipeline.stage.started",
    "process.extraction.completed",
    "hook.tool.before",
    "hook.tool.after",
    "process.document.started",
    "process.batch.progress",
    "process.synthesis.completed",
    "pipeline.started",
    "pipeline.completed",
    "hook.session.start",
    "hook.session.stop",
    "process.retry.attempted",
    "pipeline.failed",
    "hook.config.changed",
)
STAGES = ("extraction", "validation", "synthesis", "enrichment", "indexing", "delivery")
SOURCES = ("synthesis_pipeline", "extraction_service", "hook_runner", "batch_processor", "scheduler")
HOSTS = tuple(f"worker-{number:02d}" for number in range(1, 13))
STATUSES = ("ok", "error", "retry", "timeout")
TAGS = (("prod", "eu"), ("prod", "us"), ("staging",), ())


def reference_batch(count: int, seed: int, first_position: int) -> pa.RecordBatch:
    """Make `count` events with EVENT_SCHEMA at consecutive positions; the same arguments, the same events.

    Sessions go on from one batch to the next where the seed is the same; chains end with their batch.
    """
    random = np.random.default_rng([seed, first_position])
    position = np.arange(first_position, first_position + count, dtype=np.uint64)
    chain = _chains(random, count)
    chains = int(chain.max(initial=0)) + 1
    session = _sessions(random, chains, first_position)
    users = pa.array([f"user{number}" for number in range(100)])
    columns = {
        "position": pa.array(position),
        "recorded_at": _times(_recorded_at(position)),
        "timestamp": _times(_happened_at(random, position)),
        "type": _choice(random, TYPES, count, skew=0.6),
        "source": _choice(random, SOURCES, count, skew=0.5),
        "correlation_id": _names("pipe_%08x", random.integers(0, 2**32, chains)).take(pa.array(chain)),
        "payload": _payloads(random, count),
        "host": _choice(random, HOSTS, count, skew=0.9),
        "version": _choice(random, ("1.0.0", "1.0.1"), count, skew=0.2),
        "user": users.take(pa.array(_scatter(session, seed + 1) % 100)).take(pa.array(chain)),
        "session_id": _names("sess_%06x", _scatter(session, seed) % 2**24).take(pa.array(chain)),
        "tags": pa.array(TAGS, EVENT_SCHEMA.field("tags").type).take(
            pa.array(_indices(random, len(TAGS), count, skew=0.4))
        ),
    }
    return pa.RecordBatch.from_pydict(columns, schema=EVENT_SCHEMA)


def _sessions(random: np.random.Generator, chains: int, first_position: int) -> np.ndarray:
    """Number of the session of each chain: about _SESSIONS_AT_A_TIME take turns, then others follow."""
    nth_chain = first_position / _CHAIN_EVENTS_MEAN + np.arange(chains)
    started = nth_chain / _SESSION_CHAINS + random.random(chains) * _SESSIONS_AT_A_TIME
    return started.astype(np.uint64)


def _scatter(numbers: np.ndarray, seed: int) -> np.ndarray:
    """Numbers that look random, the same for the same number and seed (the finaliser of splitmix64)."""
    mixed = numbers + np.uint64(seed * 0x9E3779B97F4A7C15 % 2**64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _names(form: str, numbers: np.ndarray) -> pa.Array:
    return pa.array([form % number for number in numbers.tolist()], pa.string())


def _chains(random: np.random.Generator, count: int) -> np.ndarray:
    """Number of the chain of each event: each has 5 to 10 events (the last maybe fewer) among those of others."""
    lengths = random.integers(5, 11, count // 5 + 1)
    chain = np.repeat(np.arange(len(lengths)), lengths)[:count]
    start = np.repeat(np.cumsum(lengths) - lengths, lengths)[:count]
    when = start + random.random(count) * _CHAINS_AT_A_TIME * _CHAIN_EVENTS_MEAN
    return chain[np.argsort(when, kind="stable")]


def _happened_at(random: np.random.Generator, position: np.ndarray) -> np.ndarray:
    """Timestamps in nanoseconds, whole microseconds, about 100 µs apart and not quite in order."""
    gaps = random.exponential(100.0, len(position))
    late = random.integers(0, 1_000, len(position))
    first = position[0] if len(position) else 0
    microseconds = (np.cumsum(gaps) + int(first) * 100.0).astype(np.int64) - late
    return _START_NS + microseconds * 1000


def _recorded_at(position: np.ndarray) -> np.ndarray:
    """One time in nanoseconds for each group commit, never decreasing."""
    group = position.astype(np.int64) // _GROUP_COMMIT_EVENTS
    return _START_NS + group * (_GROUP_COMMIT_EVENTS * 100_000) + (group * 7_919 + 104_729) % 1_000_003


def _times(nanoseconds: np.ndarray) -> pa.Array:
    return pa.array(nanoseconds.astype("datetime64[ns]"), EVENT_SCHEMA.field("timestamp").type)


def _indices(random: np.random.Generator, kinds: int, count: int, *, skew: float) -> np.ndarray:
    """Indices into `kinds` values, the first most frequent. The smaller skew is, the more so."""
    weights = 1.0 / np.arange(1, kinds + 1) ** (0.5 / skew)
    return np.searchsorted(np.cumsum(weights) / weights.sum(), random.random(count)).clip(0, kinds - 1)


def _choice(random: np.random.Generator, values: tuple[str, ...], count: int, *, skew: float) -> pa.Array:
    return pa.array(values, pa.string()).take(pa.array(_indices(random, len(values), count, skew=skew)))


def _payloads(random: np.random.Generator, count: int) -> pa.Array:
    """Payloads with the keys, the order and the spacing of the reference event."""
    return pc.binary_join_element_wise(
        '{"stage": "',
        _choice(random, STAGES, count, skew=0.8),
        '", "duration_ms": ',
        _digits(random.integers(0, 5_000, count)),
        ', "items_processed": ',
        _digits(random.integers(0, 50, count)),
        ', "status": "',
        pa.array(STATUSES).take(pa.array(np.maximum(0, random.integers(-96, 4, count)))),
        '", "message": "completed within budget #',
        _digits(random.integers(0, 10_000, count)),
        '"}',
        "",
    )


def _digits(numbers: np.ndarray) -> pa.Array:
    return pc.cast(pa.array(numbers), pa.string())


def event_batch(events: Sequence[Mapping[str, object]], first_position: int = 1) -> pa.RecordBatch:
    """Make a batch of hand-written events at consecutive positions; what an event leaves out is filled in."""
    rows = [
        {
            "position": first_position + number,
            "recorded_at": _START_NS + number,
            "timestamp": _START_NS + 1000 * number,
            "type": "test.event",
            "source": "test",
            "payload": "{}",
            "host": "host",
            "version": "1",
            "tags": [],
            **event,
        }
        for number, event in enumerate(events)
    ]
    return pa.RecordBatch.from_pylist(rows, schema=EVENT_SCHEMA)
