"""Replay with the real processes: exact whatever is killed, at the pace that was asked for, under control."""

import threading
from time import monotonic

import grpc
import pytest
from eventlog.v1 import event_pb2, stream_service_pb2

from shared.rpc.remote_error import from_rpc_error
from tests.support.cluster import CALL_S_MAX, failure_of, metrics, refused, running, wait_until
from tests.support.replays import (
    START_S,
    Replayed,
    log_events,
    log_real,
    numbered,
    real_events,
    replay,
    replay_session,
    streams,
)

pytestmark = pytest.mark.cluster

Filters = event_pb2.EventFilters
Request = stream_service_pb2.ReplayRequest
RECORDED_AT = stream_service_pb2.REPLAY_CLOCK_RECORDED_AT
EVENTS = 6_000


@pytest.fixture(scope="module")
def shared(module_cluster, tmp_path_factory):
    """A stream service on a log with EVENTS events, one a millisecond; tests do not add to it."""
    with (
        module_cluster() as cluster,
        streams(
            cluster, tmp_path_factory.mktemp("stream"), max_speed=10_000, max_replays=3, heartbeat_interval=0.2
        ) as it,
    ):
        log_events(cluster, numbered(EVENTS))
        yield it


@pytest.fixture
def stub(shared):
    return shared.stub


@pytest.fixture
def own(shared, tmp_path):
    """A stream service of the test's own, on the log that is shared."""
    with streams(shared.cluster, tmp_path / "stream") as it:
        yield it


@pytest.fixture
def fresh(make_cluster, tmp_path):
    """A stream service on an empty log of its own."""
    with make_cluster() as cluster, streams(cluster, tmp_path / "stream", heartbeat_interval=0.2) as it:
        yield it


def control(stub, replay_id, **change):
    request = stream_service_pb2.ControlReplayRequest(replay_id=replay_id, **change)
    return stub.ControlReplay(request, timeout=CALL_S_MAX).state


def test_whole_log_is_replayed_as_it_was_logged(stub):
    """Unpaced, from the beginning: every event, once, in order, then COMPLETED with the end as resume position."""
    found = replay(stub)
    assert found.positions == list(range(1, EVENTS + 1))
    assert [event.payload_json for event in found.events[:3]] == ['{"n":0}', '{"n":1}', '{"n":2}']
    assert (found.started.start_position, found.started.until_position) == (1, EVENTS + 1)
    assert (found.closing.reason, found.closing.resume_position, found.error) == ("COMPLETED", EVENTS + 1, None)


@pytest.mark.parametrize(
    ("fields", "first", "last"),
    [
        ({"start": {"position": 100}, "until_position": 200}, 100, 199),
        ({"start": {"time": {"seconds": START_S + 1}}, "until_time": {"seconds": START_S + 2}}, 1001, 2000),
        ({"start": {"time": {"seconds": START_S - 1}}}, 1, EVENTS),
        ({"start": {"time": {"seconds": START_S + 10**6}}}, 1, 0),
        ({"start": {"time": {"seconds": START_S - 9}}, "until_time": {"seconds": START_S}}, 1, 0),
        ({"start": {"time": {"seconds": START_S - 9}}, "clock": RECORDED_AT}, 1, EVENTS),
        ({"until_time": {"seconds": START_S + 10**9}, "clock": RECORDED_AT}, 1, EVENTS),
        ({"start": {"time": {"seconds": START_S + 10**9}}, "clock": RECORDED_AT}, 1, 0),
        ({"start": {"position": EVENTS + 1}}, 1, 0),
        ({"start": {"position": EVENTS + 1000}}, 1, 0),
        ({"until_position": EVENTS + 1000}, 1, EVENTS),
        ({"until_position": 1}, 1, 0),
    ],
)
def test_bounds_have_defined_answers(stub, fields, first, last):
    """Positions and times, inside, before and after the log, give the events within, and the replay is complete."""
    found = replay(stub, **fields)
    assert found.positions == list(range(first, last + 1))
    assert (found.closing.reason, found.error) == ("COMPLETED", None)


def test_filters_choose_events(stub):
    """Structured filters and expressions together choose what is replayed."""
    found = replay(stub, filters=Filters(type_patterns=["replay.*"], expression="payload.n >= 10 AND payload.n < 20"))
    assert found.positions == list(range(11, 21))


def test_wrong_filter_is_told(stub):
    """A filter that does not parse is refused before anything is replayed, with the reason and where it is wrong."""
    found = replay(stub, filters=Filters(expression="payload.n << 1"))
    assert (found.started, found.error.reason) == (None, "INVALID_FILTER")
    assert found.error.metadata["column"]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"speed": 10_001.0}, "speed"),
        ({"speed": 0.01}, "speed"),
        ({"start": {"position": 1, "earliest": True}}, "start"),
        ({"checkpoint_name": "x" * 129}, "checkpoint_name"),
        ({"events_per_second_max": -1.0}, "events_per_second_max"),
    ],
)
def test_wrong_fields_are_named(stub, fields, field):
    """A field out of its range is named, before anything is replayed."""
    found = replay(stub, **fields)
    assert (found.started, found.error.reason, found.error.violations[0].field) == (None, "INVALID_FIELD", field)


def test_struct_payloads_are_given_where_asked_for(stub):
    """The form of payloads is the one that was asked for."""
    found = replay(stub, until_position=3, payload_form=event_pb2.PAYLOAD_FORM_STRUCT)
    assert [event.payload["n"] for event in found.events] == [0, 1]


def test_paced_replay_takes_its_time(stub):
    """At 10 times the pace, 6 seconds of events take 0.6 and no less, and come spread over that time."""
    found = replay(stub, speed=10.0)
    elapsed_s = found.arrived_s[-1] - found.arrived_s[0]
    assert found.positions == list(range(1, EVENTS + 1))
    # The first batch may come late, and then the last is nearer to it.
    assert elapsed_s > 0.4
    assert len(set(found.arrived_s)) > 20


def test_rate_limit_holds_whatever_the_speed(stub):
    """Unpaced with at most 2,000 events a second, 1,000 events take half a second."""
    found = replay(stub, until_position=1001, events_per_second_max=2000.0)
    assert len(found.events) == 1000
    assert found.arrived_s[-1] - found.arrived_s[0] > 0.4


def test_replay_is_controlled_while_it_runs(stub):
    """Paused it only beats and says where it is; at another speed it goes on at once; it ends complete."""
    call = stub.Replay(Request(speed=0.1), timeout=CALL_S_MAX)
    found = Replayed()
    messages = iter(call)
    while not found.events:
        found.take(next(messages))
    state = control(stub, found.started.replay_id, paused=True)
    assert (state.paused, state.speed) == (True, pytest.approx(0.1))
    before = len(found.heartbeats)
    while len(found.heartbeats) < before + 2:
        found.take(next(messages))
    state = control(stub, found.started.replay_id)
    assert state.position == found.positions[-1] == found.heartbeats[-1].resume_position - 1
    assert found.heartbeats[-1].lag_events == EVENTS - state.position
    assert state.timestamp == found.events[-1].timestamp
    state = control(stub, found.started.replay_id, paused=False, speed=0.0)
    assert (state.paused, state.speed) == (False, 0.0)
    for message in messages:
        found.take(message)
    assert (found.positions, found.closing.reason) == (list(range(1, EVENTS + 1)), "COMPLETED")
    with refused("REPLAY_NOT_FOUND"):
        control(stub, found.started.replay_id)


def test_replays_are_bounded(stub):
    """One more than max_replays is refused; when one ends there is room, also where its consumer just went away."""
    calls = [stub.Replay(Request(speed=0.1), timeout=CALL_S_MAX) for _ in range(3)]
    for call in calls:
        next(call)
    assert replay(stub).error.reason == "TOO_MANY_REQUESTS"
    calls[0].cancel()
    wait_until(lambda: replay(stub).error is None, "a place is free again")
    for call in calls:
        call.cancel()
    wait_until(lambda: refused_of_three(stub) == 0, "all places are free")


def refused_of_three(stub):
    """How many of three replays at once are refused."""
    calls = [stub.Replay(Request(speed=0.1), timeout=CALL_S_MAX) for _ in range(3)]
    refusals = [failure_of(lambda call=call: next(call)) for call in calls]
    for call in calls:
        call.cancel()
    return sum(refusal is not None and refusal.reason == "TOO_MANY_REQUESTS" for refusal in refusals)


def test_replays_at_once_do_not_disturb_each_other(stub):
    """Two unpaced replays beside a paused one give everything, each."""
    paused = stub.Replay(Request(speed=0.1), timeout=CALL_S_MAX)
    control(stub, next(paused).started.replay_id, paused=True)
    found = []
    with running(*[lambda: found.append(replay(stub)) for _ in range(2)]):
        pass
    paused.cancel()
    assert [each.positions for each in found] == [list(range(1, EVENTS + 1))] * 2


def test_replays_are_counted(shared, stub):
    """The metrics say how many replays run, how they ended, and how many events they gave."""
    before = metrics(shared.service)
    replay(stub, until_position=101)
    wait_until(lambda: metrics(shared.service)["eventlog_replay_running"] == 0, "the replay has ended")
    after = metrics(shared.service)
    ended = "eventlog_replay_ended_total{reason=COMPLETED}"
    assert after[ended] - before.get(ended, 0) == 1
    assert after["eventlog_replay_events_total"] - before["eventlog_replay_events_total"] == 100


def test_positions_are_saved_loaded_listed_and_deleted(stub):
    """Any name; the state as it was; pages in the order of names; deleting what is not there is an error."""
    state = stream_service_pb2.ReplayState(position=7, speed=2.0, filters=Filters(sources=["a"]))
    for name in ("z", "a/../é", "b"):
        stub.SavePosition(stream_service_pb2.SavePositionRequest(name=name, state=state), timeout=CALL_S_MAX)
    loaded = stub.LoadPosition(stream_service_pb2.LoadPositionRequest(name="a/../é"), timeout=CALL_S_MAX)
    assert loaded.state == state
    names, token = [], None
    while token != "":
        request = stream_service_pb2.ListPositionsRequest(page_size=2, page_token=token or "")
        page = stub.ListPositions(request, timeout=CALL_S_MAX)
        names += [each.name for each in page.positions]
        token = page.next_page_token
    assert names == sorted(names)
    assert {"z", "a/../é", "b"} <= set(names)
    for name in ("z", "a/../é", "b"):
        stub.DeletePosition(stream_service_pb2.DeletePositionRequest(name=name), timeout=CALL_S_MAX)
    with refused("CHECKPOINT_NOT_FOUND"):
        stub.DeletePosition(stream_service_pb2.DeletePositionRequest(name="z"), timeout=CALL_S_MAX)
    with refused("CHECKPOINT_NOT_FOUND"):
        stub.LoadPosition(stream_service_pb2.LoadPositionRequest(name="z"), timeout=CALL_S_MAX)
    with refused("INVALID_FIELD"):
        stub.SavePosition(stream_service_pb2.SavePositionRequest(state=state), timeout=CALL_S_MAX)
    with refused("INVALID_PAGE_TOKEN"):
        stub.ListPositions(stream_service_pb2.ListPositionsRequest(page_token="AAAA"), timeout=CALL_S_MAX)


def test_damaged_position_is_an_error_of_its_own(shared, stub):
    """A flipped bit in the file of a saved position fails its load and its replay, and nothing else."""
    state = stream_service_pb2.ReplayState(position=7)
    before = set(shared.checkpoints.rglob("*.position"))
    stub.SavePosition(stream_service_pb2.SavePositionRequest(name="bad", state=state), timeout=CALL_S_MAX)
    (file,) = set(shared.checkpoints.rglob("*.position")) - before
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with refused("CHECKPOINT_DAMAGED"):
        stub.LoadPosition(stream_service_pb2.LoadPositionRequest(name="bad"), timeout=CALL_S_MAX)
    assert replay(stub, start={"checkpoint": "bad"}).error.reason == "CHECKPOINT_DAMAGED"
    listed = stub.ListPositions(stream_service_pb2.ListPositionsRequest(), timeout=CALL_S_MAX).positions
    assert [each.HasField("state") for each in listed if each.name == "bad"] == [False]
    stub.DeletePosition(stream_service_pb2.DeletePositionRequest(name="bad"), timeout=CALL_S_MAX)


def test_unknown_checkpoint_is_not_found(stub):
    """A replay from a position that was never saved says so."""
    assert replay(stub, start={"checkpoint": "never"}).error.reason == "CHECKPOINT_NOT_FOUND"


def test_checkpoint_of_a_complete_replay_is_its_end(stub):
    """At the end the position is saved before the replay is closed; a replay from there has nothing left."""
    replay(stub, checkpoint_name="complete", until_position=50, filters=Filters(expression="payload.n < 10"))
    saved = stub.LoadPosition(stream_service_pb2.LoadPositionRequest(name="complete"), timeout=CALL_S_MAX).state
    assert (saved.position, saved.filters.expression) == (49, "payload.n < 10")
    assert replay(stub, start={"checkpoint": "complete"}).positions == []
    rest = replay(stub, start={"checkpoint": "complete"}, filters=Filters(expression="payload.n < 60"))
    assert rest.positions == list(range(50, 61))


def test_session_is_replayed_with_what_is_related(fresh):
    """The session's events with and without a correlation id, and others of those chains, in the order of positions."""
    log_events(
        fresh.cluster,
        [
            event_pb2.NewEvent(type="t", correlation_id=chain, metadata={"session_id": session} if session else {})
            for session, chain in [
                ("it's", "a"),  # 1
                ("other", "a"),  # 2: related
                ("other", "b"),  # 3
                ("it's", None),  # 4: of the session, without a chain
                (None, "c"),  # 5: related by what comes later
                ("it's", "c"),  # 6
                (None, None),  # 7
            ]
        ],
    )
    stub = fresh.stub
    assert replay_session(stub, "it's").positions == [1, 2, 4, 5, 6]
    assert replay_session(stub, "it's", include_related=False).positions == [1, 4, 6]
    assert replay_session(stub, "it's", from_position=2, until_position=6).positions == [2, 4, 5]
    found = replay_session(stub, "nobody")
    assert (found.positions, found.closing.reason) == ([], "COMPLETED")
    log_events(fresh.cluster, [event_pb2.NewEvent(type="t", correlation_id="b", metadata={"session_id": "it's"})])
    assert replay_session(stub, "it's").positions == [1, 2, 3, 4, 5, 6, 8]
    assert replay_session(stub, "").error.reason == "INVALID_FIELD"


def test_session_of_thousands_of_chains(fresh):
    """2,500 correlation ids are followed, in order; 10,001 are refused, with what to do instead."""
    session = {"session_id": "large"}
    chains = [event_pb2.NewEvent(type="t", correlation_id=f"chain-{n}", metadata=session) for n in range(10_001)]
    related = [event_pb2.NewEvent(type="t", correlation_id=f"chain-{n}") for n in range(2_500)]
    log_events(fresh.cluster, chains[:2_500] + related)
    assert replay_session(fresh.stub, "large").positions == list(range(1, 5_001))
    log_events(fresh.cluster, chains[2_500:])
    assert replay_session(fresh.stub, "large").error.reason == "SESSION_TOO_LARGE"
    assert len(replay_session(fresh.stub, "large", include_related=False).events) == 10_001


def test_empty_log_is_a_complete_replay(fresh):
    """Before the first event is logged, every replay is complete and empty."""
    for fields in ({}, {"start": {"time": {"seconds": START_S}}}, {"start": {"position": 5}}, {"clock": RECORDED_AT}):
        found = replay(fresh.stub, **fields)
        assert (found.positions, found.closing.reason, found.error) == ([], "COMPLETED", None)


def test_real_data_at_ten_times_its_pace_takes_a_tenth(fresh, data_dir):
    """30 seconds of real traces, logged in bulk, take 3 seconds at 10 times their pace, within 1 %.

    The duration is that between the first and the last event at the consumer. One of three attempts must hold: a busy
    machine may run the consumer late, but never early.
    """
    spans = real_events(data_dir / "traces_onlineboutique" / "spans.jsonl.gz")
    start_ns = spans[0].timestamp_ns
    chosen = [span for span in spans if span.timestamp_ns < start_ns + 30 * 10**9]
    log_real(fresh.cluster, chosen)
    expected_s = (max(span.timestamp_ns for span in chosen) - start_ns) / 1e9 / 10
    durations = []
    while len(durations) < 3 and not any(abs(each / expected_s - 1) <= 0.01 for each in durations):
        found = replay(fresh.stub, speed=10.0)
        assert len(found.events) == len(chosen)
        durations.append(found.arrived_s[-1] - found.arrived_s[0])
    assert any(abs(each / expected_s - 1) <= 0.01 for each in durations), f"{durations} of {expected_s} s"


def test_killed_replay_is_resumed_without_a_loss(own):
    """After kill -9 of the stream service, what was saved is not ahead of what came, and the rest comes exactly."""
    found = Replayed()
    call = own.stub.Replay(Request(speed=1.0, checkpoint_name="killed"), timeout=CALL_S_MAX)

    def saved():
        listed = own.stub.ListPositions(stream_service_pb2.ListPositionsRequest(), timeout=CALL_S_MAX)
        return sum(each.state.position for each in listed.positions)

    def take():
        try:
            for message in call:
                found.take(message)
        except grpc.RpcError:
            return

    with running(take):
        wait_until(lambda: saved() > 100, "a position is saved")
        own.service.kill()
    own.service.start()
    position = saved()
    assert 100 < position <= found.positions[-1]
    rest = replay(own.stub, start={"checkpoint": "killed"}, speed=0.0)
    assert rest.positions == list(range(position + 1, EVENTS + 1))
    assert found.positions == list(range(1, found.positions[-1] + 1))


def test_restart_of_the_query_service_only_delays_a_replay(fresh):
    """While query is killed and started again, a replay waits; nothing is missing or twice."""
    log_events(fresh.cluster, numbered(EVENTS))
    address = fresh.cluster.query.address
    call = fresh.stub.Replay(Request(speed=0.1), timeout=2 * CALL_S_MAX)
    found = Replayed()
    messages = iter(call)
    found.take(next(messages))
    control(fresh.stub, found.started.replay_id, paused=True)
    fresh.cluster.query.kill()
    # The stream service knows it by its address.
    fresh.cluster.query._settings["query"]["listen"] = address
    control(fresh.stub, found.started.replay_id, paused=False, speed=0.0)
    fresh.cluster.query.start()
    for message in messages:
        found.take(message)
    assert (found.positions, found.closing.reason) == (list(range(1, EVENTS + 1)), "COMPLETED")


def test_shutdown_ends_every_replay_with_a_resume_position(own):
    """At SIGTERM each replay, paced or paused, ends within the grace with SERVER_DRAINING and where to resume."""
    calls = [own.stub.Replay(Request(speed=0.1), timeout=CALL_S_MAX) for _ in range(6)]
    firsts = [next(call) for call in calls]
    for first in firsts[::2]:
        control(own.stub, first.started.replay_id, paused=True)
    found = [Replayed() for _ in calls]

    def take(each, call, first):
        each.take(first)
        try:
            for message in call:
                each.take(message)
        except grpc.RpcError as error:
            each.error = from_rpc_error(error)

    threads = [threading.Thread(target=take, args=arguments) for arguments in zip(found, calls, firsts, strict=True)]
    for thread in threads:
        thread.start()
    began_s = monotonic()
    assert own.service.terminate() == 0
    for thread in threads:
        thread.join(CALL_S_MAX)
    assert monotonic() - began_s < 10.0
    for each in found:
        assert (each.closing.reason, each.error.reason) == ("SERVER_DRAINING", "SERVER_DRAINING")
        assert each.closing.resume_position == (each.positions[-1] if each.positions else 0) + 1


def test_stalled_consumer_loses_nothing(fresh):
    """A consumer that stops reading holds up only itself, and holds nothing in query; then it gets the rest."""
    log_events(fresh.cluster, numbered(20_000, payload_json='{"x":"' + "y" * 1000 + '"}'))
    stalled = fresh.stub.Replay(Request(speed=0.0), timeout=CALL_S_MAX)
    found = Replayed()
    found.take(next(stalled))
    assert len(replay(fresh.stub).events) == 20_000
    reading = "eventlog_rpc_in_flight{method=Query,service=eventlog.v1.QueryService}"
    wait_until(lambda: not metrics(fresh.cluster.query)[reading], "the stalled replay holds nothing in query")
    for message in stalled:
        found.take(message)
    assert found.positions == list(range(1, 20_001))
