"""What an event may hold. The ingest service enforces it; clients check it early.

Stated in protos/eventlog/v1/event.proto.
"""

# Event types, whole: no white space, no control characters, no wildcards of the filter language.
TYPE_PATTERN = r"[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,199}"
# Source, correlation id, host, version, user, session id, and each tag, in bytes of UTF-8.
TEXT_BYTES_MAX = 255
TAGS_MAX = 64
PAYLOAD_BYTES_MAX = 1024 * 1024
PAYLOAD_DEPTH_MAX = 100
# Payloads typed as google.protobuf.Struct, all of one request together: bytes, and values at any depth.
STRUCTURES_BYTES_MAX = 1024 * 1024
STRUCTURES_VALUES_MAX = 20_000
