"""The maxima of the storage engine, and the relations between them that must hold."""

KIB = 1024
MIB = 1024 * KIB

# Most events in one request: their rows must fit one frame and one answer.
BATCH_EVENTS_MAX = 10_000
# Most bytes of one request on the wire.
BATCH_BYTES_MAX = 16 * MIB
# Most request bytes that a group commit joins, unless a single request is larger.
FRAME_BYTES_MAX = 8 * MIB
# Most bytes of a frame's body before compression. Arrow may take several times a request's bytes
# where events are tiny, because every column costs a few bytes a row.
FRAME_RAW_BYTES_MAX = 512 * MIB
# Most events in one frame.
FRAME_EVENTS_MAX = 200_000

# Any request fits a frame, whatever else waits.
assert BATCH_EVENTS_MAX <= FRAME_EVENTS_MAX
# Columns of an empty event take about 100 bytes; ten times that still fits.
assert FRAME_EVENTS_MAX * 1000 + 4 * (FRAME_BYTES_MAX + BATCH_BYTES_MAX) <= FRAME_RAW_BYTES_MAX
