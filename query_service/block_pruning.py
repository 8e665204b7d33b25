"""Which blocks of unsealed events a filter can hold for, by their timestamps and the texts that occur in them. Pure."""

from collections.abc import Callable, Collection, Iterator

from shared.filters.bounds import Bounds
from shared.log.tail_columns import TailBlock

# Values that are looked up one by one; with more, the events themselves are searched.
_LOOKUPS_MAX = 16

_Check = Callable[[TailBlock], bool]


def block_filter(bounds: Bounds) -> _Check:
    """Return a function that is False only for blocks without an event that the bounds allow."""
    checks = list(_checks(bounds))
    return lambda block: all(check(block) for check in checks)


def _checks(bounds: Bounds) -> Iterator[_Check]:
    yield lambda block: bounds.timestamp.overlaps(block.timestamps.first_ns, block.timestamps.last_ns)
    for name, texts in (("type", bounds.types), ("source", bounds.sources)):
        if texts is not None:
            yield _any_text(name, texts.__contains__)
    equalities = (
        ("correlation_id", bounds.correlation_ids),
        ("session_id", bounds.session_ids),
        ("user", bounds.users),
    )
    for name, values in equalities:
        if values is not None and len(values) <= _LOOKUPS_MAX:
            yield _any_value(name, values)


def _any_text(name: str, wanted: Callable[[str], bool]) -> _Check:
    def check(block: TailBlock) -> bool:
        texts = block.texts(name)
        return texts is None or len(texts) > _LOOKUPS_MAX * _LOOKUPS_MAX or any(map(wanted, texts.to_pylist()))

    return check


def _any_value(name: str, values: Collection[str]) -> _Check:
    return lambda block: any(block.may_hold(name, value) for value in values)
