"""From waiting requests to a frame: positions, repeats, expectations, streams, time."""

from collections.abc import Sequence
from typing import Any

import pytest

from ingest_service.enrichment import Enricher
from ingest_service.frame_builder import Built, FrameBuilder
from ingest_service.pending import PendingRequest, StreamOrder
from ingest_service.request_memory import RequestMemory
from shared.columns.wire import WireCodec
from shared.errors import EventException
from shared.log.frame import Frame, decode_frame
from shared.log.types import Nanoseconds, Position
from tests.support.fake_clock import START_NS, FakeClock
from tests.support.log_requests import log_request, new_event, numbered, pending

_SECOND = 1_000_000_000
_HORIZON_S = 3600


class _Builder:
    """A frame builder with its clock, and what it built."""

    def __init__(self, last_position: int = 0, recorded_at: int = 0, requests_max: int = 100) -> None:
        self.clock = FakeClock()
        self.memory = RequestMemory(requests_max=requests_max, horizon_s=_HORIZON_S)
        self.enricher = Enricher(WireCodec(), host="h", version="v")
        self.frames = FrameBuilder(
            self.enricher,
            self.memory,
            self.clock,
            last_position=Position(last_position),
            recorded_at=Nanoseconds(recorded_at),
        )

    def build(self, *requests: PendingRequest | bytes) -> Built:
        return self.frames.build([pending(each) if isinstance(each, bytes) else each for each in requests])


def _frame(built: Built) -> Frame:
    assert built.frame is not None
    return decode_frame(b"".join(built.frame.encoded().pieces))


def _numbers(built: Built) -> list[str]:
    return _frame(built).events.column("payload").to_pylist()


def _placed(built: Built) -> list[tuple[int, int]]:
    """Positions of the requests in the frame."""
    waiting = built.frame.waiting if built.frame else []
    return [(ack.positions.first, ack.positions.last) for _, ack in waiting]


def _repeated(built: Built) -> list[tuple[int, int]]:
    assert all(ack.duplicate for _, ack in built.repeated)
    return [(ack.positions.first, ack.positions.last) for _, ack in built.repeated]


def _refusals(built: Built) -> list[str]:
    return [outcome.reason for _, outcome in built.refused if isinstance(outcome, EventException)]


_WRONG = log_request(new_event(type=""))


def test_positions_follow_the_order_of_requests_without_a_gap() -> None:
    """Refused requests take no position, and the next frame goes on where this one ends."""
    builder = _Builder(last_position=7)
    built = builder.build(numbered(1, 2), _WRONG, numbered(3, 1), _WRONG, numbered(4, 3))
    assert _placed(built) == [(8, 9), (10, 10), (11, 13)]
    assert _refusals(built) == ["INVALID_EVENT", "INVALID_EVENT"]
    assert _numbers(built) == [f'{{"n":{number}}}' for number in range(1, 7)]
    assert _frame(built).first_position == 8
    assert _placed(builder.build(numbered(7, 1))) == [(14, 14)]


def test_a_group_of_refused_requests_makes_no_frame() -> None:
    """Nothing to log moves nothing."""
    builder = _Builder(last_position=7)
    built = builder.build(_WRONG)
    assert built.frame is None
    assert builder.frames.last_position == 7
    assert _placed(builder.build(numbered(1, 1))) == [(8, 8)]


def test_a_repeat_is_answered_with_the_first_positions() -> None:
    """In a later frame, and beside others that are new."""
    builder = _Builder()
    first = builder.build(numbered(1, 2, request_id="a"))
    recorded_at = _frame(first).recorded_at
    builder.clock.advance(5)
    built = builder.build(numbered(3, 1), numbered(1, 2, request_id="a"), numbered(4, 1, request_id="b"))
    assert _placed(built) == [(3, 3), (4, 4)]
    assert _repeated(built) == [(1, 2)]
    assert built.repeated[0][1].recorded_at == recorded_at
    assert _frame(built).recorded_at == recorded_at + 5 * _SECOND


def test_a_repeat_within_one_frame_is_logged_once() -> None:
    """A retry that overtakes the answer finds its first in the same group."""
    built = _Builder().build(numbered(1, 2, request_id="a"), numbered(3, 1), numbered(1, 2, request_id="a"))
    assert (_placed(built), _repeated(built)) == ([(1, 2), (3, 3)], [(1, 2)])
    marks = [(mark.request_id, mark.row, mark.count) for mark in _frame(built).marks]
    assert marks == [("a", 0, 2)]


def test_marks_name_the_rows_of_the_frame() -> None:
    """Rows count within the frame, past requests that were refused."""
    built = _Builder(last_position=5).build(
        numbered(1, 2), _WRONG, numbered(3, 1, request_id="a"), numbered(4, 2, request_id="b")
    )
    assert [(mark.request_id, mark.row, mark.count) for mark in _frame(built).marks] == [("a", 2, 1), ("b", 3, 2)]


@pytest.mark.parametrize("same_frame", [True, False])
def test_a_request_id_for_another_number_of_events_is_refused(*, same_frame: bool) -> None:
    """Whether the first is in an earlier frame or in the same one."""
    builder = _Builder()
    first, second = numbered(1, 2, request_id="a"), numbered(1, 3, request_id="a")
    built = [builder.build(first, second)] if same_frame else [builder.build(first), builder.build(second)]
    assert _placed(built[0]) == [(1, 2)]
    assert _refusals(built[-1]) == ["REQUEST_ID_REUSED"]
    assert builder.frames.last_position == 2
    assert _repeated(builder.build(first)) == [(1, 2)]


def test_a_refused_request_id_may_be_used_again() -> None:
    """Only what was logged is remembered."""
    builder = _Builder()
    assert _refusals(builder.build(log_request(new_event(type=""), request_id="a"))) == ["INVALID_EVENT"]
    assert _placed(builder.build(numbered(1, 2, request_id="a"))) == [(1, 2)]


def test_a_request_id_is_forgotten_after_the_horizon() -> None:
    """Then it names a new request."""
    builder = _Builder()
    builder.build(numbered(1, 1, request_id="a"))
    builder.clock.advance(_HORIZON_S)
    builder.build(numbered(2, 1))
    assert _repeated(builder.build(numbered(1, 1, request_id="a"))) == [(1, 1)]
    builder.clock.advance(1)
    builder.build(numbered(2, 1))
    assert _placed(builder.build(numbered(1, 1, request_id="a"))) == [(4, 4)]


def test_the_oldest_request_ids_make_room() -> None:
    """Beyond the maximum the oldest is forgotten before its horizon."""
    builder = _Builder(requests_max=2)
    for number, name in enumerate("abc"):
        builder.build(numbered(number, 1, request_id=name))
    assert _repeated(builder.build(numbered(1, 1, request_id="b"), numbered(2, 1, request_id="c"))) == [(2, 2), (3, 3)]
    assert _placed(builder.build(numbered(0, 1, request_id="a"))) == [(4, 4)]


def test_the_expected_position_is_that_before_the_request_itself() -> None:
    """What is placed earlier in the same frame counts, what is refused does not."""
    builder = _Builder(last_position=5)
    built = builder.build(
        numbered(1, 1, expected_last_position=5),
        _WRONG,
        numbered(2, 1, expected_last_position=5),
        numbered(2, 2, expected_last_position=6),
    )
    assert _placed(built) == [(6, 6), (7, 8)]
    assert _refusals(built) == ["INVALID_EVENT", "EXPECTED_POSITION_MISMATCH"]
    mismatch = built.refused[1][1]
    assert isinstance(mismatch, EventException)
    assert mismatch.metadata == {"last_position": "6"}


def test_an_empty_log_may_be_expected() -> None:
    """Zero is a position like any other here, not the absence of one."""
    assert _placed(_Builder().build(numbered(1, 1, expected_last_position=0))) == [(1, 1)]
    assert _refusals(_Builder(last_position=1).build(numbered(1, 1, expected_last_position=0)))


def test_a_repeat_is_answered_whatever_it_expects() -> None:
    """Its expectation was met when it was logged; it cannot be met again."""
    builder = _Builder()
    request = numbered(1, 1, request_id="a", expected_last_position=0)
    builder.build(request)
    assert _repeated(builder.build(numbered(2, 1), request)) == [(1, 1)]


def _stream(order: StreamOrder, *bodies: bytes) -> Sequence[PendingRequest]:
    return [pending(body, stream=order) for body in bodies]


def test_after_a_refusal_nothing_of_its_stream_is_logged() -> None:
    """Neither in the same frame nor in a later one; other streams and requests go on."""
    builder = _Builder()
    order, other = StreamOrder(), StreamOrder()
    first, wrong, after = _stream(order, numbered(1, 1), _WRONG, numbered(2, 1))
    (else_,) = _stream(other, numbered(3, 1))
    built = builder.build(first, wrong, after, else_, numbered(4, 1))
    assert _numbers(built) == ['{"n":1}', '{"n":3}', '{"n":4}']
    assert [request for request, _ in built.refused] == [wrong, after]
    assert (order.failed, other.failed) == (True, False)
    late = builder.build(*_stream(order, numbered(5, 1)), *_stream(other, numbered(6, 1)))
    assert (_numbers(late), _refusals(late)) == (['{"n":6}'], ["INVALID_EVENT"])


def test_a_repeat_does_not_end_a_stream() -> None:
    """A duplicate is an answer, not a refusal."""
    builder = _Builder()
    builder.build(numbered(1, 1, request_id="a"))
    order = StreamOrder()
    built = builder.build(*_stream(order, numbered(1, 1, request_id="a"), numbered(2, 1)))
    assert (_repeated(built), _placed(built), order.failed) == ([(1, 1)], [(2, 2)], False)


def test_recorded_at_never_decreases() -> None:
    """A clock that jumps back an hour stands still; one that jumps forward is believed."""
    builder = _Builder(recorded_at=START_NS + 10)
    times = []
    for jump in (0, -3600, 0, 1, 3700, -10_000_000):
        builder.clock.jump(jump)
        times.append(_frame(builder.build(numbered(1, 1))).recorded_at)
    assert times == sorted(times)
    assert times[:4] == [START_NS + 10] * 4
    assert times[4] == times[5] == START_NS + 101 * _SECOND


def test_a_clock_that_is_behind_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """The operator learns of it where it begins, and not of what time servers do."""
    builder = _Builder(recorded_at=START_NS)
    for jump in (0, -0.5, -60, -60, 119, 0, 1000, -500):
        builder.clock.jump(jump)
        builder.build(numbered(1, 1))
    told = [record for record in caplog.records if "the clock is behind" in record.message]
    assert [round(record.__dict__["seconds"], 1) for record in told] == [60.5, 500.0]


def test_a_jump_of_the_clock_forgets_no_request_id() -> None:
    """A request that is repeated after the clock went forward by a year, or back, is not logged again."""
    builder = _Builder()
    builder.build(numbered(1, 1, request_id="a"))
    for jump in (365 * 86_400, -366 * 86_400):
        builder.clock.jump(jump)
        builder.build(numbered(2, 1))
        assert _repeated(builder.build(numbered(1, 1, request_id="a"))) == [(1, 1)]


def test_a_missing_timestamp_is_the_time_of_recording() -> None:
    """The two times are equal where the producer gave none."""
    builder = _Builder(recorded_at=START_NS + 10)
    frame = _frame(builder.build(numbered(1, 1)))
    assert frame.events.column("timestamp").cast("int64").to_pylist() == [START_NS + 10]


def test_a_bug_while_building_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions, memory, time and streams are as before, so that the requests can be built again."""
    builder = _Builder(last_position=3)
    order = StreamOrder()
    requests = [pending(numbered(1, 2, request_id="a")), *_stream(order, _WRONG, numbered(2, 1))]

    def fail(*_: Any) -> None:
        raise RuntimeError("a bug")

    with monkeypatch.context() as broken:
        broken.setattr("ingest_service.frame_builder.serialize_frame", fail)
        with pytest.raises(RuntimeError):
            builder.build(*requests)
    assert builder.frames.last_position == 3
    assert (len(builder.memory), order.failed) == (0, False)
    assert _placed(builder.build(*requests)) == [(4, 5)]


def test_a_frame_is_charged_with_its_requests() -> None:
    """The cost of a frame is that of the requests in it, not of those that were refused or repeated."""
    builder = _Builder()
    first, second = pending(numbered(1, 2, request_id="a")), pending(numbered(3, 1))
    built = builder.build(first, pending(_WRONG), second, pending(numbered(1, 2, request_id="a")))
    assert built.frame is not None
    assert built.frame.cost == first.cost + second.cost
