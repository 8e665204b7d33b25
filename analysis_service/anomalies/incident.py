"""An incident: one stretch of time in which something was not as usual, however many alarms it raised.

Every detector measures strength in the same unit: 1 is what the default sensitivity just reports. Sensitivity, 0 (few
incidents) to 1 (many), sets from which strength on incidents count: a falling straight line through 1 at the default.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

DEFAULT_SENSITIVITY = 0.95
EVENTS_NAMED_MAX = 20
_STRENGTH_RANGE = 2.0
# What begins shortly before or after a faster rate belongs to it too.
_EXPLAINED_NS_MAX = 300_000_000_000
_SEVERITIES = ((3.0, "critical"), (1.7, "major"))


def strength_needed(sensitivity: float) -> float:
    """Strength from which on incidents count, from 2.9 at 0 down to 0.9 at 1."""
    return 1 + _STRENGTH_RANGE * (DEFAULT_SENSITIVITY - sensitivity)


@dataclass(frozen=True, slots=True)
class Incident:
    """One incident.

    kind: of the detector. strength: see the module. types, sources: what it shows in, the strongest first.
    start_ns, end_ns: [start, end). ongoing: whether it lasted until the end of what was looked at. expected_low,
    expected_high, actual: in the measure that the explanation names. positions: of contributing events, at most
    EVENTS_NAMED_MAX. expression: filter expression that finds its events.
    """

    kind: str
    strength: float
    types: tuple[str, ...]
    sources: tuple[str, ...]
    start_ns: int
    end_ns: int
    ongoing: bool
    expected_low: float
    expected_high: float
    actual: float
    explanation: str
    expression: str
    positions: tuple[int, ...] = ()

    @property
    def score(self) -> float:
        """Strength as a number from 0 to 1; 0.5 is what the default sensitivity just reports."""
        return self.strength / (1 + self.strength)

    @property
    def severity(self) -> str:
        """One of "minor", "major" and "critical"."""
        return next((name for least, name in _SEVERITIES if self.strength >= least), "minor")


def ranked(incidents: Iterable[Incident]) -> list[Incident]:
    """The strongest first; ties by start, then kind."""
    return sorted(incidents, key=lambda each: (-each.strength, each.start_ns, each.kind, each.types))


def explained(incidents: Iterable[Incident]) -> list[Incident]:
    """The incidents without those that a faster rate explains: what began while it lasted belongs to it.

    The rate's incident is as strong as the strongest of them, and says what else was unusual.
    """
    found = list(incidents)
    rates = [each for each in found if each.kind == "rate"]
    others = [each for each in found if each.kind != "rate"]
    kept = []
    belonging: dict[int, list[Incident]] = {}
    for each in others:
        home = next((number for number, rate in enumerate(rates) if _explains(rate, each)), None)
        if home is None:
            kept.append(each)
        else:
            belonging.setdefault(home, []).append(each)
    return kept + [_with_what_it_explains(rate, belonging.get(number, [])) for number, rate in enumerate(rates)]


def _explains(rate: Incident, other: Incident) -> bool:
    slack = min(rate.end_ns - rate.start_ns, _EXPLAINED_NS_MAX)
    return other.kind != "missing" and rate.start_ns - slack <= other.start_ns < rate.end_ns + slack


def _with_what_it_explains(rate: Incident, others: list[Incident]) -> Incident:
    if not others:
        return rate
    strongest = max(others, key=lambda each: each.strength)
    more = f", and {len(others) - 1} other things" if len(others) > 1 else ""
    return replace(
        rate,
        strength=max(rate.strength, strongest.strength),
        explanation=f"{rate.explanation}; meanwhile {strongest.explanation}{more}",
    )


def with_positions(incident: Incident, positions: Iterable[int]) -> Incident:
    """The incident with contributing events."""
    return replace(incident, positions=tuple(positions)[:EVENTS_NAMED_MAX])
