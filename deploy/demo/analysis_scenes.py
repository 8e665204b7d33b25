"""What the demo asks the analysis service about: the real events, or the simulated ones; and what is known of them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class About:
    """Some events, in words and as a filter."""

    title: str
    filter: str


@dataclass(frozen=True, slots=True)
class Scene:
    """What to ask, and what is known.

    rhythm: events that have a rhythm of the day. durations, anomalies: events that have them. cases: chains with a
    history to learn from. running: types of the first events of one of them. chains: chains that take time. entity:
    correlation id whose events are folded; empty for the worst chain. known_patterns: of the cases, steps from type to
    type, how often they occur, and how often the most frequent variant does. unusual_types: what the ten strongest
    incidents must name.
    """

    rhythm: About
    durations: About
    cases: About
    running: tuple[str, ...]
    anomalies: About
    chains: About
    entity: str = ""
    known_patterns: tuple[int, int, int] | None = None
    unusual_types: tuple[str, ...] = ()


_TICKETS = About("help-desk tickets", "type LIKE 'case.*' AND source = 'process'")
_SHOP = About("traces of the shop", "type LIKE 'span.*'")
_WINDOWS = "type LIKE 'security.*' OR type LIKE 'microsoft_windows_*' OR type LIKE 'system.*'"
_PIPELINES = About("pipeline runs", "type LIKE 'pipeline.*' OR type LIKE 'process.*'")

REAL = Scene(
    rhythm=_TICKETS,
    durations=_SHOP,
    cases=_TICKETS,
    running=("case.assign_seriousness", "case.take_in_charge_ticket"),
    anomalies=About("intrusions into Windows hosts", f"({_WINDOWS}) AND NOT type LIKE 'span.*'"),
    chains=_SHOP,
    entity="Case 3608",
    known_patterns=(55, 16_768, 2_366),
    unusual_types=("microsoft_windows_sysmon_operational.8", "security.4648", "security.4625", "system.104"),
)

SIMULATED = Scene(
    rhythm=About("tool calls in two regions", "type = 'hook.tool.before'"),
    durations=About("the platform", "EXISTS payload.duration_ms"),
    cases=_PIPELINES,
    running=("pipeline.started", "pipeline.stage.started"),
    anomalies=About("the platform", ""),
    chains=_PIPELINES,
)
