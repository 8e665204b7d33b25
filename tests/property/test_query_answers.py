"""Whatever the log and the question: pages, streams, counts and scans are what a naive reading of it gives."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from query_service.database import Database
from query_service.question import Order
from query_service.work import Work, WorkExpired
from shared.clock import Clock
from shared.filters.printer import print_filter
from tests.support.asker import BY_POSITION, MIB, Asker, Asking, askings
from tests.support.fake_clock import TickingClock
from tests.support.small_logs import plans, small_steps, write_log

SETTINGS = settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


class _Interrupting(Work):
    """Is interrupted at chosen statements and fetches, as soon as it has progress."""

    def __init__(self, clock: Clock, chosen: set[int]) -> None:
        super().__init__(clock, budget_s=1e9)
        self._chosen = chosen
        self._runs = 0

    def running(self, thing: Any) -> Any:
        self._runs += 1
        if self.has_progress and self._runs in self._chosen:
            raise WorkExpired
        return super().running(thing)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A directory for all logs, so that one database reads them."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.fixture(scope="module")
def database(folder: Path) -> Iterator[Database]:
    """One database for all logs."""
    with Database(folder, threads=1, memory_bytes_max=256 * MIB) as opened, small_steps():
        yield opened


@pytest.fixture(scope="module")
def make_log(folder: Path) -> Any:
    """Writes a log as planned."""
    return lambda plan: write_log(Path(tempfile.mkdtemp(dir=folder)), plan)


def check(asker: Asker, asking: Asking, data: st.DataObject) -> None:
    """Compare every kind of answer with the naive one."""
    why = print_filter(asking.tree)
    for order in Order:
        expected = asker.expected(asking, order)
        limit = data.draw(st.none() | st.integers(1, 6))
        size, bytes_max = data.draw(st.integers(1, 7)), data.draw(st.sampled_from([1, 500, MIB]))
        if order not in BY_POSITION and asker.damage_within(asking):
            continue
        wanted = expected if limit is None else expected[:limit]
        assert asker.stream(asking, order, limit=limit, works=asker.patient()) == wanted, why
        assert asker.pages(asking, order, size=size, bytes_max=bytes_max) == expected, why
        if order in BY_POSITION:
            scanned = [(e["id"], e["position"], e["type"]) for p in expected for e in [asker.log.events[p - 1]]]
            assert asker.scan(asking, order) == scanned, why
    assert asker.count(asking, works=asker.patient()) == len(asker.expected(asking, Order.POSITION_ASCENDING)), why


@settings(SETTINGS, max_examples=12)
@given(plans, askings, st.data())
def test_answers_are_the_naive_ones(database, make_log, plan, asking, data):
    """Cold, warm, and with everything off that only makes it faster."""
    log = make_log(plan)
    asker, plain = Asker(log, database), Asker(log, database, plain=True)
    for each in (asker, asker, plain):
        check(each, asking, data)


@SETTINGS
@given(plans, askings, st.data())
def test_interrupted_answers_joined_are_the_whole(database, make_log, plan, asking, data):
    """Whatever is interrupted once something was reached: the parts add up, and each gets somewhere."""
    asker = Asker(make_log(plan), database)

    def works() -> Iterator[Work]:
        for _ in range(1000):
            yield _Interrupting(asker.clock, data.draw(st.sets(st.integers(1, 12), max_size=6)))

    for order in Order:
        if order in BY_POSITION or not asker.damage_within(asking):
            limit = data.draw(st.none() | st.integers(1, 6))
            assert asker.stream(asking, order, limit=limit, works=works()) == asker.expected(asking, order)[:limit]
    assert asker.count(asking, works=works()) == len(asker.expected(asking, Order.POSITION_ASCENDING))


@SETTINGS
@given(plans, askings, st.floats(0.01, 0.5))
def test_answers_in_a_hurry_joined_are_the_whole(database, make_log, plan, asking, budget_s):
    """Where the time is up again and again, the parts add up, and each gets somewhere."""
    asker = Asker(make_log(plan), database)
    asker.clock = TickingClock()

    def works() -> Iterator[Work]:
        for _ in range(1000):
            yield Work(asker.clock, budget_s)

    for order in Order:
        if order in BY_POSITION or not asker.damage_within(asking):
            assert asker.stream(asking, order, works=works()) == asker.expected(asking, order)
    assert asker.count(asking, works=works()) == len(asker.expected(asking, Order.POSITION_ASCENDING))
