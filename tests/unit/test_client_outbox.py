"""The outbox, which decides what is sent when and what a failure does, against a model and by example."""

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from shared.client.back_off import BackOff
from shared.client.outbox import Outbox, Verdict
from shared.client.refusal import Refusal, RefusalKind
from shared.client.submission import Failed, Limits, OverflowPolicy, Request, Submission
from shared.errors import (
    BufferFull,
    EventStorageException,
    EventValidationException,
    FieldViolation,
    StorageUnavailable,
)

UNAVAILABLE = StorageUnavailable("the server is away")


def limits(**changes: object) -> Limits:
    values: dict[str, object] = {
        "events_max": 100,
        "bytes_max": 10_000,
        "request_events_max": 10,
        "request_bytes_max": 1_000,
        "flush_interval_s": 1.0,
        "give_up_after_s": 30.0,
    }
    return Limits(**{**values, **changes})  # type: ignore[arg-type]


def make_outbox(**changes: object) -> Outbox[str]:
    numbers = iter(range(1, 1_000_000))
    return Outbox(limits(**changes), BackOff(first_s=1.0, max_s=8.0, jitter=lambda: 1.0), lambda: f"r{next(numbers)}")


def submission(handle: str, *, count: int = 1, size: int = 10, urgent: bool = False) -> Submission[str]:
    return Submission(fragment=b"x" * size, count=count, handle=handle, urgent=urgent)


def handles(request: Request[str] | None) -> list[str]:
    assert request is not None
    return [each.handle for each in request.submissions]


def retry(*, ambiguous: bool = False, retry_after_s: float = 0.0) -> Refusal:
    return Refusal(RefusalKind.RETRY, UNAVAILABLE, retry_after_s=retry_after_s, ambiguous=ambiguous)


def invalid(*indices: int) -> Refusal:
    violations = {index: (FieldViolation("type", "is empty"),) for index in indices}
    return Refusal(RefusalKind.INVALID, EventValidationException("refused"), violations=violations)


def test_buffered_event_waits_for_the_flush_interval():
    """An event that nobody waits for is sent when flush_interval has passed, not before."""
    outbox = make_outbox(flush_interval_s=1.0)
    outbox.offer(submission("a"), 5.0)
    assert outbox.take(5.9) is None
    assert outbox.due_s() == 6.0
    assert handles(outbox.take(6.0)) == ["a"]


def test_awaited_event_is_sent_at_once_with_all_before_it():
    """An event that somebody waits for does not wait for the flush interval, and takes along what is before it."""
    outbox = make_outbox()
    outbox.offer(submission("a"), 0.0)
    outbox.offer(submission("b", urgent=True), 0.1)
    assert handles(outbox.take(0.1)) == ["a", "b"]


def test_awaited_event_behind_several_requests_is_urgent_for_all_of_them():
    """Requests before the one somebody waits for are due at once too."""
    outbox = make_outbox(request_events_max=2)
    for name in "abc":
        outbox.offer(submission(name), 0.0)
    outbox.offer(submission("d", urgent=True), 0.0)
    for expected in (["a", "b"], ["c", "d"]):
        request = outbox.take(0.0)
        assert handles(request) == expected
        outbox.acknowledged(request, duplicate=False)
    assert outbox.empty


@pytest.mark.parametrize("changes", [{"request_events_max": 3}, {"request_bytes_max": 30}, {"events_max": 3}])
def test_full_request_is_sent_at_once(changes):
    """Enough events or bytes for a request, or a full buffer, do not wait for the flush interval."""
    outbox = make_outbox(**changes)
    for name in "abc":
        assert outbox.take(0.0) is None
        outbox.offer(submission(name), 0.0)
    assert handles(outbox.take(0.0)) == ["a", "b", "c"]


def test_only_one_request_is_under_way():
    """While an answer is awaited nothing else is sent: retries could reorder it."""
    outbox = make_outbox(request_events_max=1)
    outbox.offer(submission("a"), 0.0)
    outbox.offer(submission("b"), 0.0)
    first = outbox.take(0.0)
    assert outbox.take(100.0) is None
    assert outbox.due_s() is None
    outbox.acknowledged(first, duplicate=False)
    assert handles(outbox.take(0.0)) == ["b"]


def test_batch_is_never_divided():
    """The events of one submission travel in one request, also when it alone is more than a request's bound."""
    outbox = make_outbox(request_events_max=4)
    outbox.offer(submission("a"), 0.0)
    outbox.offer(submission("big", count=9), 0.0)
    outbox.offer(submission("c"), 0.0)
    seen = []
    while (request := outbox.take(10.0)) is not None:
        seen.append(handles(request))
        outbox.acknowledged(request, duplicate=False)
    assert seen == [["a"], ["big"], ["c"]]


def test_retry_repeats_the_same_request_after_the_back_off():
    """A retry has the same id and the same events, although more events have come since."""
    outbox = make_outbox()
    outbox.offer(submission("a", urgent=True), 0.0)
    request = outbox.take(0.0)
    outbox.offer(submission("b", urgent=True), 0.0)
    assert outbox.refused(request, retry(), 0.0) == []
    assert outbox.due_s() == 1.0
    assert outbox.take(0.9) is None
    again = outbox.take(1.0)
    assert again is request
    assert handles(again) == ["a"]
    outbox.refused(again, retry(), 1.0)
    assert outbox.due_s() == 3.0
    assert outbox.statistics().retries == 1


def test_retry_waits_as_long_as_the_server_asks():
    """RetryInfo wins over a shorter back-off."""
    outbox = make_outbox()
    outbox.offer(submission("a", urgent=True), 0.0)
    outbox.refused(outbox.take(0.0), retry(retry_after_s=10.0), 0.0)
    assert outbox.take(9.9) is None
    assert outbox.take(11.0) is not None


def test_giving_up_fails_the_events_and_says_whether_they_may_be_logged():
    """After give_up_after_s the events fail; the message tells lost answers from refusals."""
    for ambiguous, words in ((True, "may have been logged"), (False, "were not logged")):
        outbox = make_outbox(give_up_after_s=2.5)
        outbox.offer(submission("a", urgent=True), 0.0)
        request = outbox.take(0.0)
        assert outbox.refused(request, retry(ambiguous=ambiguous), 0.0) == []
        [failed] = outbox.refused(outbox.take(1.0), retry(), 1.0)
        assert isinstance(failed.error, StorageUnavailable)
        assert words in str(failed.error)
        assert outbox.empty
        assert outbox.statistics().failed_events == 1


def test_events_behind_a_failing_server_expire_unsent():
    """Events that waited give_up_after_s behind requests that failed are not sent any more."""
    outbox = make_outbox(give_up_after_s=2.5, request_events_max=1)
    outbox.offer(submission("a"), 0.0)
    outbox.offer(submission("b"), 0.0)
    outbox.offer(submission("young"), 9.0)
    request = outbox.take(0.0)
    assert len(outbox.refused(request, retry(), 9.0)) == 1
    assert [each.submission.handle for each in outbox.expired(9.0)] == ["b"]
    assert handles(outbox.take(9.0)) == ["young"]


def test_events_do_not_expire_while_an_answer_is_awaited():
    """The request under way may still succeed: what waits behind it is failed only after it has failed."""
    outbox = make_outbox(give_up_after_s=2.5, request_events_max=1)
    outbox.offer(submission("a"), 0.0)
    outbox.offer(submission("b"), 0.0)
    outbox.refused(outbox.take(0.0), retry(), 0.0)
    request = outbox.take(1.0)
    assert outbox.expired(100.0) == []
    outbox.acknowledged(request, duplicate=False)
    assert outbox.expired(100.0) == []
    assert handles(outbox.take(100.0)) == ["b"]


def test_old_events_before_a_well_server_are_sent_all_the_same():
    """A process that was stopped for long does not throw its events away: only a failing server makes them expire."""
    outbox = make_outbox(give_up_after_s=2.5)
    outbox.offer(submission("a"), 0.0)
    assert outbox.expired(1_000.0) == []
    assert handles(outbox.take(1_000.0)) == ["a"]


def test_invalid_events_fail_alone_and_the_rest_goes_again_under_a_new_id():
    """Only the guilty submissions fail; the others keep their order and go before what came later."""
    outbox = make_outbox()
    for name, count in (("a", 1), ("pair", 2), ("c", 1)):
        outbox.offer(submission(name, count=count, urgent=True), 0.0)
    request = outbox.take(0.0)
    outbox.offer(submission("later"), 0.0)
    [failed] = outbox.refused(request, invalid(2), 0.0)
    assert failed.submission.handle == "pair"
    assert isinstance(failed.error, EventValidationException)
    assert failed.error.violations == (FieldViolation("events[1].type", "is empty"),)
    again = outbox.take(0.0)
    assert handles(again) == ["a", "c", "later"]
    assert again is not None
    assert again.request_id != request.request_id


def test_violation_of_a_single_event_names_its_field_without_an_index():
    """Who logged one event is not told an index of a request it has never seen."""
    outbox = make_outbox()
    for name in "ab":
        outbox.offer(submission(name, urgent=True), 0.0)
    [failed] = outbox.refused(outbox.take(0.0), invalid(1), 0.0)
    assert failed.error.violations == (FieldViolation("type", "is empty"),)


@pytest.mark.parametrize("refusal", [invalid(), invalid(99), Refusal(RefusalKind.FINAL, UNAVAILABLE)])
def test_refusal_that_names_no_event_fails_them_all(refusal):
    """Where nobody can be found innocent the whole request fails."""
    outbox = make_outbox()
    for name in "ab":
        outbox.offer(submission(name, urgent=True), 0.0)
    failed = outbox.refused(outbox.take(0.0), refusal, 0.0)
    assert [each.submission.handle for each in failed] == ["a", "b"]
    assert outbox.empty


def test_request_too_large_is_sent_in_smaller_ones():
    """A server with lower bounds than ours gets smaller requests; one submission too large for it fails."""
    outbox = make_outbox()
    for name in "abcd":
        outbox.offer(submission(name, urgent=True), 0.0)
    outbox.offer(submission("huge", size=500, urgent=True), 0.0)
    too_large = Refusal(RefusalKind.TOO_LARGE, EventValidationException("too large"))
    logged, failed = [], []
    while (request := outbox.take(0.0)) is not None:
        if request.size > 25:
            failed += [each.submission.handle for each in outbox.refused(request, too_large, 0.0)]
        else:
            logged += handles(request)
            outbox.acknowledged(request, duplicate=False)
    assert logged == ["a", "b", "c", "d"]
    assert failed == ["huge"]


def test_request_that_may_be_logged_is_not_divided():
    """After a lost answer the request is only ever repeated as it was: a part under a new id would be logged twice."""
    outbox = make_outbox()
    for name in "ab":
        outbox.offer(submission(name, urgent=True), 0.0)
    request = outbox.take(0.0)
    outbox.refused(request, retry(ambiguous=True), 0.0)
    again = outbox.take(1.0)
    assert outbox.refused(again, Refusal(RefusalKind.PERHAPS_TOO_LARGE, UNAVAILABLE), 1.0) == []
    assert outbox.take(10.0) is request


def test_overflow_policies():
    """A full buffer blocks, raises, drops the new event or drops the oldest, as chosen."""
    verdicts = {}
    for policy in OverflowPolicy:
        outbox = make_outbox(events_max=2, overflow_policy=policy)
        for name in "ab":
            assert outbox.offer(submission(name), 0.0) == (Verdict.TAKEN, [])
        verdict, dropped = outbox.offer(submission("c"), 0.0)
        left = handles(outbox.take(0.0))
        verdicts[policy] = (verdict, [each.submission.handle for each in dropped], left)
        assert all(isinstance(each.error, BufferFull) for each in dropped)
        assert outbox.statistics().dropped_events == (1 if "DROP" in policy.name else 0)
    assert verdicts == {
        OverflowPolicy.BLOCK: (Verdict.WAIT, [], ["a", "b"]),
        OverflowPolicy.RAISE: (Verdict.RAISE, [], ["a", "b"]),
        OverflowPolicy.DROP_NEWEST: (Verdict.DROPPED, [], ["a", "b"]),
        OverflowPolicy.DROP_OLDEST: (Verdict.TAKEN, ["a"], ["b", "c"]),
    }


def test_buffer_is_bounded_in_bytes_too():
    """Few but large events fill the buffer as well."""
    outbox = make_outbox(bytes_max=100, overflow_policy=OverflowPolicy.RAISE)
    outbox.offer(submission("a", size=100), 0.0)
    assert outbox.offer(submission("b"), 0.0)[0] is Verdict.RAISE


def test_abandon_fails_everything():
    """Giving up settles what is under way and what waits."""
    outbox = make_outbox(request_events_max=1)
    for name in "ab":
        outbox.offer(submission(name), 0.0)
    outbox.take(0.0)
    error = EventStorageException("closed")
    assert [each.submission.handle for each in outbox.abandon(error)] == ["a", "b"]
    assert outbox.empty
    assert outbox.statistics().failed_events == 2


@dataclass
class ModelServer:
    """A log that deduplicates by request id, and refuses what the test tells it to."""

    log: list[int] = field(default_factory=list)
    request_ids: set[str] = field(default_factory=set)

    def receive(self, request: Request[int]) -> bool:
        """Log the request unless it was seen. Returns whether it was."""
        if request.request_id in self.request_ids:
            return True
        self.request_ids.add(request.request_id)
        self.log += [each.handle for each in request.submissions]
        return False


class OutboxMachine(RuleBasedStateMachine):
    """Producers, a lossy server and time act in any order; nothing is lost, doubled or reordered."""

    policy = OverflowPolicy.BLOCK

    def __init__(self) -> None:
        super().__init__()
        numbers = iter(range(1, 1_000_000))
        self.limits = limits(
            events_max=6, bytes_max=80, request_events_max=3, request_bytes_max=40, overflow_policy=self.policy
        )
        self.outbox: Outbox[int] = Outbox(self.limits, BackOff(jitter=lambda: 0.5), lambda: f"r{next(numbers)}")
        self.server = ModelServer()
        self.now_s = 0.0
        self.request: Request[int] | None = None
        self.taken: list[int] = []
        self.acknowledged: list[int] = []
        self.left: dict[int, str] = {}
        self.uncertain: set[int] = set()
        self.next_handle = 0
        self.counts: dict[int, int] = {}

    def leave(self, failed: list[Failed[int]], how: str) -> None:
        for each in failed:
            assert each.submission.handle not in self.left
            self.left[each.submission.handle] = how

    @rule(count=st.integers(1, 4), size=st.integers(1, 60), urgent=st.booleans())
    def offer(self, *, count: int, size: int, urgent: bool) -> None:
        self.next_handle += 1
        made = Submission(fragment=b"x" * size, count=count, handle=self.next_handle, urgent=urgent)
        was_full = self.outbox.full
        verdict, dropped = self.outbox.offer(made, self.now_s)
        assert (verdict is Verdict.TAKEN) == (not was_full or self.policy is OverflowPolicy.DROP_OLDEST)
        if verdict is Verdict.TAKEN:
            self.taken.append(made.handle)
            self.counts[made.handle] = count
        self.leave(dropped, "dropped")

    @rule(seconds=st.floats(0, 40))
    def time_passes(self, seconds: float) -> None:
        self.now_s += seconds

    @rule()
    def urge(self) -> None:
        waiting = [each.handle for each in self.outbox.urge()]
        assert waiting == [handle for handle in self.taken if handle not in self.left]

    @precondition(lambda self: self.request is None)
    @rule()
    def take(self) -> None:
        due_s = self.outbox.due_s()
        self.leave(self.outbox.expired(self.now_s), "failed")
        self.request = self.outbox.take(self.now_s)
        if self.request is not None:
            assert due_s is not None
            assert due_s <= self.now_s

    @precondition(lambda self: self.request is not None)
    @rule(answer_lost=st.booleans())
    def server_logs(self, *, answer_lost: bool) -> None:
        request, self.request = self.request, None
        duplicate = self.server.receive(request)
        if answer_lost:
            self.uncertain |= {each.handle for each in request.submissions}
            self.leave(self.outbox.refused(request, retry(ambiguous=True), self.now_s), "failed")
            return
        self.outbox.acknowledged(request, duplicate=duplicate)
        for each in request.submissions:
            assert each.handle not in self.left
            self.left[each.handle] = "logged"
            self.acknowledged.append(each.handle)

    @precondition(lambda self: self.request is not None)
    @rule(kind=st.sampled_from(RefusalKind), guilty=st.sets(st.integers(0, 4)))
    def server_refuses(self, *, kind: RefusalKind, guilty: set[int]) -> None:
        request, self.request = self.request, None
        if request.request_id in self.server.request_ids and kind not in (
            RefusalKind.RETRY,
            RefusalKind.PERHAPS_TOO_LARGE,
        ):
            kind = RefusalKind.RETRY  # a server that has logged a request does not call it wrong
        refusal = invalid(*guilty) if kind is RefusalKind.INVALID else Refusal(kind, UNAVAILABLE)
        self.leave(self.outbox.refused(request, refusal, self.now_s), "failed")

    @invariant()
    def log_has_each_event_once_and_in_order(self) -> None:
        assert self.server.log == sorted(set(self.server.log))
        assert self.acknowledged == sorted(self.acknowledged)
        assert set(self.acknowledged) <= set(self.server.log)
        assert set(self.server.log) <= set(self.acknowledged) | self.uncertain

    @invariant()
    def every_event_is_accounted_for(self) -> None:
        counted = self.outbox.statistics()
        by_fate = {
            fate: sum(self.counts[handle] for handle, how in self.left.items() if how == fate)
            for fate in ("logged", "failed", "dropped")
        }
        assert counted.logged_events == by_fate["logged"]
        assert counted.failed_events == by_fate["failed"]
        assert counted.dropped_events == by_fate["dropped"]
        inside = counted.waiting_events + counted.under_way_events
        assert inside == sum(self.counts[handle] for handle in self.taken if handle not in self.left)
        assert self.outbox.empty == (inside == 0)

    @invariant()
    def memory_is_bounded(self) -> None:
        counted = self.outbox.statistics()
        # One submission beyond the bound, and what one refused request put back.
        assert counted.waiting_events <= self.limits.events_max + 4 + max(self.limits.request_events_max, 4)

    def teardown(self) -> None:
        self.leave(self.outbox.abandon(StorageUnavailable("closed")), "failed")
        assert sorted(self.left) == self.taken


class DroppingOutboxMachine(OutboxMachine):
    """The same where the oldest give way."""

    policy = OverflowPolicy.DROP_OLDEST


TestOutbox = OutboxMachine.TestCase
TestOutbox.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestDroppingOutbox = DroppingOutboxMachine.TestCase
TestDroppingOutbox.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
