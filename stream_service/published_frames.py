"""Frames as the ingest service publishes them: whole, one after the other in one request."""

from dataclasses import dataclass

from shared.errors import EventValidationException, FieldViolation
from shared.log.frame import FrameDamaged, FrameHeader, decode_header


@dataclass(frozen=True, slots=True)
class PublishedFrame:
    """A frame as it was received, and when, in monotonic seconds."""

    header: FrameHeader
    data: bytes
    received_s: float


def split_frames(frames: bytes, received_s: float) -> list[PublishedFrame]:
    """Whole frames, one after the other. Raises EventValidationException where they are none."""
    found = []
    offset = 0
    try:
        while offset < len(frames):
            header = decode_header(frames, offset)
            found.append(PublishedFrame(header, frames[offset : offset + header.length], received_s))
            offset += header.length
    except FrameDamaged as error:
        raise _malformed(str(error)) from error
    if offset != len(frames):
        raise _malformed("the last frame is cut off")
    return found


def _malformed(problem: str) -> EventValidationException:
    return EventValidationException(
        f"frame does not hold whole frames: {problem}",
        violations=[FieldViolation("frame", problem)],
        reason="INVALID_FIELD",
    )
