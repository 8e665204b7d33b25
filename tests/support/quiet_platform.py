"""The simulated platform on days on which nothing goes wrong, and the same with an incident planted by hand."""

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from analysis_service.columns import EventColumns
from deploy.demo.incidents import Incident
from deploy.demo.simulator import Simulation
from tests.support.event_columns import document_columns

_LATER = timedelta(days=36_500)
_SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class QuietPlatform(Simulation):
    """A simulation whose incidents come in a hundred years."""

    def incidents(self) -> tuple[Incident, ...]:
        """What goes wrong, long after the end."""
        # No super() here: a dataclass with slots is another class than the one that the method closes over.
        later = Simulation.incidents(self)
        return tuple(replace(each, start=each.start + _LATER, end=each.end + _LATER) for each in later)


def quiet_events(
    *, days: int, seed: int, scale: float = 1.0, payload: tuple[str, ...] = ("duration_ms", "status")
) -> EventColumns:
    """Events of quiet days. scale: of the simulation."""
    simulation = QuietPlatform(days=days, seed=seed, scale=scale)
    return document_columns((msgspec.json.encode(document) for document in simulation.documents()), payload=payload)


def with_faster_minutes(
    events: EventColumns, start_ns: int, *, minutes: int, factor: int, seed: int = 1
) -> EventColumns:
    """The events, each of those in some minutes `factor` times: the others at random moments of them, by themselves."""
    random = np.random.default_rng(seed)
    end_ns = start_ns + minutes * 60 * _SECOND
    inside = np.flatnonzero((events.times >= start_ns) & (events.times < end_ns))
    copies = np.tile(inside, factor - 1)
    more: Any = events.take(copies).table
    moments = random.integers(start_ns, end_ns, len(copies))
    more = _with(more, "timestamp", pa.array(moments, pa.timestamp("ns", tz="UTC")))
    chains = pa.array([f"more_{number}" for number in range(len(copies))], pa.string())
    more = _with(more, "correlation_id", chains)
    more = _with(more, "position", pa.array(np.arange(len(copies)) + int(events.positions.max()) + 1, pa.uint64()))
    return EventColumns(pa.concat_tables([events.table, more]))


def _with(table: Any, name: str, column: Any) -> Any:
    return table.set_column(table.column_names.index(name), name, column)
