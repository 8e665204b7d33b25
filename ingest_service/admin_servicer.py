"""LogAdminService over gRPC: what operators ask of the log.

Quick reads go to threads, changes to the appending thread. What reads or makes whole segments is done one after
the other in a thread of its own, whoever asks: it keeps nobody from asking how the log is doing.
"""

import asyncio
import contextlib
import contextvars
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from functools import partial
from typing import ParamSpec, TypeVar

from eventlog.v1 import log_admin_service_pb2 as pb

from ingest_service.commit_queue import CommitStatus
from ingest_service.damage_register import DamageRegister
from ingest_service.group_commit import GroupCommit
from shared.config import EventConfig
from shared.errors import EventValidationException, FieldViolation
from shared.log.file_system import LocalFileSystem
from shared.log.log_reader import LocalLogReader, SegmentSpan
from shared.log.log_writer import LocalLogWriter
from shared.log.names import SEGMENTS
from shared.log.segment_summary import SegmentState, SegmentSummary, summarize
from shared.log.sidecars import rebuild_sidecars
from shared.log.token_key import TokenKey
from shared.log.types import Damage, Position
from shared.log.verify import Verified, mend_segment, verify_segment
from shared.rpc.call import Context
from shared.rpc.page_tokens import decode_page_token, encode_page_token

PAGE_SIZE_DEFAULT = 100
PAGE_SIZE_MAX = 1_000
# Damaged ranges in one answer; a disk that is worse than this needs another remedy.
DAMAGE_SHOWN_MAX = 1_000
# A segment is rotated once and sealed once while somebody looks at it.
_SEGMENT_CHANGES_MAX = 5

_log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

_STATES = {
    SegmentState.ACTIVE: pb.SEGMENT_STATE_ACTIVE,
    SegmentState.ROTATED: pb.SEGMENT_STATE_ROTATED,
    SegmentState.SEALED: pb.SEGMENT_STATE_SEALED,
}


class LogAdminServicer:
    """Looks after the log. The RPCs it lacks are not built yet."""

    def __init__(
        self,
        commit: GroupCommit,
        writer: LocalLogWriter,
        reader: LocalLogReader,
        fs: LocalFileSystem,
        *,
        maintenance: Executor,
        damage: DamageRegister,
        config: EventConfig,
    ) -> None:
        """Maintenance: runs one thing at a time."""
        self._commit = commit
        self._writer = writer
        self._reader = reader
        self._fs = fs
        self._maintenance = maintenance
        self._damage = damage
        self._config = config
        self._token_key = TokenKey(fs).get()

    async def get_log_status(self, request: pb.GetLogStatusRequest, context: Context) -> pb.GetLogStatusResponse:
        """Report the state of the log and of its storage."""
        del request, context
        return await asyncio.to_thread(self._status)

    async def list_segments(self, request: pb.ListSegmentsRequest, context: Context) -> pb.ListSegmentsResponse:
        """List segments in position order."""
        del context
        if request.page_size < 0:
            raise _invalid("page_size", "must not be negative")
        first = Position(1)
        if request.page_token:
            first = Position(decode_page_token(request.page_token, b"segments", key=self._token_key)["next"])
        limit = min(request.page_size or PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX)
        return await asyncio.to_thread(self._segments_page, first, limit)

    async def rotate_log(self, request: pb.RotateLogRequest, context: Context) -> pb.RotateLogResponse:
        """Close the active segment and open the next."""
        del request, context
        rotated = await self._commit.run_between_frames(self._writer.rotate)
        active = self._writer.active
        first = active.first if active else self._writer.last_position + 1
        return pb.RotateLogResponse(rotated=rotated, active_first_position=first)

    async def verify_log(self, request: pb.VerifyLogRequest, context: Context) -> AsyncIterator[pb.VerifyLogResponse]:
        """Verify segment by segment, then summarise."""
        del context
        total = pb.VerifyLogResponse(done=True)
        for span in await asyncio.to_thread(self._spans, request.from_position, request.until_position):
            summary, verified = await self._in_turn(self._verify, span)
            total.verified_events += verified.events
            total.verified_bytes += verified.bytes
            damage = [_damage_message(each) for each in verified.damage]
            total.damage.extend(damage)
            yield pb.VerifyLogResponse(
                verified_events=total.verified_events,
                verified_bytes=total.verified_bytes,
                segment=_segment_message(summary) if summary else None,
                damage=damage[:DAMAGE_SHOWN_MAX],
            )
        holes = await asyncio.to_thread(self._holes, request.from_position, request.until_position)
        total.damage.extend(_damage_message(each) for each in holes)
        del total.damage[DAMAGE_SHOWN_MAX:]
        yield total

    async def rebuild_index(self, request: pb.RebuildIndexRequest, context: Context) -> pb.RebuildIndexResponse:
        """Make index sidecars anew."""
        del context
        rebuilt = await self._in_turn(rebuild_sidecars, self._fs, only_missing=request.only_missing)
        self._damage.add(rebuilt.damage)
        return pb.RebuildIndexResponse(
            rebuilt_sidecars=rebuilt.made,
            kept_sidecars=rebuilt.kept,
            damage=[_damage_message(each) for each in rebuilt.damage[:DAMAGE_SHOWN_MAX]],
        )

    async def _in_turn(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do what takes long when it is its turn. What it logs has the request id of the call."""
        call = partial(contextvars.copy_context().run, work, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._maintenance, call)

    def _status(self) -> pb.GetLogStatusResponse:
        commit = self._commit.status()
        committed = self._reader.committed()
        spans = self._reader.segments(committed)
        status = pb.GetLogStatusResponse(
            log_id=self._writer.log_id,
            first_position=spans[0].files.first if spans else 0,
            committed_position=commit.committed_position,
            last_position=commit.last_position,
            storage_state=_storage_state(commit),
            storage_error=str(commit.storage_error or ""),
            buffered_bytes=commit.buffered_bytes,
            buffered_bytes_max=self._config.ingest.buffered_bytes_max,
            sealed_segments=sum(span.files.is_sealed for span in spans),
            unsealed_segments=sum(
                not span.files.is_sealed and span.files.first != committed.active_first for span in spans
            ),
            disk_bytes=self._fs.total_bytes(SEGMENTS),
            free_bytes=self._fs.free_bytes(),
            request_ids_max=self._config.ingest.request_ids_max,
            damage=[_damage_message(each) for each in self._damage.known()[:DAMAGE_SHOWN_MAX]],
        )
        if committed.position:
            status.last_recorded_at.FromNanoseconds(committed.recorded_at)
        status.request_id_horizon.FromNanoseconds(round(self._config.ingest.request_id_horizon * 1e9))
        return status

    def _segments_page(self, first: Position, limit: int) -> pb.ListSegmentsResponse:
        spans = [span for span in self._reader.segments(self._reader.committed()) if span.until > first]
        summaries = [summary for span in spans[:limit] if (summary := self._summarize(span))]
        token = ""
        if len(spans) > limit:
            token = encode_page_token(b"segments", {"next": spans[limit].files.first}, key=self._token_key)
        return pb.ListSegmentsResponse(
            segments=[_segment_message(summary) for summary in summaries], next_page_token=token
        )

    def _spans(self, from_position: int, until_position: int) -> list[SegmentSpan]:
        until = until_position or 2**64
        spans = self._reader.segments(self._reader.committed())
        return [span for span in spans if span.until > from_position and span.files.first < until]

    def _holes(self, from_position: int, until_position: int) -> list[Damage]:
        until = until_position or 2**64
        holes = self._reader.holes(self._reader.committed())
        found = [each for each in holes if each.positions.last >= from_position and each.positions.first < until]
        self._damage.add(found)
        return found

    def _summarize(self, span: SegmentSpan) -> SegmentSummary | None:
        return self._with_current(
            span, lambda current: summarize(self._fs, self._reader, current, self._reader.committed())
        )

    def _verify(self, span: SegmentSpan) -> tuple[SegmentSummary | None, Verified]:
        verified = self._with_current(span, lambda current: verify_segment(self._fs, current, self._reader.committed()))
        if verified is None:
            return None, Verified()
        self._damage.add(verified.damage)
        if verified.damage:
            try:
                self._with_current(span, lambda current: mend_segment(self._fs, current))
            except OSError:
                # What was found is told all the same; the next VerifyLog tries again.
                _log.exception("cannot mend a segment", extra={"first_position": span.files.first})
        return self._summarize(span), verified

    def _with_current(self, span: SegmentSpan, read: Callable[[SegmentSpan], T]) -> T | None:
        """Read a segment in whatever form it has now; None if it is gone."""
        for _ in range(_SEGMENT_CHANGES_MAX):
            spans = self._reader.segments(self._reader.committed())
            current = next((each for each in spans if each.files.first == span.files.first), None)
            if current is None:
                return None
            with contextlib.suppress(FileNotFoundError):
                return read(current)
        return None


def _storage_state(commit: CommitStatus) -> "pb.StorageState.ValueType":
    if commit.storage_error is None:
        return pb.STORAGE_STATE_HEALTHY
    full = commit.storage_error.metadata.get("storage") == "full"
    return pb.STORAGE_STATE_FULL if full else pb.STORAGE_STATE_FAILING


def _segment_message(summary: SegmentSummary) -> pb.Segment:
    message = pb.Segment(
        first_position=summary.positions.first,
        last_position=summary.positions.last,
        state=_STATES[summary.state],
        bytes=sum(file.bytes for file in summary.files),
        files=[
            pb.SegmentFile(name=file.name, retention_class=file.retention_class, events=file.events, bytes=file.bytes)
            for file in summary.files
        ],
    )
    if summary.recorded_at is not None:
        message.first_recorded_at.FromNanoseconds(summary.recorded_at[0])
        message.last_recorded_at.FromNanoseconds(summary.recorded_at[1])
    return message


def _damage_message(damage: Damage) -> pb.DamagedRange:
    return pb.DamagedRange(
        first_position=damage.positions.first,
        last_position=damage.positions.last,
        file=damage.file,
        problem=damage.problem,
    )


def _invalid(field: str, description: str) -> EventValidationException:
    return EventValidationException(
        f"{field} {description}", violations=[FieldViolation(field, description)], reason="INVALID_FIELD"
    )
