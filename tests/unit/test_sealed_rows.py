"""Row groups: bounded in rows and in bytes, in order, whatever comes in."""

from collections.abc import Iterator

import pyarrow as pa
import pytest

from shared.columns.schema import EVENT_SCHEMA
from shared.log import sealed_rows
from shared.log.limits import MIB
from shared.log.retention_classes import RetentionClasses
from shared.log.sealed_rows import ROW_GROUP_BYTES_MAX, ROW_GROUP_ROWS_MAX, WAITING_BYTES_MAX, sort_into_row_groups
from shared.log.types import Position, PositionRange
from tests.support.reference_events import event_batch, reference_batch

_CLASSES = RetentionClasses(default_seconds=1, by_type={f"c{number}": 2 + number for number in range(8)})


def _sorted(events: list[pa.RecordBatch], count: int) -> list[tuple[str, pa.Table]]:
    positions = PositionRange(Position(1), Position(count))
    return list(sort_into_row_groups(events, classes=_CLASSES, positions=positions, damage=()))


def _payload_events(sizes: list[int], first: int = 1, event_type: str = "t") -> pa.RecordBatch:
    return event_batch([{"type": event_type, "payload": f'"{"x" * size}"'} for size in sizes], first)


def test_small_events_fill_row_groups_by_rows() -> None:
    """131,072 rows each but the last, the positions in order, however the batches are cut."""
    count = 300_000
    events = reference_batch(count, 1, 1)
    payload = EVENT_SCHEMA.get_field_index("payload")
    events = events.set_column(payload, EVENT_SCHEMA.field(payload), pa.array(["{}"] * count))
    batches = [events.slice(start, 7_000) for start in range(0, count, 7_000)]
    groups = _sorted(batches, count)
    assert [group.num_rows for _, group in groups] == [ROW_GROUP_ROWS_MAX, ROW_GROUP_ROWS_MAX, count - 262_144]
    assert pa.concat_tables([group for _, group in groups]).combine_chunks().equals(pa.Table.from_batches([events]))


def test_large_events_fill_row_groups_by_bytes() -> None:
    """At most 32 MiB before compression, and not much less; one that is larger stands alone."""
    large = [_payload_events([MIB] * 8, first) for first in range(1, 81, 8)]
    huge = _payload_events([40 * MIB], 81)
    groups = [group for _, group in _sorted([*large, huge], 81)]
    assert [position for group in groups for position in group["position"].to_pylist()] == list(range(1, 82))
    *full, last = groups
    assert all(group.nbytes <= ROW_GROUP_BYTES_MAX for group in full)
    assert all(group.nbytes >= 0.9 * ROW_GROUP_BYTES_MAX for group in full[:2])
    assert last.num_rows == 1


def test_what_waits_is_bounded_over_all_classes() -> None:
    """With many classes none of which fills a row group, the largest makes room."""
    taken: list[int] = []

    def batches() -> Iterator[pa.RecordBatch]:
        for number in range(64):
            taken.append(number)
            yield _payload_events([MIB] * 4, 1 + 4 * number, f"c{number % 8}")

    positions = PositionRange(Position(1), Position(256))
    waiting = 0
    for _, group in sort_into_row_groups(batches(), classes=_CLASSES, positions=positions, damage=()):
        waiting = max(waiting, 4 * MIB * len(taken))
        assert waiting <= WAITING_BYTES_MAX + 8 * MIB
        taken[: group.num_rows // 4] = []
    assert waiting > WAITING_BYTES_MAX / 2


@pytest.mark.parametrize("rows", [1, 3])
def test_tiny_frames_are_joined_before_they_are_sorted(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The types of a batch are looked at once for thousands of rows."""
    looked = []
    split = sealed_rows.split_by_class
    monkeypatch.setattr(sealed_rows, "split_by_class", lambda batch, by: looked.append(len(batch)) or split(batch, by))
    events = reference_batch(9_000, 1, 1)
    ((name, group),) = _sorted([events.slice(start, rows) for start in range(0, 9_000, rows)], 9_000)
    assert (name, group.num_rows) == ("default", 9_000)
    assert looked == [8_192 if rows == 1 else 8_193, 808 if rows == 1 else 807]
