"""Page tokens: opaque, bound to a query, of no use when changed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import EventValidationException
from shared.rpc.page_tokens import TOKEN_CHARS_MAX, decode_page_token, encode_page_token

KEY = b"k" * 32
STATES = st.dictionaries(st.text(max_size=20), st.integers(-(2**53), 2**53) | st.text(max_size=50), max_size=5)


def refusal(token: str, query: bytes = b"query", key: bytes = KEY) -> EventValidationException:
    """The error of a token that must not decode."""
    with pytest.raises(EventValidationException) as caught:
        decode_page_token(token, query, key=key)
    assert caught.value.reason == "INVALID_PAGE_TOKEN"
    assert caught.value.violations[0].field == "page_token"
    return caught.value


@given(query=st.binary(max_size=200), state=STATES, key=st.binary(min_size=16, max_size=64))
def test_state_round_trips(query, state, key):
    """A token gives back the state it was made of, in characters that need no escaping."""
    token = encode_page_token(query, state, key=key)
    assert decode_page_token(token, query, key=key) == state
    assert token.replace("-", "").replace("_", "").isalnum()


def test_other_query_is_refused():
    """A token of one query is refused with another, and the message says so."""
    token = encode_page_token(b"query", {"position": 5}, key=KEY)
    assert "another query" in str(refusal(token, b"query 2"))


def test_other_key_is_refused():
    """A token of another service's key is refused."""
    token = encode_page_token(b"query", {"position": 5}, key=KEY)
    refusal(token, key=b"other key, 16 bytes")


def test_every_changed_character_is_refused():
    """Changing, removing or adding any one character makes a token invalid."""
    token = encode_page_token(b"query", {"position": 5}, key=KEY)
    for index, old in enumerate(token):
        refusal(token[:index] + ("A" if old != "A" else "B") + token[index + 1 :])
        refusal(token[:index] + token[index + 1 :])
        refusal(token[:index] + "C" + token[index:])


@pytest.mark.parametrize("token", ["", "A", "====", "é", "a b", "\ud800", "A" * 60, "A" * (TOKEN_CHARS_MAX + 1)])
def test_anything_else_is_refused(token):
    """What was never a token is refused with the same reason, and the message says what to do."""
    assert "first page" in str(refusal(token))


@given(st.text(max_size=120))
def test_random_text_is_refused(token):
    """No text that we did not sign decodes."""
    refusal(token)
