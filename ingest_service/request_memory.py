"""Which named requests were logged, so that a repeated one is answered and not logged again.

Remembers at most `requests_max` requests, each for at least `horizon` unless the maximum forces the
oldest out. The horizon is counted by the clock that does not jump: a time of day that is set wrong makes
nobody log anything twice. What is remembered is also on disk: in the frames of unsealed segments and in the
.requests files beside sealed ones; a restart reads it back. Then the horizon counts back from the newest
event, by recorded times, and they are all there is: a jump between two events counts like the time it says.

Not safe for several threads; the preparing thread owns it.
"""

import logging
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping

from shared.errors import EventValidationException
from shared.log.file_system import FileSystem
from shared.log.frame import FrameDamaged
from shared.log.names import SEGMENTS, parse_requests_name
from shared.log.recovery import Recovered, RememberedRequest
from shared.log.request_file import read_request_file
from shared.log.types import Nanoseconds, Position, PositionRange

_NANOS = 1_000_000_000

_log = logging.getLogger(__name__)


class RequestMemory:
    """Request ids and the positions they were given."""

    def __init__(self, *, requests_max: int, horizon_s: float) -> None:
        self.requests_max = requests_max
        self._horizon_s = horizon_s
        # Each with the time by the monotonic clock at which it was recorded; oldest first.
        self._known: OrderedDict[str, tuple[RememberedRequest, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def remember(self, requests: Iterable[RememberedRequest], recorded_s: float) -> None:
        """Add requests recorded at recorded_s by the monotonic clock, which is no earlier than at the call before.

        One that comes again was logged again, after it had been forgotten: the last one counts.
        """
        for request in requests:
            self._known.pop(request.request_id, None)
            self._known[request.request_id] = (request, recorded_s)
        while len(self._known) > self.requests_max:
            self._known.popitem(last=False)

    def forget_expired(self, now_s: float) -> None:
        """Drop what lies beyond the horizon; now_s by the monotonic clock."""
        oldest_kept_s = now_s - self._horizon_s
        while self._known:
            _, recorded_s = next(iter(self._known.values()))
            if recorded_s >= oldest_kept_s:
                return
            self._known.popitem(last=False)

    def find(
        self, request_id: str, count: int, not_yet_known: Mapping[str, RememberedRequest]
    ) -> tuple[PositionRange, Nanoseconds] | None:
        """Positions first given to a request id and when; None if it is new.

        not_yet_known: requests of the frame being built. Raises EventValidationException
        (REQUEST_ID_REUSED) if the id named another number of events.
        """
        known = not_yet_known.get(request_id)
        if known is None and request_id in self._known:
            known, _ = self._known[request_id]
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


def load_requests(memory: RequestMemory, fs: FileSystem, recovered: Recovered, *, now_s: float) -> None:
    """Fill the memory from the disk: first the sealed segments', then those that recovery found."""
    found: deque[RememberedRequest] = deque(maxlen=memory.requests_max)
    for name in fs.list(SEGMENTS):
        if parse_requests_name(name) is None:
            continue
        try:
            found += read_request_file(fs, name)
        except FrameDamaged as error:
            _log.error("request ids of a sealed segment are lost", extra={"file": name, "problem": str(error)})
    found += recovered.requests
    newest = max((request.recorded_at for request in found), default=Nanoseconds(0))
    newest = max(newest, recovered.last_recorded_at)
    for request in found:
        memory.remember([request], now_s - (newest - request.recorded_at) / _NANOS)
    memory.forget_expired(now_s)
