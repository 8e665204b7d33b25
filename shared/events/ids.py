"""Event ids: `evt_`, 8 characters that name the log, 13 characters that encode the position. Pure.

    evt_ 7Q2M4XKD 0000000000001
         log id   position in Crockford's base 32, padded with zeros

Invariants:
- One position of one log has exactly one id, and parse_event_id gives both back. There is no other spelling:
  lower-case letters and Crockford's I, L, O are refused, so equal ids are equal texts.
- Ids of one log sort like their positions.
"""

import secrets

from shared.errors import EventValidationException, FieldViolation

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
PREFIX = "evt_"
LOG_ID_CHARACTERS = 8
POSITION_CHARACTERS = 13
ID_CHARACTERS = len(PREFIX) + LOG_ID_CHARACTERS + POSITION_CHARACTERS

POSITION_MAX = 2**64 - 1

_VALUES = {character: value for value, character in enumerate(ALPHABET)}


def format_event_id(log_id: str, position: int) -> str:
    """Id of the event at a position, 1 to 2**64 - 1, of the log named log_id."""
    assert is_log_id(log_id), log_id
    assert 1 <= position <= POSITION_MAX, position
    return f"{PREFIX}{log_id}{_encode(position)}"


def parse_event_id(text: str) -> tuple[str, int]:
    """Log id and position of an event id. Raises EventValidationException where it is not exactly one."""
    log_id, digits = text[len(PREFIX) : -POSITION_CHARACTERS], text[-POSITION_CHARACTERS:]
    if len(text) != ID_CHARACTERS or not text.startswith(PREFIX) or not is_log_id(log_id):
        raise _refusal(text)
    position = 0
    for character in digits:
        value = _VALUES.get(character)
        if value is None:
            raise _refusal(text)
        position = position << 5 | value
    if not 1 <= position <= POSITION_MAX:
        raise _refusal(text)
    return log_id, position


def following_event_ids(first_event_id: str, count: int) -> list[str]:
    """Ids of `count` consecutive positions of one log, of which first_event_id is the first.

    Raises EventValidationException where it is no event id, or the last position would exceed 64 bits.
    """
    log_id, first = parse_event_id(first_event_id)
    if first + count - 1 > POSITION_MAX:
        raise _refusal(first_event_id)
    stem = PREFIX + log_id
    return [stem + _encode(position) for position in range(first, first + count)]


def new_log_id() -> str:
    """A random log id: 40 bits."""
    return "".join(secrets.choice(ALPHABET) for _ in range(LOG_ID_CHARACTERS))


def is_log_id(text: str) -> bool:
    """Whether it is 8 characters of the alphabet."""
    return len(text) == LOG_ID_CHARACTERS and all(character in _VALUES for character in text)


def _encode(position: int) -> str:
    return "".join([ALPHABET[position >> shift & 31] for shift in range(60, -1, -5)])


def _refusal(text: str) -> EventValidationException:
    problem = (
        f"is {text[:60]!r}, which is no event id; write {PREFIX} and {ID_CHARACTERS - len(PREFIX)} characters "
        f"of {ALPHABET}, as the log gave it"
    )
    return EventValidationException(f"id {problem}", violations=[FieldViolation("id", problem)])
