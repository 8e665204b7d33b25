"""Builds the log that query benchmarks read: reference events, sealed, and a tail that is not sealed yet.

    python -m tests.benchmarks.query_log DIRECTORY [--sealed 9] [--tail 1000000]

Written by the real writer and sealer, without a service between: ten million events take about a minute.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

from shared.clock import SystemClock
from shared.columns.schema import FRAME_SCHEMA
from shared.log.file_system import LocalFileSystem
from shared.log.frame import Frame, encode_frame
from shared.log.log_writer import LocalLogWriter, RotationLimits
from shared.log.retention_classes import RetentionClasses
from shared.log.sealed_segment import seal_events
from shared.log.types import Nanoseconds, Position
from tests.benchmarks.bench import Bench
from tests.support.reference_events import reference_batch

LOG_ID = "BENCHK0G"
SEGMENT_EVENTS = 1_000_000
SEALED_SEGMENTS, TAIL_EVENTS = 9, 1_000_000
FRAME_EVENTS = 2_000
_BATCH_EVENTS = 50_000
_DAY_S = 86_400
_SEED = 7


def build_query_log(
    directory: Path,
    *,
    sealed_segments: int,
    tail_events: int,
    segment_events: int = SEGMENT_EVENTS,
    progress: Callable[[str], None] = lambda _: None,
) -> None:
    """Fill an empty directory with a log of sealed_segments * segment_events + tail_events reference events.

    segment_events: a multiple of 50,000.
    """
    fs = LocalFileSystem(directory)
    classes = RetentionClasses(default_seconds=90 * _DAY_S, by_type={"error": 365 * _DAY_S, "audit": 2555 * _DAY_S})
    for number in range(sealed_segments):
        first = number * segment_events + 1
        last = first + segment_events - 1
        events = [reference_batch(_BATCH_EVENTS, _SEED, at) for at in range(first, last, _BATCH_EVENTS)]
        seal_events(fs, first=Position(first), last=Position(last), events=events, log_id=LOG_ID, classes=classes)
        progress(f"{last:,} events sealed")
    limits = RotationLimits(bytes_max=1 << 40, raw_bytes_max=1 << 40, age_max_s=1e9, events_max=1 << 40)
    writer = LocalLogWriter(fs, SystemClock(), limits=limits, free_bytes_min=0, new_log_id=LOG_ID)
    try:
        _append_tail(writer, tail_events)
    finally:
        writer.close()
    progress(f"{tail_events:,} more in the tail")


def shared_query_log(bench: Bench) -> tuple[Path, int]:
    """The log of a run that all of its cases read, built when first asked for, and how many events it has."""
    log = bench.directory / "query-log"
    sealed, tail = bench.count(SEALED_SEGMENTS), bench.count(TAIL_EVENTS)
    events = sealed * SEGMENT_EVENTS + tail
    if not log.exists():
        log.mkdir()
        bench.progress(f"writing a log of {events:,} events")
        build_query_log(log, sealed_segments=sealed, tail_events=tail)
    return log, events


def _append_tail(writer: LocalLogWriter, count: int) -> None:
    first = writer.last_position + 1
    for at in range(first, first + count, FRAME_EVENTS):
        events = reference_batch(min(FRAME_EVENTS, first + count - at), _SEED, at)
        recorded_at = Nanoseconds(int(events.column("recorded_at")[0].value))
        writer.append(encode_frame(Frame(Position(at), recorded_at, events.select(FRAME_SCHEMA.names))))


def main() -> None:
    """Build a log from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--sealed", type=int, default=9, help="sealed segments of a million events")
    parser.add_argument("--tail", type=int, default=1_000_000, help="events that are not sealed")
    arguments = parser.parse_args()
    build_query_log(arguments.directory, sealed_segments=arguments.sealed, tail_events=arguments.tail, progress=print)


if __name__ == "__main__":
    main()
