"""Other chains that have to do with one: of the same session, or naming each other in their payloads."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis_service.columns import MISSING, EventColumns, Labels, Mask

LINK_FIELDS = ("payload.caused_by", "payload.parent_correlation_id", "payload.pipeline_run")
RELATED_MAX = 100


@dataclass(frozen=True, slots=True)
class RelatedChain:
    """A chain that is related. why: "same session", "caused by" (it comes before) or "causes" (it comes after)."""

    correlation_id: str
    why: str
    events: int


def related_chains(
    events: EventColumns, correlation_id: str, *, link_fields: Sequence[str] = LINK_FIELDS
) -> list[RelatedChain]:
    """Chains related to one, causes first, then by number of events; at most RELATED_MAX.

    `events` must hold the chain itself and whatever may be related to it. A link that the chain's own events name is
    what caused it where the field says so, else what it causes.
    """
    chains = events.labels("correlation_id")
    mine = _equal(chains, {correlation_id})
    reasons: dict[str, str] = {}
    for field in link_fields:
        if not events.has(field):
            continue
        links = events.labels(field)
        upwards = field.endswith(("caused_by", "parent_correlation_id"))
        named = {links.values[code] for code in np.unique(links.codes[mine]) if code != MISSING}
        naming = _values_of(chains, _equal(links, {correlation_id}))
        for other in sorted(named):
            reasons.setdefault(other, "caused by" if upwards else "causes")
        for other in sorted(naming):
            reasons.setdefault(other, "causes" if upwards else "caused by")
    if events.has("metadata.session_id"):
        sessions = events.labels("metadata.session_id")
        for other in sorted(_values_of(chains, _equal(sessions, _values_of(sessions, mine)))):
            reasons.setdefault(other, "same session")
    reasons.pop(correlation_id, None)
    sizes = dict(
        zip(chains.values, np.bincount(chains.codes[chains.codes >= 0], minlength=len(chains.values)), strict=True)
    )
    found = [RelatedChain(other, why, int(sizes.get(other, 0))) for other, why in reasons.items()]
    order = ("caused by", "causes", "same session")
    return sorted(found, key=lambda chain: (order.index(chain.why), -chain.events, chain.correlation_id))[:RELATED_MAX]


def _equal(labels: Labels, texts: set[str]) -> Mask:
    codes = [code for code, text in enumerate(labels.values) if text in texts]
    mask: Mask = np.isin(labels.codes, codes)
    return mask


def _values_of(labels: Labels, rows: Mask) -> set[str]:
    return {labels.values[code] for code in np.unique(labels.codes[rows]) if code != MISSING}
