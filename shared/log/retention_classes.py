"""Which retention class an event belongs to, by its type.

Sealing writes one file for each class that occurs in a segment, so that retention removes whole files.

Invariants:
- Every type has exactly one class; a type that no pattern matches has the class `default`.
- The name of a class is safe in a file name: `[a-z0-9_-]{1,60}`.

It does not decide when a file has expired.
"""

import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pyarrow as pa

from shared.columns.arrow import StringArray

DEFAULT_CLASS = "default"
_NAME = re.compile(r"[a-z0-9_-]{1,60}\Z")
_SLUG_CHARACTERS_MAX = 40


@dataclass(frozen=True, slots=True)
class RetentionClass:
    """A class of events that are kept equally long: from `recorded_at` on, for `seconds`."""

    name: str
    pattern: str
    seconds: int


class RetentionClasses:
    """The retention classes of the configuration.

    `by_type` maps patterns to seconds. In a pattern `*` is any run of characters and `?` any one
    character; a pattern without them (`error`) matches that type and all types below it (`error.disk`).
    Where several patterns match, the most specific one decides: the one equal to the type, then the
    longest, then the first in alphabetical order.
    """

    def __init__(self, *, default_seconds: int, by_type: Mapping[str, int]) -> None:
        self.default = RetentionClass(DEFAULT_CLASS, "*", default_seconds)
        self._by_pattern = {
            pattern: RetentionClass(_class_name(pattern), pattern, seconds) for pattern, seconds in by_type.items()
        }
        longest_first = sorted(by_type, key=lambda pattern: (-len(pattern), pattern))
        self._matchers = [(_matcher(pattern), self._by_pattern[pattern]) for pattern in longest_first]

    def of_type(self, event_type: str) -> RetentionClass:
        """Return the class of one event type."""
        exact = self._by_pattern.get(event_type)
        if exact is not None:
            return exact
        for matches, retention_class in self._matchers:
            if matches(event_type):
                return retention_class
        return self.default

    def classify(self, types: StringArray) -> StringArray:
        """Return the name of the class of each type: one string for each of the strings `types`, chunked or not.

        Each distinct type is looked at once, however many events have it.
        """
        array = types.combine_chunks() if isinstance(types, pa.ChunkedArray) else types
        encoded = array.dictionary_encode()
        assert isinstance(encoded, pa.DictionaryArray)
        names = [self.of_type(str(event_type)).name for event_type in encoded.dictionary.to_pylist()]
        return pa.array(names, pa.string()).take(encoded.indices)

    def named(self, name: str) -> RetentionClass:
        """Return the class with this name. Raises KeyError if there is none."""
        for retention_class in (self.default, *self._by_pattern.values()):
            if retention_class.name == name:
                return retention_class
        raise KeyError(name)


def _matcher(pattern: str) -> Callable[[str], object]:
    """Compile a pattern to a function that is true for the types it matches."""
    if "*" not in pattern and "?" not in pattern:
        below = f"{pattern}."
        return lambda event_type: event_type == pattern or event_type.startswith(below)
    pieces = {"*": r"[\s\S]*", "?": r"[\s\S]"}
    # A run of stars means what one means, and would make the regular expression slow.
    text = re.sub(r"\*+", "*", pattern)
    return re.compile("".join(pieces.get(c, re.escape(c)) for c in text) + r"\Z").match


def _class_name(pattern: str) -> str:
    """Return the pattern itself where it is a safe name, else what is left of it and a short checksum."""
    if pattern != DEFAULT_CLASS and _NAME.match(pattern):
        return pattern
    slug = re.sub(r"[^a-z0-9_-]+", "_", pattern.lower()).strip("_")[:_SLUG_CHARACTERS_MAX]
    checksum = f"{zlib.crc32(pattern.encode('utf-8', 'surrogatepass')):08x}"
    return f"{slug}-{checksum}" if slug else checksum
