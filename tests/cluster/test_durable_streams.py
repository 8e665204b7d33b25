"""Durable subscriptions and consumer groups over gRPC, with the real processes."""

import collections
import datetime as dt

import pytest
from eventlog.v1 import event_pb2, stream_service_pb2

from tests.support.cluster import CALL_S_MAX, refused, wait_until
from tests.support.stream_reader import acknowledge, log, status_of, subscribe

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def shared(module_cluster):
    """A cluster for tests that only add to the log, each with subscriptions of its own names."""
    streaming = {"heartbeat_interval": "300ms", "max_deliveries": 2}
    with module_cluster(with_stream=True, streaming=streaming) as cluster:
        yield cluster


def test_a_reconnect_goes_on_behind_the_checkpoint(shared):
    """What was acknowledged does not come again; what was not does, marked as redelivered, then the rest."""
    with subscribe(shared, subscription="orders") as reader:
        last = log(shared, 6)
        first = last - 5
        reader.wait_for(last)
        answer = acknowledge(shared, "orders", up_to_position=first + 1, positions=[first + 3])
        assert answer.checkpoint_position == first + 1
    with subscribe(shared, subscription="orders") as again:
        after = log(shared, 2)
        again.wait_for(after)
        assert again.positions == [first + 2, first + 4, first + 5, after - 1, after]
        redelivered = [each.position for batch in again.of("events") for each in batch.redeliveries]
        assert redelivered == [first + 2, first + 4, first + 5]


def test_checkpoints_survive_a_crash_of_the_service(make_cluster):
    """After kill -9 a subscription goes on behind what was confirmed, out of order too, and delivers the rest."""
    with make_cluster(with_stream=True) as cluster:
        with subscribe(cluster, subscription="audit", earliest=True) as reader:
            log(cluster, 10)
            reader.wait_for(10)
            acknowledge(cluster, "audit", up_to_position=4)
            acknowledge(cluster, "audit", positions=[7, 9])
            cluster.stream.kill()
            assert reader.wait_ended().reason == "DEPENDENCY_UNAVAILABLE"
        cluster.stream.start()
        assert status_of(cluster, "audit").checkpoint_position == 4
        with subscribe(cluster, subscription="audit") as again:
            log(cluster, 1)
            again.wait_for(11)
            assert again.positions == [5, 6, 8, 10, 11]


def test_it_may_begin_where_another_is(shared):
    """A durable subscription can begin behind the checkpoint of another, which must be there."""
    last = log(shared, 4)
    start = stream_service_pb2.StreamStart(position=last - 3)
    with subscribe(shared, subscription="model", start=start) as reader:
        reader.wait_for(last)
        acknowledge(shared, "model", up_to_position=last - 2)
    start = stream_service_pb2.StreamStart(checkpoint="model")
    with subscribe(shared, subscription="copy", start=start) as reader:
        reader.wait_for(last)
        assert reader.positions == [last - 1, last]
    start = stream_service_pb2.StreamStart(checkpoint="nobody")
    with subscribe(shared, subscription="orphan", start=start) as reader:
        assert reader.wait_ended().reason == "SUBSCRIPTION_NOT_FOUND"


def test_wrong_acknowledgements_are_refused_whole(shared):
    """Unknown subscriptions, positions never delivered and future ones are errors, and change nothing."""
    with refused("SUBSCRIPTION_NOT_FOUND"):
        acknowledge(shared, "nobody", positions=[1])
    filters = event_pb2.EventFilters(type_patterns=["yes"])
    with subscribe(shared, subscription="strict", filters=filters) as reader:
        log(shared, event_type="yes")
        unmatched = log(shared, event_type="no")
        last = log(shared, event_type="yes")
        reader.wait_for(last)
        for wrong in ({"positions": [last, last + 1]}, {"positions": [unmatched, last]}, {"up_to_position": last + 1}):
            with refused("POSITION_NOT_DELIVERED"):
                acknowledge(shared, "strict", **wrong)
        with refused("INVALID_FIELD"):
            acknowledge(shared, "strict")
        assert status_of(shared, "strict").unacknowledged_events == 2
        assert acknowledge(shared, "strict", positions=[last, last - 2]).checkpoint_position >= last
        assert acknowledge(shared, "strict", positions=[last]).checkpoint_position >= last


def test_checkpoint_advances_where_nothing_matches(shared):
    """A filtered subscription moves on with the log, though it gets nothing to acknowledge."""
    filters = event_pb2.EventFilters(type_patterns=["rare"])
    with subscribe(shared, subscription="rare", filters=filters):
        last = log(shared, 20)
        wait_until(lambda: status_of(shared, "rare").checkpoint_position == last, "the checkpoint advances")
        status = status_of(shared, "rare")
        assert (status.state, status.lag_events, list(status.consumers)) == ("live", 0, [status.consumers[0]])
    wait_until(lambda: status_of(shared, "rare").state == "disconnected", "the consumer has left")
    assert status_of(shared, "rare").checkpoint_position >= last


def test_unacknowledged_events_are_bounded(shared):
    """No more events are under way to a consumer than its buffer holds; acknowledging lets more come."""
    with subscribe(shared, subscription="bounded", buffer_size=3) as reader:
        last = log(shared, 8)
        reader.wait(lambda: len(reader.positions) == 3, "three have come")
        reader.wait(lambda: reader.of("heartbeat"), "nothing more comes")
        assert reader.positions == [last - 7, last - 6, last - 5]
        assert status_of(shared, "bounded").under_pressure
        while len(reader.positions) < 8:
            seen = len(reader.positions)
            acknowledge(shared, "bounded", up_to_position=reader.positions[-1])
            reader.wait(lambda seen=seen: len(reader.positions) > seen, "more have come")
        assert reader.positions == list(range(last - 7, last + 1))


def test_seek_back_forward_and_by_time(shared):
    """A subscription can be moved; its consumers are told, and go on there when they are back."""
    last = log(shared, 5)

    def seek(**start):
        moved = stream_service_pb2.StreamStart(**start)
        request = stream_service_pb2.SeekSubscriptionRequest(subscription="seeker", start=moved)
        return shared.streams.SeekSubscription(request, timeout=CALL_S_MAX).next_position

    with refused("SUBSCRIPTION_NOT_FOUND"):
        seek(position=1)
    with subscribe(shared, subscription="seeker") as reader:
        assert seek(position=last - 1) == last - 1
        assert reader.wait_ended().reason == "SUBSCRIPTION_MOVED"
    with subscribe(shared, subscription="seeker") as reader:
        reader.wait_for(last)
        assert reader.positions == [last - 1, last]
    assert seek(earliest=True) == 1
    assert seek(position=last + 1000) == last + 1
    assert seek() == last + 1
    future = stream_service_pb2.StreamStart()
    future.time.FromDatetime(dt.datetime(2200, 1, 1, tzinfo=dt.UTC))
    assert seek(time=future.time) == last + 1


def test_delete(shared):
    """A deleted subscription ends its consumers and is gone, its checkpoint too."""
    request = stream_service_pb2.DeleteSubscriptionRequest(subscription="doomed")
    with subscribe(shared, subscription="doomed") as reader:
        shared.streams.DeleteSubscription(request, timeout=CALL_S_MAX)
        assert reader.wait_ended().reason == "SUBSCRIPTION_NOT_FOUND"
    with refused("SUBSCRIPTION_NOT_FOUND"):
        shared.streams.DeleteSubscription(request, timeout=CALL_S_MAX)


def test_list_in_pages(shared):
    """Lists come in pages, by name."""
    for name in ("page a", "page b", "page c"):
        subscribe(shared, subscription=name).close()
    names, token = [], ""
    while True:
        request = stream_service_pb2.ListSubscriptionsRequest(page_size=2, page_token=token)
        answer = shared.streams.ListSubscriptions(request, timeout=CALL_S_MAX)
        names += [status.subscription for status in answer.subscriptions]
        token = answer.next_page_token
        if not token:
            break
    assert names == sorted(names)
    assert {"page a", "page b", "page c"} <= set(names)


def test_a_group_shares_the_events_by_chain(shared):
    """Two consumers get every event once between them, each chain with one of them, in order."""
    with (
        subscribe(shared, subscription="team", consumer="one") as one,
        subscribe(shared, subscription="team", consumer="two") as two,
    ):
        for _ in range(10):
            for chain in range(10):
                last = log(shared, 1, correlation_id=f"chain {chain}")
        one.wait(lambda: len(one.positions) + len(two.positions) == 100, "all have come")
        assert sorted(one.positions + two.positions) == list(range(last - 99, last + 1))
        chains = [{event.correlation_id for event in reader.events} for reader in (one, two)]
        assert not chains[0] & chains[1]
        assert all(chains)
        for reader in (one, two):
            assert reader.positions == sorted(reader.positions)


def test_a_lost_consumers_events_go_to_the_other(shared):
    """When a consumer dies, the other gets what that one had not acknowledged, each chain in order."""
    with subscribe(shared, subscription="heirs", consumer="heir") as heir:
        with subscribe(shared, subscription="heirs", consumer="lost") as lost:
            for chain in range(20):
                last = log(shared, 2, correlation_id=f"chain {chain}")
            heir.wait(lambda: len(heir.positions) + len(lost.positions) == 40, "all have come")
            acknowledge(shared, "heirs", positions=heir.positions)
            had = lost.positions
            assert had
        heir.wait(lambda: set(had) <= set(heir.positions), "the heir has got the rest")
        chains = collections.defaultdict(list)
        for event in heir.events:
            chains[event.correlation_id].append(event.position)
        assert all(positions == sorted(positions) for positions in chains.values())
        acknowledge(shared, "heirs", up_to_position=last)
        assert status_of(shared, "heirs").checkpoint_position >= last


def test_a_chain_moves_only_when_it_is_acknowledged(shared):
    """A consumer that joins gets nothing of a chain while the one before still has events of it."""
    with subscribe(shared, subscription="movers", consumer="first") as first:
        chains = [f"chain {number}" for number in range(20)]
        for chain in chains:
            last = log(shared, correlation_id=chain)
        first.wait_for(last)
        with subscribe(shared, subscription="movers", consumer="second") as second:
            for chain in chains:
                last = log(shared, correlation_id=chain)
            first.wait(lambda: first.of("heartbeat"), "what may come has come")
            assert not second.positions
            acknowledge(shared, "movers", positions=first.positions)
            second.wait(lambda: second.positions, "chains have moved")
            first.wait(lambda: len(first.positions) + len(second.positions) == 40, "all have come")
            assert sorted(first.positions + second.positions) == list(range(last - 39, last + 1))


def test_a_consumer_of_the_same_name_takes_the_place(shared):
    """A consumer that connects again, before its old connection is known to be dead, replaces that."""
    with subscribe(shared, subscription="twice", consumer="me") as old:
        last = log(shared)
        old.wait_for(last)
        with subscribe(shared, subscription="twice", consumer="me") as new:
            assert old.wait_ended().reason == "CONSUMER_REPLACED"
            new.wait_for(last)
            assert new.positions == [last]


def test_a_consumer_of_the_same_name_is_given_history_again(shared):
    """What the old connection was given from history, and is not acknowledged, comes again over the new one."""
    last = log(shared, 6)
    start = stream_service_pb2.StreamStart(position=last - 5)
    with subscribe(shared, subscription="again", consumer="me", start=start) as old:
        old.wait_for(last)
        old.wait(lambda: old.of("caught_up"), "it has caught up")
        acknowledge(shared, "again", up_to_position=last - 4)
        with subscribe(shared, subscription="again", consumer="me") as new:
            new.wait_for(last)
            assert new.positions == list(range(last - 3, last + 1))
            assert status_of(shared, "again").checkpoint_position == last - 4


def test_consumers_of_a_group_ask_for_the_same(shared):
    """A consumer with another filter than those connected is refused."""
    filters = event_pb2.EventFilters(type_patterns=["other"])
    with subscribe(shared, subscription="same"), subscribe(shared, subscription="same", filters=filters) as other:
        assert other.wait_ended().reason == "INVALID_FIELD"


def test_failing_events_are_parked_and_can_be_tried_again(shared):
    """An event that failed as often as allowed is parked, listed, and delivered again when asked for."""
    parked_request = stream_service_pb2.ListParkedEventsRequest(subscription="parking")
    retry_request = stream_service_pb2.RetryParkedEventsRequest(subscription="parking")

    def parked():
        return shared.streams.ListParkedEvents(parked_request, timeout=CALL_S_MAX).events

    with subscribe(shared, subscription="parking") as reader:
        last = log(shared, 3)
        bad = last - 1
        reader.wait_for(last)
        acknowledge(shared, "parking", positions=[last - 2, last])
        assert not acknowledge(shared, "parking", failed_positions=[bad], failure="it hurts").parked_positions
        reader.wait(lambda: reader.positions.count(bad) == 2, "it came again")
        redelivery = reader.of("events")[-1].redeliveries[0]
        assert (redelivery.position, redelivery.failed_deliveries) == (bad, 1)
        answer = acknowledge(shared, "parking", failed_positions=[bad], failure="it hurts more")
        assert list(answer.parked_positions) == [bad]
        assert answer.checkpoint_position == last
        (event,) = parked()
        assert (event.position, event.failed_deliveries, event.failure) == (bad, 2, "it hurts more")
        assert event.parked_at.seconds > 0
        assert shared.streams.RetryParkedEvents(retry_request, timeout=CALL_S_MAX).retried_events == 1
        reader.wait(lambda: reader.positions.count(bad) == 3, "it came once more")
        acknowledge(shared, "parking", positions=[bad])
        assert not parked()


def test_a_poison_event_is_parked_though_its_consumers_die(make_cluster):
    """An event whose consumer dies each time is parked; the count survives a crash of the service."""
    with make_cluster(with_stream=True, streaming={"max_deliveries": 3}) as cluster:
        log(cluster, 3)
        for attempt in range(3):
            with subscribe(cluster, subscription="poison", earliest=True) as reader:
                reader.wait_for(3)
                assert reader.positions == [1, 2, 3]
            wait_until(lambda: status_of(cluster, "poison").state == "disconnected", "the consumer is gone")
            if attempt == 0:
                # The failure is stored soon after.
                wait_until(lambda: list((cluster.log.parent / "checkpoints").rglob("*.subscription")), "it is stored")
                cluster.stream.terminate()
                cluster.stream.start()
        with subscribe(cluster, subscription="poison") as reader:
            reader.wait_for(3)
            assert reader.positions == [2, 3]
        assert status_of(cluster, "poison").parked_events == 1


def test_checkpoint_beyond_the_log_is_brought_back(make_cluster):
    """A checkpoint ahead of the log, as after a restore of old data, is clamped, and the consumer is told."""
    with make_cluster("one", with_stream=True) as cluster:
        with subscribe(cluster, subscription="ahead", earliest=True) as reader:
            log(cluster, 10)
            reader.wait_for(10)
            acknowledge(cluster, "ahead", up_to_position=10)
        checkpoints = cluster.log.parent / "checkpoints"
    with make_cluster("two", with_stream=True, replay={"checkpoint_dir": str(checkpoints)}) as cluster:
        log(cluster, 3)
        with subscribe(cluster, subscription="ahead") as reader:
            confirmed = reader.of("confirmed")[0]
            assert (confirmed.start_position, confirmed.clamped_position) == (4, 11)
            log(cluster, 1)
            reader.wait_for(4)
            assert reader.positions == [4]


def test_a_damaged_checkpoint_is_not_taken_for_another(make_cluster):
    """A flipped bit in a stored subscription is reported; the service starts, and does not use it."""
    with make_cluster(with_stream=True) as cluster:
        subscribe(cluster, subscription="flipped").close()
        cluster.stream.terminate()
        (file,) = (cluster.log.parent / "checkpoints").rglob("*.subscription")
        data = bytearray(file.read_bytes())
        data[-3] ^= 1
        file.write_bytes(data)
        cluster.stream.start()
        assert cluster.stream.records("the file of a durable subscription is damaged and ignored")
        answer = cluster.streams.ListSubscriptions(stream_service_pb2.ListSubscriptionsRequest(), timeout=CALL_S_MAX)
        assert not answer.subscriptions


def test_a_consumer_that_never_acknowledges_gives_way(make_cluster):
    """A stuck consumer, though connected, loses what it has to the other; an event nobody acknowledges is parked."""
    streaming = {"acknowledge_timeout": "1s", "max_deliveries": 2, "heartbeat_interval": "300ms"}
    with (
        make_cluster(with_stream=True, streaming=streaming) as cluster,
        subscribe(cluster, subscription="jobs", consumer="healthy") as healthy,
    ):
        with subscribe(cluster, subscription="jobs", consumer="stuck") as stuck:
            for chain in range(40):
                last = log(cluster, correlation_id=f"chain {chain}")
            healthy.wait(lambda: len(healthy.positions) + len(stuck.positions) == last, "all have come")
            acknowledge(cluster, "jobs", positions=healthy.positions)
            had = stuck.positions
            error = stuck.wait_ended()
            assert (error.reason, error.metadata["position"]) == ("ACKNOWLEDGEMENT_OVERDUE", str(had[0]))
        healthy.wait(lambda: set(had) <= set(healthy.positions), "the healthy one has got them")
        failed = {each.position: each.failed_deliveries for b in healthy.of("events") for each in b.redeliveries}
        assert failed == dict.fromkeys(had, 0) | {had[0]: 1}
        acknowledge(cluster, "jobs", positions=had[1:])

        def is_parked_while_others_are_done():
            position = log(cluster)
            healthy.wait_for(position)
            acknowledge(cluster, "jobs", positions=[position])
            return status_of(cluster, "jobs").parked_events

        wait_until(is_parked_while_others_are_done, "the one that is never acknowledged is parked")
        assert status_of(cluster, "jobs").unacknowledged_events == 0
        request = stream_service_pb2.ListParkedEventsRequest(subscription="jobs")
        (parked,) = cluster.streams.ListParkedEvents(request, timeout=CALL_S_MAX).events
        assert (parked.position, parked.failure) == (had[0], "not acknowledged in time")
        assert not healthy.ended
