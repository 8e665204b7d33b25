"""A simulated document-synthesis platform: events with all standard types, as real as they can be made up.

    simulation = Simulation(days=7, seed=1)
    for document in simulation.documents():   # in the specification's document form, sorted by time
        ...
    simulation.incidents()                    # what went wrong in it, and when

Sessions of users, tool calls, pipeline runs with stages, documents and retries, nightly batches, heartbeats, a
deployment; a daily and a weekly rhythm in two regions. docs/simulator.md describes it.

Invariants: the same arguments, the same events; sorted by timestamp; payloads of standard types fit their schemas.
About 20,000 events on a working day at scale 1, and 6,000 on a day at a weekend. Activities that began before
the end are played to theirs. Keeps the events of about a day in memory.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from random import Random

from deploy.demo import activities, cast
from deploy.demo.faults import Faults
from deploy.demo.incidents import Incident, plant
from deploy.demo.recorder import Document, Recorder
from shared.errors import EventConfigException

_HOUR_S = 3600.0
_CONFIG_CHANGES_AN_HOUR = 0.1

# A Monday.
START = datetime(2024, 1, 15, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Simulation:
    """A stretch of time in the life of the platform.

    days: from 1. seed: another seed, other events. scale: multiplies sessions and batches, above 0.
    start: a midnight in UTC. Raises EventConfigException where one of them is not so.
    """

    days: int = 7
    seed: int = 1
    scale: float = 1.0
    start: datetime = START

    def __post_init__(self) -> None:
        if self.days < 1:
            raise EventConfigException(f"days is {self.days}; write at least 1")
        if not self.scale > 0:
            raise EventConfigException(f"scale is {self.scale}; write more than 0")
        if self.start.utcoffset() != timedelta(0) or self.start != self.start.replace(
            hour=0, minute=0, second=0, microsecond=0
        ):
            raise EventConfigException(f"start is {self.start}; write a midnight in UTC")

    def incidents(self) -> tuple[Incident, ...]:
        """What goes wrong, and when: the ground truth, in the order of time."""
        return plant(self.start, self.days)

    def documents(self) -> Iterator[Document]:
        """The events, in the order of time."""
        faults = Faults(self.incidents())
        waiting: list[tuple[float, Document]] = []
        for hour in range(self.days * 24):
            moment = self.start + timedelta(hours=hour)
            # Of its own for each hour, so that what happens in one does not shift all later ones.
            recorder = Recorder(Random(f"{self.seed} {hour}"), faults)  # noqa: S311 — no secret, a simulation
            self._play_hour(recorder, moment)
            waiting += recorder.events
            # Stable, so that events of the same instant stay in the order in which they were recorded.
            waiting.sort(key=itemgetter(0))
            settled = moment.timestamp() + _HOUR_S
            due = next((index for index, (at, _) in enumerate(waiting) if at >= settled), len(waiting))
            yield from (document for _, document in waiting[:due])
            del waiting[:due]
        yield from (document for _, document in waiting)

    def _play_hour(self, recorder: Recorder, moment: datetime) -> None:
        start = moment.timestamp()
        for region in cast.UTC_OFFSET_H:
            for at in _arrivals(recorder.random, start, cast.sessions_an_hour(moment, region) * self.scale):
                activities.session(recorder, at, region)
            if moment.hour == (cast.BATCH_HOUR - cast.UTC_OFFSET_H[region]) % 24:
                for number in range(max(1, round(self.scale))):
                    activities.nightly_batch(recorder, start + number, region)
        for at in _arrivals(recorder.random, start, _CONFIG_CHANGES_AN_HOUR):
            activities.config_change(recorder, at)
        self._play_machines(recorder, start)

    def _play_machines(self, recorder: Recorder, start: float) -> None:
        for number, host in enumerate(cast.HOSTS):
            for beat in range(int(_HOUR_S) // cast.HEARTBEAT_S):
                # Each host at its own second, and never quite exactly.
                at = start + beat * cast.HEARTBEAT_S + number * 7 + recorder.random.random() * 0.5
                activities.heartbeat(recorder, at, host)
        for at, host, old, new in recorder.faults.updates():
            if start <= at < start + _HOUR_S:
                activities.host_update(recorder, at, host, old, new)
        if start <= recorder.faults.rare_at < start + _HOUR_S:
            activities.template_export(recorder, recorder.faults.rare_at)


def _arrivals(random: Random, start: float, rate: float) -> Iterator[float]:
    """Moments of an hour, `rate` of them on average, independent of each other."""
    at = start
    while rate > 0 and (at := at + random.expovariate(rate) * _HOUR_S) < start + _HOUR_S:
        yield at
