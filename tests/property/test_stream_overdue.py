"""When an acknowledgement is overdue, at whatever moments somebody looks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_service.overdue import Deadlines, Overdue
from stream_service.parcel import Parcel
from stream_service.sharing import Consumer
from stream_service.slots import slots_of
from tests.support.streaming import events_of, forms

TIMEOUT_S = 10.0
EVENTS = 6


def consumer() -> Consumer:
    """A consumer that was sent the events at 1 to EVENTS."""
    columns = events_of(1, EVENTS)
    slots = slots_of(columns.column("position").to_numpy(), columns.column("correlation_id"))
    parcel = Parcel(forms.encode(columns, payload_as_struct=False), slots, delivered=True)
    return Consumer(credit=100, sent=[parcel])


def acknowledge(held: Consumer, position: int) -> None:
    """The consumer is done with an event."""
    (parcel,) = held.sent
    held.close(parcel.positions[[position - 1]])


def test_a_consumer_that_does_nothing_is_overdue_itself():
    """Whoever acknowledges nothing is told from whoever leaves one event and goes on with others."""
    deadlines, idle, busy = Deadlines(TIMEOUT_S), consumer(), consumer()
    held = {"idle": idle, "busy": busy}
    assert deadlines.look(held, 0.0) == {}
    acknowledge(busy, 3)
    assert deadlines.look(held, 9.9) == {}
    assert deadlines.look(held, 10.0) == {"idle": (1, Overdue.CONSUMER), "busy": (1, Overdue.EVENT)}
    assert deadlines.look(held, 19.9) == {}
    assert deadlines.look(held, 20.0) == {"idle": (1, Overdue.CONSUMER), "busy": (1, Overdue.CONSUMER)}


def test_who_has_nothing_or_has_left_is_not_overdue():
    """Time does not run while there is nothing to acknowledge, nor for a consumer that is not here."""
    deadlines, held = Deadlines(TIMEOUT_S), consumer()
    deadlines.look({"a": held}, 0.0)
    assert deadlines.look({}, 50.0) == {}
    assert deadlines.look({"a": held}, 100.0) == {}
    for position in range(1, EVENTS + 1):
        acknowledge(held, position)
    assert deadlines.look({"a": held}, 200.0) == {}


def test_who_comes_back_has_all_the_time():
    """A consumer that connects anew under its name is given its events anew, and the time for them."""
    deadlines = Deadlines(TIMEOUT_S)
    deadlines.look({"a": consumer()}, 0.0)
    again = consumer()
    assert deadlines.look({"a": again}, 10.0) == {}
    assert deadlines.look({"a": again}, 19.9) == {}
    assert deadlines.look({"a": again}, 20.0) == {"a": (1, Overdue.CONSUMER)}


@pytest.mark.parametrize("slow", [False, True])
@given(steps=st.lists(st.floats(0.5, TIMEOUT_S - 0.5), min_size=EVENTS, max_size=EVENTS), looks=st.data())
def test_one_after_the_other_is_in_time(slow, steps, looks):
    """Each event may take nearly the timeout, however long those before it took; a longer one is overdue."""
    deadlines, held = Deadlines(TIMEOUT_S), consumer()
    now_s, found = 0.0, []
    slow_at = looks.draw(st.integers(1, EVENTS)) if slow else 0
    deadlines.look({"a": held}, now_s)
    for position, step_s in enumerate(steps, start=1):
        took_s = step_s + (TIMEOUT_S if position == slow_at else 0.0)
        for part in sorted(looks.draw(st.lists(st.floats(0.0, 1.0), max_size=3))):
            found += deadlines.look({"a": held}, now_s + part * took_s).values()
        now_s += took_s
        found += deadlines.look({"a": held}, now_s).values()
        acknowledge(held, position)
        found += deadlines.look({"a": held}, now_s).values()
    if slow:
        assert {position for position, _ in found} == {slow_at}
    else:
        assert found == []
