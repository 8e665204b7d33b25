"""Samples of groups: whole ones, chosen by their keys alone, within the bound."""

import itertools
from collections import Counter

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from analysis_service.columns import EventColumns
from analysis_service.group_sample import GroupSample

_KEYS = st.lists(st.none() | st.integers(0, 30).map(lambda number: f"case {number}"), max_size=120)


def _events(keys: list[str | None], first: int = 1) -> EventColumns:
    positions = pa.array(range(first, first + len(keys)), pa.uint64())
    return EventColumns(pa.table({"position": positions, "key": pa.array(keys, pa.string())}))


def _sample(keys: list[str | None], cuts: list[int], events_max: int) -> GroupSample:
    sample = GroupSample("key", events_max=events_max)
    borders = [0, *sorted(min(cut, len(keys)) for cut in cuts), len(keys)]
    for start, end in itertools.pairwise(borders):
        sample.add(_events(keys[start:end], start + 1))
    return sample


def _kept(sample: GroupSample) -> list[tuple[int, str | None]]:
    return [
        (position, text)
        for each in sample.kept
        for position, text in zip(each.positions.tolist(), each.table.column("key").to_pylist(), strict=True)
    ]


@given(_KEYS, st.lists(st.integers(0, 120), max_size=5), st.integers(1, 60))
def test_groups_are_whole_or_absent_and_within_the_bound(
    keys: list[str | None], cuts: list[int], events_max: int
) -> None:
    """However the events are cut into batches; a single group may be larger than the bound."""
    sample = _sample(keys, cuts, events_max)
    kept = _kept(sample)
    assert len(kept) == sample.events
    of_all, of_kept = Counter(keys), Counter(text for _, text in kept)
    assert all(of_kept[text] == of_all[text] for text in of_kept if text is not None)
    assert [position for position, _ in kept] == sorted(position for position, _ in kept)
    groups = len([text for text in of_kept if text is not None]) + of_kept[None]
    assert sample.events <= events_max or groups <= 1
    if len(keys) <= events_max:
        assert (sample.one_in, len(kept)) == (1, len(keys))


@given(_KEYS, st.integers(1, 60), st.randoms())
def test_the_choice_does_not_depend_on_the_order(keys: list[str | None], events_max: int, random: object) -> None:
    """The same groups are kept whichever comes first, where none lacks its key."""
    named = [key for key in keys if key is not None]
    shuffled = list(named)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    first, second = (_sample(each, [7, 40], events_max) for each in (named, shuffled))
    assert Counter(text for _, text in _kept(first)) == Counter(text for _, text in _kept(second))
    assert first.one_in == second.one_in


def test_the_share_is_about_what_is_said() -> None:
    """Of forty thousand groups of one event, at most ten thousand are kept: one in four or in eight."""
    keys: list[str | None] = [f"order-{number:06d}" for number in range(40_000)]
    sample = _sample(keys, [10_000, 20_000, 30_000], 11_000)
    assert sample.one_in == 4
    assert 9_500 <= sample.events <= 10_500
    alone = _sample([None] * 40_000, [], 11_000)
    assert alone.one_in == 4
    assert 9_500 <= alone.events <= 10_500
