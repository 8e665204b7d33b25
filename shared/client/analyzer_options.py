"""How the client of the analysis service behaves."""

from dataclasses import dataclass, field

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
