"""Page tokens: where the next page begins, opaque to the client and of no use with another query.

Layout before base64url: version (1 byte), digest of the query (8), mac (16), state as JSON.
Invariants: a token that decodes was made by a service with the same key, for the same query, and was not changed.
The state is signed, not encrypted: put nothing into it that the caller may not see. A token does not expire.
"""

import base64
import binascii
import hmac
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import orjson

from shared.errors import EventValidationException, FieldViolation

TOKEN_CHARS_MAX = 4096
KEY_BYTES_MIN = 16
KEY_BYTES_MAX = 64

_VERSION = b"\x01"
_QUERY_BYTES = 8
_MAC_BYTES = 16
_HEADER_BYTES = len(_VERSION) + _QUERY_BYTES + _MAC_BYTES


def encode_page_token(query: bytes, state: Mapping[str, Any], *, key: bytes) -> str:
    """Return a token that holds the state, for the query that these bytes describe.

    query: the same bytes for the same query, without its page token and page size. state: JSON values,
    at most about 3,000 bytes as JSON. key: 16 to 64 secret bytes, the same on every replica.
    """
    body = orjson.dumps(dict(state))
    digest = _query_digest(query, key)
    token = base64.urlsafe_b64encode(_VERSION + digest + _mac(digest + body, key) + body).rstrip(b"=").decode()
    assert len(token) <= TOKEN_CHARS_MAX, len(token)
    return token


def decode_page_token(token: str, query: bytes, *, key: bytes) -> dict[str, Any]:
    """Return the state of a token. Raises EventValidationException, INVALID_PAGE_TOKEN."""
    raw = _unwrapped(token)
    if len(raw) <= _HEADER_BYTES or raw[:1] != _VERSION:
        raise _refused("is damaged or of another version")
    digest, mac, body = raw[1 : 1 + _QUERY_BYTES], raw[1 + _QUERY_BYTES : _HEADER_BYTES], raw[_HEADER_BYTES:]
    if not hmac.compare_digest(mac, _mac(digest + body, key)):
        raise _refused("is damaged, or the service's key has changed")
    if not hmac.compare_digest(digest, _query_digest(query, key)):
        raise _refused("was made for another query")
    state = orjson.loads(body)
    assert isinstance(state, dict), "only encode_page_token can sign, and it signs objects"
    return state


def _unwrapped(token: str) -> bytes:
    if len(token) > TOKEN_CHARS_MAX:
        raise _refused(f"is longer than {TOKEN_CHARS_MAX} characters")
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error) as error:
        raise _refused("is damaged") from error
    # Base64 lets the last character carry bits that mean nothing: only one spelling is ours.
    if base64.urlsafe_b64encode(raw).rstrip(b"=").decode() != token:
        raise _refused("is damaged")
    return raw


def _query_digest(query: bytes, key: bytes) -> bytes:
    return blake2b(query, digest_size=_QUERY_BYTES, key=_checked(key), person=b"eventlog query").digest()


def _mac(content: bytes, key: bytes) -> bytes:
    return blake2b(content, digest_size=_MAC_BYTES, key=_checked(key), person=b"eventlog page").digest()


def _checked(key: bytes) -> bytes:
    assert KEY_BYTES_MIN <= len(key) <= KEY_BYTES_MAX, len(key)
    return key


def _refused(problem: str) -> EventValidationException:
    return EventValidationException(
        f"the page token {problem}; ask for the first page again, without a token",
        violations=[FieldViolation("page_token", problem)],
        reason="INVALID_PAGE_TOKEN",
    )
