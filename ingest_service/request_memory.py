"""Which named requests were logged, so that a repeated one is answered and not logged again.

Remembers at most `requests_max` requests, each for at least `horizon` unless the maximum forces the
oldest out. What is remembered is also on disk: in the frames of unsealed segments and in the
.requests files beside sealed ones; a restart reads it back.

Not safe for several threads; the preparing thread owns it.
"""

import logging
from collections import OrderedDict
from collections.abc import Iterable, Mapping

from shared.errors import EventValidationException
from shared.log.file_system import FileSystem
from shared.log.frame import FrameDamaged
from shared.log.names import SEGMENTS, parse_requests_name
from shared.log.recovery import Recovered, RememberedRequest
from shared.log.request_file import read_request_file
from shared.log.types import Nanoseconds, Position, PositionRange

_log = logging.getLogger(__name__)


class RequestMemory:
    """Request ids and the positions they were given."""

    def __init__(self, *, requests_max: int, horizon_ns: int) -> None:
        self._requests_max = requests_max
        self._horizon_ns = horizon_ns
        self._known: OrderedDict[str, RememberedRequest] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def remember(self, requests: Iterable[RememberedRequest]) -> None:
        """Add requests, oldest first.

        One that comes again was logged again, after it had been forgotten: the last one counts.
        """
        for request in requests:
            self._known.pop(request.request_id, None)
            self._known[request.request_id] = request
        while len(self._known) > self._requests_max:
            self._known.popitem(last=False)

    def forget_expired(self, now: Nanoseconds) -> None:
        """Drop what lies beyond the horizon."""
        oldest_kept = now - self._horizon_ns
        while self._known:
            oldest = next(iter(self._known.values()))
            if oldest.recorded_at >= oldest_kept:
                return
            del self._known[oldest.request_id]

    def find(
        self, request_id: str, count: int, not_yet_known: Mapping[str, RememberedRequest]
    ) -> tuple[PositionRange, Nanoseconds] | None:
        """Positions first given to a request id and when; None if it is new.

        not_yet_known: requests of the frame being built. Raises EventValidationException
        (REQUEST_ID_REUSED) if the id named another number of events.
        """
        known = not_yet_known.get(request_id) or self._known.get(request_id)
        if known is None:
            return None
        first = known.first_position
        if known.count != count:
            raise EventValidationException(
                f"request id {request_id!r} was used before for {known.count} events and now comes with {count}: "
                "give every request an id of its own",
                reason="REQUEST_ID_REUSED",
                first_position=first,
                count=known.count,
            )
        return PositionRange(first, Position(first + count - 1)), known.recorded_at


def load_requests(memory: RequestMemory, fs: FileSystem, recovered: Recovered, *, now_ns: int) -> None:
    """Fill the memory from the disk: first the sealed segments', then those that recovery found."""
    for name in fs.list(SEGMENTS):
        if parse_requests_name(name) is None:
            continue
        try:
            memory.remember(read_request_file(fs, name))
        except FrameDamaged as error:
            _log.error("request ids of a sealed segment are lost", extra={"file": name, "problem": str(error)})
    memory.remember(recovered.requests)
    memory.forget_expired(Nanoseconds(now_ns))
