"""One call's work: what ends it, when, and what becomes of what runs then."""

import pytest

from query_service.work import Work, WorkCancelled, WorkExpired
from tests.support.fake_clock import FakeClock


class _Thing:
    """Counts how often it is interrupted."""

    def __init__(self) -> None:
        self.interrupted = 0

    def interrupt(self) -> None:
        self.interrupted += 1


def _run(work: Work, thing: _Thing, end: str) -> None:
    """Run a thing that is ended from outside while it runs, and fails for it."""
    with work.running(thing):
        getattr(work, end)()
        if thing.interrupted:
            raise RuntimeError("interrupted")


def test_cancelled_work_interrupts_what_runs_and_begins_nothing_more() -> None:
    """Whatever the thing raises is WorkCancelled; what would begin later does not."""
    work, thing = Work(FakeClock()), _Thing()
    with pytest.raises(WorkCancelled):
        _run(work, thing, "cancel")
    assert thing.interrupted == 1
    with pytest.raises(WorkCancelled), work.running(thing):
        raise AssertionError("it began")
    with pytest.raises(WorkCancelled):
        work.check()


def test_expired_work_goes_on_until_it_got_somewhere() -> None:
    """Without progress nothing is interrupted, or an answer in a hurry would never come to an end."""
    work, thing = Work(FakeClock(), 1.0), _Thing()
    _run(work, thing, "expire")
    assert (thing.interrupted, work.is_over) == (0, False)
    work.has_progress = True
    assert work.is_over
    with pytest.raises(WorkExpired):
        _run(work, thing, "expire")


def test_a_failure_without_an_interruption_stays_what_it_is() -> None:
    """Only what was interrupted is taken for interrupted."""
    work = Work(FakeClock())
    with pytest.raises(OSError, match="disk"), work.running(_Thing()):
        raise OSError("disk")
    work.cancel()


def test_work_that_has_ended_is_not_interrupted() -> None:
    """Once a thing is through, another cursor may have its place."""
    work, thing = Work(FakeClock()), _Thing()
    with work.running(thing):
        pass
    work.cancel()
    work.expire()
    assert thing.interrupted == 0


def test_time_left_falls_to_nothing() -> None:
    """Not below; and without a budget there is no bound."""
    clock = FakeClock()
    work = Work(clock, 2.0)
    clock.advance(0.5)
    assert (work.left_s, work.elapsed_s) == (1.5, 0.5)
    clock.advance(9)
    assert (work.left_s, work.is_over) == (0.0, False)
    work.has_progress = True
    assert work.is_over
    assert Work(clock).left_s is None
