"""The events of a session, and those that are related to it: they share a correlation id with one of the session's.

A session may have thousands of correlation ids, and a filter holds LIST_VALUES_MAX of them. So there are several
readings of history that have no event in common, and what they find is put in order:

    the session's events without a correlation id      the events of 1,000 correlation ids      of the next 1,000 …

Invariants: each reading holds at most READING_BYTES_MAX, and a message, at a time, and asks the query service for one
answer after the other, never for several at once; CORRELATION_IDS_MAX is never exceeded, it is an error.
"""

from collections import OrderedDict
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from shared.columns.encoded_events import EncodedEvents, interleave
from shared.errors import EventStreamException
from shared.filters.limits import LIST_VALUES_MAX
from stream_service.query_history import Extent, QueryHistory, Selection, chains_filter, session_filter

CORRELATION_IDS_MAX = 10_000
# All sessions in the cache together.
CACHED_IDS_MAX = 200_000
READING_EVENTS_MAX = 2_000
READING_BYTES_MAX = 1024 * 1024


class SessionEvents:
    """Finds out what belongs to sessions, and remembers it for the next replay."""

    def __init__(self, history: QueryHistory, *, cache_size: int) -> None:
        """cache_size: sessions of which the correlation ids are remembered, least recently used forgotten first."""
        self._history = history
        self._cache_size = cache_size
        self._cache: OrderedDict[str, _Known] = OrderedDict()
        self._cached_ids = 0

    async def selections(
        self, session_id: str, within: Selection, extent: Extent, *, include_related: bool
    ) -> list[Selection]:
        """The readings that together give the session's events, none twice, within a selection without a filter.

        Raises EventStreamException (SESSION_TOO_LARGE), and what history raises.
        """
        if not include_related:
            return [replace(within, filters=session_filter(session_id))]
        ids = sorted(await self._correlation_ids(session_id, extent))
        chunks = [ids[at : at + LIST_VALUES_MAX] for at in range(0, len(ids), LIST_VALUES_MAX)]
        filters = [session_filter(session_id, unchained=True), *map(chains_filter, chunks)]
        return [replace(within, filters=each) for each in filters]

    async def _correlation_ids(self, session_id: str, extent: Extent) -> frozenset[str]:
        """Those of all events of the session. What is known of it is brought up to date by the events since."""
        known = self._forget(session_id) or _Known(frozenset(), extent.first_position - 1)
        ids = set(known.correlation_ids)
        since = Selection(
            # What retention has removed since cannot be asked for.
            from_position=max(known.position + 1, extent.first_position),
            until_position=extent.committed_position + 1,
            filters=session_filter(session_id),
        )
        async with aclosing(self._history.read(since)) as batches:
            async for events in batches:
                ids |= events.correlation_ids()
                if len(ids) > CORRELATION_IDS_MAX:
                    raise _too_large(session_id)
        known = _Known(frozenset(ids), max(extent.committed_position, known.position))
        self._remember(session_id, known)
        return known.correlation_ids

    def _forget(self, session_id: str) -> "_Known | None":
        known = self._cache.pop(session_id, None)
        self._cached_ids -= len(known.correlation_ids) if known else 0
        return known

    def _remember(self, session_id: str, known: "_Known") -> None:
        self._forget(session_id)
        self._cache[session_id] = known
        self._cached_ids += len(known.correlation_ids)
        while len(self._cache) > self._cache_size or self._cached_ids > CACHED_IDS_MAX:
            self._forget(next(iter(self._cache)))


async def read_together(history: QueryHistory, selections: Sequence[Selection]) -> AsyncGenerator[EncodedEvents, None]:
    """The events of selections that have none in common, in the order of positions. Raises what history raises."""
    readings = [_Reading(history, selection) for selection in selections]
    while True:
        for reading in readings:
            await reading.fill()
        readings = [reading for reading in readings if reading.holds_some]
        if not readings:
            return
        # Beyond this position, some reading may still find events.
        known = min(reading.known for reading in readings)
        yield interleave([events for reading in readings for events in reading.take(known)])


@dataclass(frozen=True, slots=True)
class _Known:
    """The correlation ids of a session's events up to a position."""

    correlation_ids: frozenset[str]
    position: int


class _Reading:
    """Reads one selection, a bounded piece at a time."""

    def __init__(self, history: QueryHistory, selection: Selection) -> None:
        self._history = history
        self._rest = selection
        self._held: list[EncodedEvents] = []
        self._complete = False

    @property
    def holds_some(self) -> bool:
        """Whether events wait to be taken."""
        return bool(self._held)

    @property
    def known(self) -> int:
        """The position up to which everything is held or was taken."""
        return self._rest.until_position - 1 if self._complete else self._rest.from_position - 1

    async def fill(self) -> None:
        """Read on, if everything was taken."""
        if self._held or self._complete:
            return
        count, size = 0, 0
        async with aclosing(self._history.read(self._rest, limit=READING_EVENTS_MAX)) as batches:
            async for events in batches:
                self._held.append(events)
                self._rest = self._rest.following(int(events.positions[-1]) + 1)
                count, size = count + len(events), size + len(events.data)
                if size >= READING_BYTES_MAX:
                    return
        self._complete = count < READING_EVENTS_MAX

    def take(self, position: int) -> list[EncodedEvents]:
        """What is held up to a position, inclusive."""
        held = [_split(events, position) for events in self._held]
        self._held = [later for _, later in held if len(later)]
        return [earlier for earlier, _ in held if len(earlier)]


def _split(events: EncodedEvents, position: int) -> tuple[EncodedEvents, EncodedEvents]:
    at = int(events.positions.searchsorted(position, side="right"))
    return events.slice(0, at), events.slice(at, len(events))


def _too_large(session_id: str) -> EventStreamException:
    return EventStreamException(
        f"the events of session {session_id!r} have more than {CORRELATION_IDS_MAX} correlation ids: replay them "
        "without the related events, or replay the session's time",
        reason="SESSION_TOO_LARGE",
        correlation_ids_max=CORRELATION_IDS_MAX,
    )
