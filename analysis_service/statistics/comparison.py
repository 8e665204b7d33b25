"""Statistics of one range against those of another: this hour against the same hour last week.

What changed comes first: groups are ordered by how surprising the change of their rate is.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from analysis_service.statistics.collector import GroupStatistics


@dataclass(frozen=True, slots=True)
class GroupChange:
    """One group in two ranges. A side is None where the group did not occur there.

    rate_ratio: events a minute now against then; infinite where there were none then. error_rate_change: difference
    of the shares that failed. percentile_ratios: by percentile, of the durations. surprise: how many standard
    deviations the number of events is from what the other range lets expect, signed; beyond ±4 it is hardly chance.
    """

    key: tuple[str | None, ...]
    now: GroupStatistics | None
    then: GroupStatistics | None
    rate_ratio: float
    error_rate_change: float
    percentile_ratios: Mapping[float, float]
    surprise: float


def compare(
    now: Iterable[GroupStatistics],
    then: Iterable[GroupStatistics],
    *,
    now_minutes: float,
    then_minutes: float,
    percentiles: Iterable[float] = (50, 95, 99),
) -> list[GroupChange]:
    """Compare groups of the same fields, most surprising first. Both ranges must last."""
    wanted = tuple(percentiles)
    here, there = ({group.key: group for group in groups} for groups in (now, then))
    keys = dict.fromkeys([*here, *there])
    share = now_minutes / (now_minutes + then_minutes)
    changes = []
    for key in keys:
        mine, other = here.get(key), there.get(key)
        count, other_count = mine.count if mine else 0, other.count if other else 0
        rate, other_rate = count / now_minutes, other_count / then_minutes
        changes.append(
            GroupChange(
                key,
                mine,
                other,
                rate_ratio=rate / other_rate if other_rate else np.inf,
                error_rate_change=(mine.error_rate if mine else 0.0) - (other.error_rate if other else 0.0),
                percentile_ratios=_ratios(mine, other, wanted),
                surprise=_surprise(count, count + other_count, share),
            )
        )
    return sorted(changes, key=lambda change: -abs(change.surprise))


def _surprise(count: int, total: int, share: float) -> float:
    """Of `total` events a share is expected here; the binomial deviance says how odd `count` is."""
    deviance = 0.0
    for found, expected in ((count, total * share), (total - count, total * (1 - share))):
        deviance += 2 * found * np.log(found / expected) if found else 0.0
    return float(np.sign(count - total * share) * np.sqrt(max(0.0, deviance)))


def _ratios(
    mine: GroupStatistics | None, other: GroupStatistics | None, percentiles: tuple[float, ...]
) -> dict[float, float]:
    if mine is None or other is None:
        return {}
    here, there = mine.distribution.percentiles(percentiles), other.distribution.percentiles(percentiles)
    return {each: here[each] / there[each] for each in here if there.get(each)}
