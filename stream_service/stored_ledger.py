"""A ledger as it is stored: what is done with, what has failed and what is parked; not what consumers hold. Pure.

Invariant: a ledger made from its record forgets no failure, and delivers what it had not done with, and only that.
"""

import numpy as np

from stream_service.checkpoints import ParkedRecord, Record
from stream_service.failures import Parked
from stream_service.ledger import Ledger


def record_of(name: str, created_ns: int, ledger: Ledger) -> Record:
    """What is to be stored of a ledger now."""
    return Record(
        name=name,
        created_ns=created_ns,
        checkpoint=ledger.checkpoint,
        done=ledger.done_beyond().tolist(),
        failures=dict(ledger.failures.counts),
        parked=[
            ParkedRecord(position, parked.failures, parked.failure, parked.parked_ns)
            for position, parked in sorted(ledger.failures.parked.items())
        ],
    )


def ledger_of(record: Record, *, deliveries_max: int) -> Ledger:
    """A ledger that goes on where a record was stored."""
    ledger = Ledger(record.checkpoint, deliveries_max=deliveries_max)
    ledger.done = np.array(record.done, np.uint64)
    ledger.failures.counts = dict(record.failures)
    ledger.failures.parked = {
        each.position: Parked(each.failures, each.failure, each.parked_ns) for each in record.parked
    }
    return ledger
