"""Asks the analysis service about the events that were logged, and prints what a person would want to know.

Answers that are known are compared: see analysis_scenes. What is printed is at most 110 columns wide.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from textwrap import wrap

from deploy.demo.analysis_scenes import About, Scene
from deploy.demo.producer import Acknowledged
from deploy.demo.questions import Question, expected_counts
from shared.client import AnalyzerOptions, Anomaly, ChainSpan, EventAnalyzer, EventChain
from shared.clock import SystemClock
from shared.config import EventConfig

_WIDTH = 110
_BAR_WIDTH = 48
_NAME_WIDTH, _TIME_WIDTH = 56, 30
_SPANS_SHOWN, _INCIDENTS_SHOWN, _CAUSES_SHOWN, _DIFFERENCES_SHOWN = 10, 5, 3, 3
_EVER = datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)


class AnalysisTour:
    """One analysis after the other."""

    def __init__(self, analysis_address: str, scene: Scene, acknowledged: Sequence[Acknowledged]) -> None:
        """acknowledged: everything that was logged."""
        self._address = analysis_address
        self._scene = scene
        self._acknowledged = acknowledged
        self._worst = ""
        self._problems: list[str] = []

    def run(self) -> list[str]:
        """Ask everything. Returns what was wrong, in words. Raises EventException where a call fails."""
        asyncio.run(self._run())
        return self._problems

    async def _run(self) -> None:
        async with EventAnalyzer(EventConfig(), AnalyzerOptions(address=self._address)) as analyzer:
            for show in (
                self._show_hours,
                self._show_groups,
                self._show_patterns,
                self._show_anomalies,
                self._show_chains,
                self._show_prediction,
                self._show_state,
            ):
                print()
                started = time.perf_counter()
                await show(analyzer)
                print(f"  ({time.perf_counter() - started:.1f} s)")

    async def _show_hours(self, analyzer: EventAnalyzer) -> None:
        about = self._scene.rhythm
        found = await analyzer.group_statistics(["type"], _EVER, filters=about.filter)
        hours: Counter[int] = Counter()
        for each in found:
            for start, events in each.time_distribution.items():
                hours[int(start[11:13])] += events
        print(f"{about.title}, by hour of the day (UTC):")
        most = max(hours.values(), default=1)
        busy = [hour for hour, events in hours.items() if events >= most / 100]
        for hour in range(min(busy, default=0), max(busy, default=-1) + 1):
            bar = "█" * round(hours[hour] / most * _BAR_WIDTH)
            print(f"  {hour:02}:00 {hours[hour]:>7,} {bar}".rstrip())
        question = Question(about.title, about.filter)
        (logged,) = expected_counts([question], self._acknowledged, SystemClock())
        self._check(f"the hours of {about.title} together", hours.total(), logged)

    async def _show_groups(self, analyzer: EventAnalyzer) -> None:
        about = self._scene.durations
        found = await analyzer.group_statistics(["type"], _EVER, percentiles=(50, 95, 99), filters=about.filter)
        slowest = sorted(
            (each for each in found if each.count >= 100 and each.percentiles), key=lambda each: -each.percentiles[95]
        )
        print(f"{about.title}, the slowest types of {len(found)} (milliseconds):")
        print(f"  {'type':<52}{'events':>9}{'errors':>9}{'median':>11}{'p95':>11}{'p99':>11}")
        for each in slowest[:6]:
            middle, late, latest = (each.percentiles[rank] for rank in (50, 95, 99))
            row = f"{each.event_type[:51]:<52}{each.count:>9,}{each.error_rate:>9.1%}"
            print(f"  {row}{middle:>11,.1f}{late:>11,.1f}{latest:>11,.1f}")
        self._check("types with durations", bool(slowest), expected=True)

    async def _show_patterns(self, analyzer: EventAnalyzer) -> None:
        about = self._scene.cases
        found = await analyzer.analyze_patterns(
            min_occurrence=1, time_range=_EVER, analyses=["directly_follows", "variant"], filters=about.filter
        )
        edges, variants = (
            [each for each in found if each.pattern_type == kind] for kind in ("directly_follows", "variant")
        )
        follows = sum(each.occurrences for each in edges)
        print(f"{about.title}: {len(edges)} steps from type to type, {follows:,} times; most often")
        for each in (*edges[:3], *variants[:2]):
            _print_wrapped(f"  {each.occurrences:>7,} times: {each.description}")
        known = self._scene.known_patterns
        if known:
            top = variants[0].occurrences if variants else 0
            self._check(f"steps, their number and the top variant of {about.title}", (len(edges), follows, top), known)

    async def _show_anomalies(self, analyzer: EventAnalyzer) -> None:
        about = self._scene.anomalies
        within = await _range_of(about, analyzer)
        found = await analyzer.detect_anomalies(time_range=within, filters=about.filter)
        print(f"{about.title}: {len(found)} incidents, the strongest first")
        for each in found[:_INCIDENTS_SHOWN]:
            print(f"  {each.start:%Y-%m-%d %H:%M} {each.severity:<9}{each.anomaly_type:<13}{each.score:.2f}")
            _print_wrapped(f"    {each.description}")
        self._check_incidents(found)

    def _check_incidents(self, found: Sequence[Anomaly]) -> None:
        named = {kind for each in found[:10] for kind in each.event_types}
        missing = [kind for kind in self._scene.unusual_types if kind not in named]
        if missing:
            self._problems.append(f"none of the ten strongest incidents names {', '.join(missing)}")

    async def _show_chains(self, analyzer: EventAnalyzer) -> None:
        about = self._scene.chains
        within = await _range_of(about, analyzer)
        causes = await analyzer.rank_causes(within, filters=about.filter)
        print(f"what explains errors and slowness among {about.title}:")
        for each in causes[:_CAUSES_SHOWN]:
            _print_wrapped(f"  {each.score:>6.1%} of {each.trouble}: {each.description}")
        self._worst = next((name for each in causes for name in each.examples), "")
        if not self._worst:
            self._problems.append(f"nothing is slow or fails among {about.title}")
            return
        chain = await analyzer.trace_event_chain(self._worst)
        print(f"\nthe worst of {about.title}, {chain.drawing.splitlines()[0]}")
        for line in _drawn(chain):
            print(line)
        self._check_chain(chain)
        compared = await analyzer.compare_chains(self._worst, within, filters=about.filter)
        print(f"  compared with {compared.references:,} others that begin with {compared.kind}:")
        for difference in compared.differences[:_DIFFERENCES_SHOWN]:
            _print_wrapped(f"    {difference.description}")

    def _check_chain(self, chain: EventChain) -> None:
        """The parts of the critical path sum to the duration, but for what no event accounts for."""
        path = sum((span.path_time for span in chain.spans), timedelta())
        self._check(f"spans of {self._worst}", len(chain.spans), len(chain.events))
        self._check(f"whether the critical path of {self._worst} fits", path <= chain.duration, expected=True)

    async def _show_prediction(self, analyzer: EventAnalyzer) -> None:
        types = self._scene.running
        found = await analyzer.predict_next(types, _EVER, filters=self._scene.cases.filter)
        _print_wrapped(f"after {' → '.join(types)}, seen {found.seen:,} times, comes")
        for kind, probability in islice(found.types, 4):
            print(f"  {probability:>6.1%}  {kind or 'nothing more'}")
        if found.remaining is not None:
            print(f"  half of such cases are over within {timedelta(seconds=round(found.remaining.total_seconds()))}")
        total = sum(probability for _, probability in found.types)
        if not 0.5 < total <= 1.000_001:
            self._problems.append(f"the probabilities after {types} sum to {total}")

    async def _show_state(self, analyzer: EventAnalyzer) -> None:
        chain = self._scene.entity or self._worst
        state = await analyzer.fold_state(f"correlation_id = '{chain}'")
        counted = await analyzer.fold_state(f"correlation_id = '{chain}'", reducer="counter")
        print(f"what {state.events} events have made of {chain}, up to position {state.position:,}:")
        for key, value in islice((state.state or {}).items(), 6):
            print(f"  {key:<24}{value}"[:_WIDTH])
        self._check(f"events of {chain} by type", sum((counted.state or {}).values()), state.events)

    def _check(self, what: str, found: object, expected: object) -> None:
        if found != expected:
            self._problems.append(f"{what}: the analysis says {found}, and {expected} is right")


async def _range_of(about: About, analyzer: EventAnalyzer) -> tuple[datetime, datetime]:
    """From the first of some events to just after the last."""
    groups = await analyzer.group_statistics(["type"], filters=about.filter)
    first = min(each.first for each in groups if each.first)
    return first, max(each.last for each in groups if each.last) + timedelta(seconds=1)


def _drawn(chain: EventChain) -> Iterator[str]:
    """The first spans of a chain as a tree, with what each took and when it ran."""
    begin, whole = min(span.start for span in chain.spans), max(chain.duration, timedelta(microseconds=1))
    for span in islice(_in_tree_order(chain), _SPANS_SHOWN):
        first = min(int((span.start - begin) / whole * _TIME_WIDTH), _TIME_WIDTH - 1)
        length = max(1, round(span.duration / whole * _TIME_WIDTH))
        name = f"{'  ' * span.depth}{span.event_type}"
        took_ms = span.duration / timedelta(milliseconds=1)
        bar = (" " * first + "█" * length)[:_TIME_WIDTH]
        mark = " FAILED" if span.failed else ""
        shown = name if len(name) <= _NAME_WIDTH else f"{name[: _NAME_WIDTH - 1]}…"
        yield f"{shown:<{_NAME_WIDTH}}{took_ms:>10,.1f} ms  {bar:<{_TIME_WIDTH}}{mark}".rstrip()
    if len(chain.spans) > _SPANS_SHOWN:
        yield f"  … and {len(chain.spans) - _SPANS_SHOWN} more events"


def _in_tree_order(chain: EventChain, parent: int | None = None) -> Iterator[ChainSpan]:
    """The spans below a span, or all: each before what it caused."""
    for number, span in enumerate(chain.spans):
        if span.parent == parent:
            yield span
            yield from _in_tree_order(chain, number)


def _print_wrapped(text: str) -> None:
    """Print on two lines at most."""
    indent = " " * (len(text) - len(text.lstrip()))
    for line in wrap(text, _WIDTH, subsequent_indent=f"{indent}  ", max_lines=2, placeholder=" …"):
        print(line)
