"""A cache that forgets what was used longest ago. Invariant: what it holds weighs no more than its maximum."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class BoundedCache(Generic[K, V]):
    """Values by key, at most weight_max in all; `weigh` is 1 for each unless said otherwise.

    A value that is heavier than the maximum is not kept. Several threads may use it. `hits` and `misses` count
    the calls of get.
    """

    def __init__(self, weight_max: int, weigh: Callable[[V], int] = lambda _: 1) -> None:
        self._weight_max = weight_max
        self._weigh = weigh
        self._lock = threading.Lock()
        self._values: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self.weight = 0
        self.hits = 0
        self.misses = 0

    def get(self, key: K) -> V | None:
        """Return a value, None where it is not kept."""
        with self._lock:
            known = self._values.get(key)
            if known is None:
                self.misses += 1
                return None
            self.hits += 1
            self._values.move_to_end(key)
            return known[0]

    def put(self, key: K, value: V) -> None:
        """Keep a value in the place of the one before."""
        weight = self._weigh(value)
        with self._lock:
            self._remove(key)
            if weight > self._weight_max:
                return
            self._values[key] = (value, weight)
            self.weight += weight
            while self.weight > self._weight_max:
                self._remove(next(iter(self._values)))

    def keep_only(self, wanted: Callable[[K], bool]) -> None:
        """Forget the values of all keys that are not wanted."""
        with self._lock:
            for key in [key for key in self._values if not wanted(key)]:
                self._remove(key)

    def _remove(self, key: K) -> None:
        known = self._values.pop(key, None)
        if known is not None:
            self.weight -= known[1]
