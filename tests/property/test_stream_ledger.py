"""A durable subscription as a state machine: nothing unacknowledged is ever skipped, chains keep their order."""

import numpy as np
import pyarrow as pa
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from stream_service.failures import Failure
from stream_service.group_consumer import POSITION_MAX
from stream_service.ledger import Ledger
from stream_service.slots import slots_of
from stream_service.stored_ledger import ledger_of, record_of
from tests.support.streaming import events_of, forms

DELIVERIES_MAX = 3


class LedgerMachine(RuleBasedStateMachine):
    """Consumers come and go, take, acknowledge and fail; the service restarts."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(0, deliveries_max=DELIVERIES_MAX)
        self.names = 0
        # By consumer, what it was sent and has neither acknowledged nor failed.
        self.held: dict[str, list[int]] = {}
        self.acknowledged: set[int] = set()
        self.sent: set[int] = set()
        self.failed: set[int] = set()

    def read_on(self, count: int) -> None:
        """Read the next events; every fourth position does not match."""
        first = self.ledger.cursor
        columns = events_of(first, count)
        rows = np.flatnonzero(columns.column("position").to_numpy() % 4 != 0)
        columns = columns.take(rows)
        events = forms.encode(columns, payload_as_struct=False) if len(rows) else None
        slots = slots_of(columns.column("position").to_numpy(), columns.column("correlation_id"))
        self.ledger.add(events, slots, first + count)

    @rule(credit=st.sampled_from([1, 3, 100]))
    @precondition(lambda self: len(self.held) < 4)
    def join(self, credit):
        """A consumer comes."""
        self.names += 1
        name = f"consumer {self.names}"
        self.ledger.join(name, credit=credit)
        self.held[name] = []

    @rule(count=st.integers(1, 12))
    @precondition(lambda self: self.held)
    def read(self, count):
        """Events are read."""
        self.read_on(count)

    @rule(data=st.data())
    @precondition(lambda self: self.held)
    def take(self, data):
        """A consumer is sent what it is to have."""
        name = data.draw(st.sampled_from(sorted(self.held)))
        up_to = data.draw(st.one_of(st.just(POSITION_MAX), st.integers(0, self.ledger.cursor)))
        for parcel in self.ledger.take(name, up_to=up_to):
            for row, position in enumerate(parcel.positions.tolist()):
                assert position <= up_to, "nothing is sent before its time"
                assert position not in self.acknowledged, "acknowledged events are not sent again"
                slot = parcel.slots[row]
                later = [held for held in self.held[name] if held > position and position not in self.failed]
                assert slot not in self.slots_of(later), "a chain is in order"
                for other, positions in self.held.items():
                    if other != name:
                        assert slot not in self.slots_of(positions), "a chain is with one consumer at a time"
                self.held[name].append(position)
                self.sent.add(position)

    @rule(data=st.data())
    @precondition(lambda self: any(self.held.values()))
    def acknowledge(self, data):
        """A consumer acknowledges some of what it holds, in any order."""
        name = data.draw(st.sampled_from(sorted(name for name, held in self.held.items() if held)))
        some = data.draw(st.lists(st.sampled_from(self.held[name]), min_size=1, unique=True))
        self.ledger.acknowledge(some)
        self.held[name] = [position for position in self.held[name] if position not in some]
        self.acknowledged |= set(some)

    @rule(data=st.data())
    @precondition(lambda self: any(self.held.values()))
    def acknowledge_up_to(self, data):
        """A consumer acknowledges everything up to a position."""
        name = data.draw(st.sampled_from(sorted(name for name, held in self.held.items() if held)))
        up_to = data.draw(st.sampled_from(self.held[name]))
        self.ledger.acknowledge([], up_to=up_to, consumer=name)
        self.acknowledged |= {position for position in self.held[name] if position <= up_to}
        self.held[name] = [position for position in self.held[name] if position > up_to]

    @rule(data=st.data())
    @precondition(lambda self: any(self.held.values()))
    def fail(self, data):
        """A consumer fails at one event."""
        name = data.draw(st.sampled_from(sorted(name for name, held in self.held.items() if held)))
        position = data.draw(st.sampled_from(self.held[name]))
        self.ledger.fail(Failure([position], "wrong", 1))
        self.held[name].remove(position)
        self.failed.add(position)

    @rule(data=st.data())
    @precondition(lambda self: self.held and self.ledger.failures.parked)
    def retry(self, data):
        """A parked event is tried again."""
        position = data.draw(st.sampled_from(sorted(self.ledger.failures.parked)))
        if any(position in held for held in self.held.values()):
            return
        columns = events_of(position, 1)
        slots = slots_of(columns.column("position").to_numpy(), columns.column("correlation_id"))
        self.ledger.retry(forms.encode(columns, payload_as_struct=False), slots)
        self.failed.add(position)

    @rule(data=st.data(), failure=st.sampled_from([None, "", "overdue"]))
    @precondition(lambda self: self.held)
    def leave(self, data, failure):
        """A consumer goes, or dies."""
        name = data.draw(st.sampled_from(sorted(self.held)))
        self.ledger.leave(name, failure=failure, now_ns=1)
        del self.held[name]

    @rule()
    def restart(self):
        """The service starts anew from what it stores."""
        stored = record_of("name", 1, self.ledger)
        self.ledger = ledger_of(stored, deliveries_max=DELIVERIES_MAX)
        self.held = {}

    @staticmethod
    def slots_of(positions):
        """Slots of positions."""
        if not positions:
            return set()
        columns = [events_of(position, 1) for position in positions]
        ids = [column.column("correlation_id")[0].as_py() for column in columns]
        return set(slots_of(np.array(positions, np.uint64), pa.array(ids, pa.string())).tolist())

    @invariant()
    def checkpoint_passes_only_what_is_done(self):
        """Every matching event up to the checkpoint was acknowledged or is parked."""
        done = self.acknowledged | set(self.ledger.failures.parked)
        checkpoint = self.ledger.checkpoint
        assert [n for n in range(1, checkpoint + 1) if n % 4 and n not in done] == []

    @invariant()
    def credit_is_kept(self):
        """No consumer holds more than it may."""
        for name, consumer in self.ledger.consumers.items():
            assert len(self.held[name]) == consumer.unacknowledged <= consumer.credit

    def teardown(self):
        """In the end a lone consumer gets all that is open, in the order of each chain, and the checkpoint moves."""
        for name in list(self.held):
            self.ledger.leave(name, failure=None, now_ns=1)
        self.ledger.join("last", credit=1_000_000)
        last = max([*self.sent, *self.acknowledged, self.ledger.cursor]) + 1
        while self.ledger.cursor <= last:
            self.read_on(10)
        parcels = [
            parcel for taken in iter(lambda: self.ledger.take("last", up_to=POSITION_MAX), []) for parcel in taken
        ]
        got = [position for parcel in parcels for position in parcel.positions]
        done = self.acknowledged | set(self.ledger.failures.parked)
        assert sorted(got) == [n for n in range(1, self.ledger.cursor) if n % 4 and n not in done]
        if got:
            self.ledger.acknowledge([int(n) for n in got])
        assert self.ledger.checkpoint == self.ledger.cursor - 1


TestLedger = LedgerMachine.TestCase
TestLedger.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
