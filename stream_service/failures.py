"""Events that consumers of a durable subscription failed at."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Parked:
    """An event that failed too often: how often, what the last failure said, and when."""

    failures: int
    failure: str
    parked_ns: int


@dataclass(frozen=True, slots=True)
class Failure:
    """Positions that a consumer failed at, what it said, and when."""

    positions: Sequence[int]
    text: str
    now_ns: int
