"""Asks the log about itself: verification, rotation and sealing, segments, sizes."""

import time
from collections.abc import Iterator

import grpc
from eventlog.v1 import log_admin_service_pb2, log_admin_service_pb2_grpc

_TIMEOUT_S = 30.0
_POLL_S = 0.1
_STATES = {
    log_admin_service_pb2.SEGMENT_STATE_ACTIVE: "active",
    log_admin_service_pb2.SEGMENT_STATE_ROTATED: "rotated",
    log_admin_service_pb2.SEGMENT_STATE_SEALED: "sealed",
}


class LogReport:
    """Calls LogAdminService over a channel. All methods raise grpc.RpcError where a call fails."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._admin = log_admin_service_pb2_grpc.LogAdminServiceStub(channel)

    def status(self) -> log_admin_service_pb2.GetLogStatusResponse:
        """The state of the log."""
        return self._admin.GetLogStatus(log_admin_service_pb2.GetLogStatusRequest(), timeout=_TIMEOUT_S)

    def verify(self) -> log_admin_service_pb2.VerifyLogResponse:
        """Have every byte of the log checked; returns the summary."""
        summary = log_admin_service_pb2.VerifyLogResponse()
        for answer in self._admin.VerifyLog(log_admin_service_pb2.VerifyLogRequest(), timeout=_TIMEOUT_S):
            summary = answer
        return summary

    def seal_everything(self, *, timeout_s: float) -> bool:
        """Rotate the log and wait until all that is rotated is sealed; False if it is not within the time."""
        self._admin.RotateLog(log_admin_service_pb2.RotateLogRequest(), timeout=_TIMEOUT_S)
        give_up_at = time.monotonic() + timeout_s
        while any(segment.state == log_admin_service_pb2.SEGMENT_STATE_ROTATED for segment in self.segments()):
            if time.monotonic() > give_up_at:
                return False
            time.sleep(_POLL_S)
        return True

    def segments(self) -> Iterator[log_admin_service_pb2.Segment]:
        """Every segment, in the order of positions."""
        request = log_admin_service_pb2.ListSegmentsRequest()
        while True:
            page = self._admin.ListSegments(request, timeout=_TIMEOUT_S)
            yield from page.segments
            request.page_token = page.next_page_token
            if not request.page_token:
                return

    def segment_table(self) -> list[str]:
        """The segments as lines of a table."""
        lines = [f"{'state':<9}{'positions':>22}{'bytes':>14}{'a event':>9}  files"]
        for segment in self.segments():
            events = segment.last_position - segment.first_position + 1
            positions = f"{segment.first_position:,}-{segment.last_position:,}" if events else "-"
            each = f"{segment.bytes / events:.1f}" if events else "-"
            classes = ", ".join(f"{file.retention_class or 'log'} {file.events:,}" for file in segment.files)
            lines.append(f"{_STATES[segment.state]:<9}{positions:>22}{segment.bytes:>14,}{each:>9}  {classes}")
        return lines
