"""Answers that were computed before, for as long as they are right.

An answer is kept for `ttl_s` and under what was asked. Whether it is still right is not known here: whoever asks
checks that nothing of what it is about came after the position that it took into account.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

ENTRIES_MAX = 256

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Kept(Generic[T]):
    """An answer, and the highest position that it took into account."""

    answer: T
    snapshot_position: int
    until_s: float


class AnswerCache(Generic[T]):
    """The last ENTRIES_MAX answers. ttl_s 0 keeps none."""

    def __init__(self, now_s: Callable[[], float], *, ttl_s: float) -> None:
        self._now_s = now_s
        self._ttl_s = ttl_s
        self._entries: OrderedDict[Hashable, Kept[T]] = OrderedDict()

    def get(self, key: Hashable) -> Kept[T] | None:
        """The answer, if it was kept and its time is not over."""
        kept = self._entries.get(key)
        if kept is None:
            return None
        if kept.until_s <= self._now_s():
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return kept

    def put(self, key: Hashable, answer: T, *, snapshot_position: int) -> None:
        """Keep an answer."""
        if self._ttl_s > 0:
            self._entries[key] = Kept(answer, snapshot_position, self._now_s() + self._ttl_s)
            self._entries.move_to_end(key)
            while len(self._entries) > ENTRIES_MAX:
                self._entries.popitem(last=False)

    def drop(self, key: Hashable) -> None:
        """Forget an answer that is not right any more."""
        self._entries.pop(key, None)
