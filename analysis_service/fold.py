"""State folded from events: what a thing is like after the events up to some position.

    folder = StateFolder(reducer_of("merge_patch"))
    folder.advance(positions, times, types, payloads)
    folder.state

A reducer makes the next state of a state and an event. "merge_patch" applies payloads as JSON Merge Patches (RFC
7396): members replace those before, null removes them, objects are merged. "latest" keeps the last payload, "counter"
the number of events by type. Others are added under the entry points group `eventlog.reducers`.

Invariants: a reducer changes neither the state nor the event that it is given; folding from a snapshot gives what
folding from the beginning gives; an event counts once, in the order of positions.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, NamedTuple, TypeAlias

import msgspec

from shared.errors import EventAnalysisException, invalid_field

SNAPSHOT_EVERY = 1_000
SNAPSHOTS_MAX = 1_000
STATE_BYTES_MAX = 16 * 1024 * 1024
_DEPTH_MAX = 100
ENTRY_POINTS = "eventlog.reducers"


class FoldedEvent(NamedTuple):
    """An event as a reducer sees it. payload: the decoded JSON object. time_ns: its timestamp."""

    position: int
    time_ns: int
    type: str
    payload: dict[str, Any]


# Makes the next state of the state, None at first, and an event. Pure.
Reducer: TypeAlias = Callable[[Any, FoldedEvent], Any]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state after the event at a position, as JSON, and how many events it was made of. position: 0 before any."""

    position: int
    events: int
    state_json: bytes

    @property
    def state(self) -> Any:
        """The state, decoded anew."""
        return msgspec.json.decode(self.state_json)


NOTHING = Snapshot(0, 0, b"null")


class StateFolder:
    """Folds events, and keeps a snapshot after every SNAPSHOT_EVERY of them, at most SNAPSHOTS_MAX, evenly spread."""

    def __init__(self, reducer: Reducer, *, start: Snapshot = NOTHING, snapshot_every: int = SNAPSHOT_EVERY) -> None:
        self._reducer = reducer
        self._every = snapshot_every
        self.state: Any = start.state
        self.position = start.position
        self.events = start.events
        self.snapshots: list[Snapshot] = []

    def advance(self, events: Iterable[FoldedEvent]) -> None:
        """Fold events in the order of positions; those already folded are left out.

        Raises EventAnalysisException where the reducer fails or the state grows beyond STATE_BYTES_MAX.
        """
        for event in events:
            if event.position <= self.position:
                continue
            try:
                self.state = self._reducer(self.state, event)
            except EventAnalysisException:
                raise
            except Exception as error:
                raise EventAnalysisException(
                    f"the reducer failed at position {event.position}: {error}", position=event.position
                ) from error
            self.position = event.position
            self.events += 1
            if self.events % self._every == 0:
                self._keep(self.snapshot())

    def snapshot(self) -> Snapshot:
        """The state as of now. Raises EventAnalysisException where it is no JSON or too large."""
        try:
            state = msgspec.json.encode(self.state)
        except (TypeError, ValueError, OverflowError) as error:
            raise EventAnalysisException(f"the state at position {self.position} is no JSON: {error}") from error
        if len(state) > STATE_BYTES_MAX:
            raise EventAnalysisException(
                f"the state at position {self.position} has {len(state)} bytes, more than {STATE_BYTES_MAX}: "
                "fold fewer events, or a smaller entity"
            )
        return Snapshot(self.position, self.events, state)

    def _keep(self, snapshot: Snapshot) -> None:
        self.snapshots.append(snapshot)
        if len(self.snapshots) > SNAPSHOTS_MAX:
            self.snapshots = self.snapshots[1::2]
            self._every *= 2


def nearest_snapshot(snapshots: Iterable[Snapshot], position: int) -> Snapshot:
    """The last snapshot at or before a position; NOTHING where there is none."""
    before = (each for each in snapshots if each.position <= position)
    return max(before, key=lambda each: each.position, default=NOTHING)


def decode_events(
    positions: list[int], times: list[int], types: list[str], payloads: list[str]
) -> Iterable[FoldedEvent]:
    """Events from columns, one at a time."""
    for position, time_ns, kind, payload in zip(positions, times, types, payloads, strict=True):
        yield FoldedEvent(position, time_ns, kind, msgspec.json.decode(payload))


def reducer_of(name: str) -> Reducer:
    """The reducer of a name. Raises EventValidationException (INVALID_FIELD) naming those that there are."""
    if name in REDUCERS:
        return REDUCERS[name]
    added = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if name in added:
        reducer: Reducer = added[name].load()
        return reducer
    raise invalid_field("reducer", f"is {name!r}; there are {', '.join(sorted([*REDUCERS, *added]))}")


def merge_patch(target: Any, patch: Any, depth: int = 0) -> Any:
    """The target with a JSON Merge Patch applied (RFC 7396); neither is changed."""
    if not isinstance(patch, dict):
        return patch
    if depth > _DEPTH_MAX:
        raise EventAnalysisException(f"the payload is nested deeper than {_DEPTH_MAX} levels")
    merged = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value, depth + 1)
    return merged


def _merge(state: Any, event: FoldedEvent) -> Any:
    return merge_patch({} if state is None else state, event.payload)


def _latest(_state: Any, event: FoldedEvent) -> Any:
    return event.payload


def _count(state: Any, event: FoldedEvent) -> Any:
    counts = state or {}
    return {**counts, event.type: counts.get(event.type, 0) + 1}


REDUCERS: dict[str, Reducer] = {"merge_patch": _merge, "latest": _latest, "counter": _count}
