"""How the client of the analysis service behaves."""

from dataclasses import dataclass, field
from enum import Enum

from shared.client.back_off import BackOff


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalyzerOptions:
    """Everything has a default. Times are seconds.

    address: of the analysis service, by default analysis.listen of the configuration. call_timeout_s: longest that an
    analysis takes; what is not done by then is left out. give_up_after_s: how long a call that fails for now is tried.
    """

    address: str | None = None
    call_timeout_s: float = 60.0
    give_up_after_s: float = 60.0
    back_off: BackOff = field(default_factory=BackOff)


@dataclass(frozen=True, slots=True)
class StatisticsMeasures:
    """What statistics measure beside counts.

    duration_field: payload path of durations in milliseconds. value_fields: at most 16 fields whose distinct and most
    frequent values are counted. top_values: how many of these are told, 1 to 1,000.
    """

    duration_field: str = "payload.duration_ms"
    value_fields: tuple[str, ...] = ()
    top_values: int = 10


@dataclass(frozen=True, slots=True)
class ChainFields:
    """Fields that say how the events of a chain belong together; empty ones are the service's own choice.

    span_id, parent_id: of an event and of its cause. start, end: when what it tells of began and ended. duration: how
    long that took, in milliseconds.
    """

    span_id: str = ""
    parent_id: str = ""
    start: str = ""
    end: str = ""
    duration: str = ""


class ChainDrawing(Enum):
    """How a chain is drawn."""

    NONE = "none"
    TEXT = "text"  # a tree
    MERMAID = "mermaid"  # a flow chart of Mermaid
    GRAPHVIZ = "graphviz"  # a digraph of Graphviz


DEFAULT_MEASURES, DEFAULT_FIELDS = StatisticsMeasures(), ChainFields()
