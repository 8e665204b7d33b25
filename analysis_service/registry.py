"""The analyses by name, with their parameters: the built-in ones and those that packages add.

A package adds an analysis by an entry point in the group `eventlog.analyses` that names an `Analysis`:

    [project.entry-points."eventlog.analyses"]
    night_shift = "my_package.night_shift:ANALYSIS"

Invariant: a name means one analysis; a package cannot replace a built-in one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from analysis_service.anomalies.detect import Options, detect
from analysis_service.anomalies.incident import Incident
from analysis_service.columns import EventColumns
from analysis_service.patterns.bursts import bursts
from analysis_service.patterns.co_occurrence import co_occurrences
from analysis_service.patterns.flows import directly_follows, variants
from analysis_service.patterns.gapped import LENGTH_MAX, STEPS_DEFAULT, gapped_sequences
from analysis_service.patterns.pattern import Pattern, PatternRequest
from analysis_service.patterns.periodic import periodic
from analysis_service.patterns.sequences import sequences
from analysis_service.patterns.subsequences import STEPS_MAX
from shared.errors import EventAnalysisException, invalid_field
from shared.suggestion import did_you_mean

ENTRY_POINTS = "eventlog.analyses"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A number that an analysis takes: [minimum, maximum]. whole: whether it must be an integer. unit: "" for none."""

    name: str
    default: float
    minimum: float
    maximum: float
    description: str
    unit: str = ""
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Analysis:
    """An analysis that can be asked for by name.

    Exactly one of find_patterns and find_incidents is set: the first makes it a part of AnalyzePatterns, the second
    of DetectAnomalies; several analyses may share a function, which is told in `Options.kinds` which are asked for.
    fields: what events must be scanned with besides position, timestamp, type and source.
    """

    name: str
    description: str
    fields: tuple[str, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    find_patterns: Callable[[PatternRequest], list[Pattern]] | None = None
    find_incidents: Callable[[EventColumns, Options], list[Incident]] | None = None

    @property
    def family(self) -> str:
        """Either "pattern" or "anomaly"."""
        return "anomaly" if self.find_patterns is None else "pattern"


def analyses() -> dict[str, Analysis]:
    """All analyses by name, built-in ones first.

    Raises EventAnalysisException where a package names one that is there already, or what is no analysis.
    """
    found = {each.name: each for each in _BUILT_IN}
    for point in entry_points(group=ENTRY_POINTS):
        added = point.load()
        if not isinstance(added, Analysis):
            raise EventAnalysisException(f"the entry point {point.name} of {ENTRY_POINTS} names no Analysis: {added!r}")
        if added.name in found:
            raise EventAnalysisException(f"the entry point {point.name} adds {added.name}, which is there already")
        found[added.name] = added
    return found


def chosen(names: tuple[str, ...], family: str) -> list[Analysis]:
    """The analyses of a family by name; all of it where no name is given.

    Raises EventAnalysisException (ANALYSIS_NOT_FOUND) with the nearest name.
    """
    known = {name: each for name, each in analyses().items() if each.family == family}
    for name in names:
        if name not in known:
            raise EventAnalysisException(
                f"there is no {family} analysis {name!r}{did_you_mean(name, known)}",
                reason="ANALYSIS_NOT_FOUND",
                name=name,
            )
    return [known[name] for name in dict.fromkeys(names)] or list(known.values())


def checked_parameters(analysis: Analysis, given: Mapping[str, float]) -> dict[str, Any]:
    """The parameters of an analysis, defaults filled in; those of other analyses are left out.

    Raises EventValidationException (INVALID_FIELD) for one out of its range.
    """
    values: dict[str, Any] = {}
    for parameter in analysis.parameters:
        value = given.get(parameter.name, parameter.default)
        whole = not parameter.whole or value == int(value)
        if not parameter.minimum <= value <= parameter.maximum or not whole:
            kind = "a whole number" if parameter.whole else "a number"
            problem = f"is {value:g}; write {kind} from {parameter.minimum:g} to {parameter.maximum:g}"
            raise invalid_field(f"parameters[{parameter.name}]", problem)
        values[parameter.name] = int(value) if parameter.whole else value
    return values


def refuse_unknown(given: Mapping[str, float], asked: list[Analysis]) -> None:
    """Raise EventValidationException (INVALID_FIELD) for a parameter that none of the analyses takes."""
    known = [parameter.name for analysis in asked for parameter in analysis.parameters]
    for name in given:
        if name not in known:
            raise invalid_field(f"parameters[{name}]", f"is not known{did_you_mean(name, known)}")


_MAX_SPAN = Parameter(
    "maxspan", 0.0, 0.0, 86_400.0 * 366, "Longest time from the first to the last event; 0 for any.", unit="s"
)
_MAX_LENGTH = Parameter("max_length", 10, 2, LENGTH_MAX, "Most types in a sequence.", whole=True)
_MAX_STEPS = Parameter(
    "max_steps", STEPS_DEFAULT, 1, STEPS_MAX, "Most steps of the search; what is cut off is the rarest.", whole=True
)

_BUILT_IN = (
    Analysis(
        "sequence",
        "Types that come right after one another in cases, closed ones only.",
        parameters=(Parameter("max_length", 6, 2, 10, "Most types in a sequence.", whole=True), _MAX_SPAN),
        find_patterns=sequences,
    ),
    Analysis(
        "gapped_sequence",
        "Types that come in this order in cases with anything in between, closed ones only.",
        parameters=(_MAX_LENGTH, _MAX_SPAN, _MAX_STEPS),
        find_patterns=gapped_sequences,
    ),
    Analysis("directly_follows", "Which type comes right after which in cases.", find_patterns=directly_follows),
    Analysis("variant", "Whole sequences of cases.", find_patterns=variants),
    Analysis(
        "periodic",
        "Events that come at regular intervals, and types whose rate has a rhythm.",
        fields=("metadata.host",),
        find_patterns=periodic,
    ),
    Analysis("burst", "Stretches in which a type comes much faster than usual.", find_patterns=bursts),
    Analysis("co_occurrence", "Types that occur in the same cases.", find_patterns=co_occurrences),
    Analysis("rate", "Events that come faster than ever before.", find_incidents=detect),
    Analysis(
        "value",
        "Numbers in payloads that are unlike those before.",
        fields=("payload.duration_ms",),
        find_incidents=detect,
    ),
    Analysis("new_type", "Event types that never occurred before.", find_incidents=detect),
    Analysis("rare_type", "Event types that hardly ever occur.", find_incidents=detect),
    Analysis(
        "missing",
        "Regular events that stop.",
        fields=("metadata.host",),
        find_incidents=detect,
    ),
    Analysis(
        "unusual_case",
        "Cases whose mix of types is unlike all before.",
        fields=("correlation_id",),
        find_incidents=detect,
    ),
)
