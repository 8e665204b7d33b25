"""What is asked of the log: which events, up to which position. Pure."""

import enum
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

from query_service.block_pruning import block_filter
from shared.filters.bounds import Bounds
from shared.filters.bounds_extraction import extract_bounds
from shared.filters.tree import Field, In, Tree, leaves
from shared.log.json_path import JsonPath
from shared.log.tail_columns import TailBlock
from shared.log.types import Position

# From so many on DuckDB 2.0 makes a join of IN; fewer it compares one by one.
_JOINED_VALUES = 5


class Order(enum.Enum):
    """The order of an answer."""

    POSITION_ASCENDING = "position"
    POSITION_DESCENDING = "-position"
    TIMESTAMP_ASCENDING = "timestamp"
    TIMESTAMP_DESCENDING = "-timestamp"

    @property
    def descends(self) -> bool:
        """Whether what is newest comes first."""
        return self in {Order.POSITION_DESCENDING, Order.TIMESTAMP_DESCENDING}


@dataclass(frozen=True)
class Question:
    """The events that a filter holds for, at positions of [first, until), all of them committed.

    `tree` has no now(): that is resolved when the question is asked. `first` is None for the first position kept.
    """

    log_id: str
    tree: Tree
    first: Position | None
    until: Position

    @cached_property
    def bounds(self) -> Bounds:
        """What the filter says of all events that it holds for."""
        return extract_bounds(self.tree, self.log_id)

    @cached_property
    def payload_paths(self) -> tuple[JsonPath, ...]:
        """The paths of the payload that the filter compares, those into arrays aside."""
        return paths_of_keys(leaf.field for leaf in leaves(self.tree))

    @cached_property
    def loses_order(self) -> bool:
        """Whether DuckDB may find what matches in another order than it is stored: it joins long lists of values."""
        return any(isinstance(leaf, In) and len(leaf.values) >= _JOINED_VALUES for leaf in leaves(self.tree))

    @cached_property
    def may_hold(self) -> Callable[[TailBlock], bool]:
        """Tells of a block of unsealed events whether the filter can hold for any of them."""
        return block_filter(self.bounds)


def paths_of_keys(fields: Iterable[Field]) -> tuple[JsonPath, ...]:
    """The paths of the payload among some fields, those into arrays aside, each once."""
    paths = (field.path for field in fields if field.path and all(isinstance(key, str) for key in field.path))
    return tuple(dict.fromkeys(tuple(map(str, path)) for path in paths))
