"""Asks questions of the events that were logged, and exports them; compares every answer. Prints what it does."""

import csv
import io
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self, cast

import pyarrow.parquet as pq
import zstandard

from deploy.demo.producer import Acknowledged
from deploy.demo.progress import ProgressBar
from deploy.demo.questions import Question, expected_counts
from shared.client import EventOrder, EventQuery, ExportProgress, QueryOptions
from shared.clock import SystemClock
from shared.config import EventConfig

_PAGE_EVENTS = 1_000
_SHOWN_SEGMENTS = 4
_NEWEST = 3
_MB = 1_000_000
# Payloads are longer than csv expects.
_CSV_CELL_CHARACTERS = 8 * 1024 * 1024


class QueryTour:
    """One after the other: counts, pages, an explanation, exports. Use as a context."""

    def __init__(self, query_address: str) -> None:
        self._query = EventQuery(EventConfig(), QueryOptions(address=query_address))
        self._problems: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._query.close()

    def run(self, questions: Sequence[Question], acknowledged: Sequence[Acknowledged]) -> list[str]:
        """Ask and export everything. Returns what was wrong, in words. Raises EventException where a call fails."""
        counts = self._count(questions, acknowledged)
        largest = max(range(len(counts)), key=counts.__getitem__)
        self._page(questions[largest], counts[largest])
        self._explain(questions[0])
        self._show_newest()
        self._export(questions[largest], counts[largest], sum(len(each.request.events) for each in acknowledged))
        return self._problems

    def _count(self, questions: Sequence[Question], acknowledged: Sequence[Acknowledged]) -> list[int]:
        print("questions to the log, as filters:")
        counts = []
        for question in questions:
            started = time.perf_counter()
            counts.append(self._query.count(question.expression))
            took_ms = (time.perf_counter() - started) * 1000
            print(f"  {counts[-1]:>7,} in {took_ms:>6.1f} ms  {question.text}\n{'':>20}{question.expression}")
        expected = expected_counts(questions, acknowledged, SystemClock())
        wrong = [
            f"{count} events match {question.expression}, and {right} that were logged do"
            for question, count, right in zip(questions, counts, expected, strict=True)
            if count != right
        ]
        verdict = f"{len(wrong)} DIFFER" if wrong else "all counts equal"
        print(f"  the same filters over what was logged, evaluated in Python: {verdict}")
        self._problems += wrong
        return counts

    def _page(self, question: Question, count: int) -> None:
        started = time.perf_counter()
        pages = events = 0
        token = ""
        while token or not pages:
            page = self._query.page(question.expression, _PAGE_EVENTS, token)
            pages, events, token = pages + 1, events + len(page.events), page.next_page_token
        took_s = time.perf_counter() - started
        plural = "" if pages == 1 else "s"
        print(f"\n{question.text}, page by page: {events:,} events on {pages} page{plural} in {took_s:.1f} s")
        if events != count:
            self._problems.append(f"the pages of {question.expression} hold {events} events of {count}")

    def _explain(self, question: Question) -> None:
        explanation = self._query.explain(question.expression)
        read = [segment for segment in explanation.segments if segment.read]
        print(f"\nhow {question.text!r} is answered:")
        for line in explanation.tree.splitlines():
            print(f"  {line}")
        print(f"  {len(read)} of {len(explanation.segments)} segments are read:")
        for segment in explanation.segments[:_SHOWN_SEGMENTS]:
            verdict = "read" if segment.read else "left out"
            print(f"    {segment.first_position:>9,} to {segment.last_position:>9,}: {verdict}, {segment.why}")

    def _show_newest(self) -> None:
        print("\nthe newest events, by the time at which they happened:")
        for event in self._query.events(limit=_NEWEST, order=EventOrder.TIMESTAMP_DESCENDING):
            print(f"  {event.timestamp:%Y-%m-%d %H:%M:%S}  {event.type:<34}{event.source}")

    def _export(self, question: Question, count: int, events: int) -> None:
        print("\nexports:")
        print(f"  {'file':<24}{'events':>10}{'seconds':>9}{'events/s':>12}{'MB':>9}  {'read back'}")
        with TemporaryDirectory(prefix="eventlog-export-") as name:
            folder = Path(name)
            self._export_one(folder / "events.jsonl", "json", "", events, _json_lines)
            self._export_one(folder / "events.jsonl.zst", "json", "", events, _packed_lines)
            self._export_one(folder / "events.parquet", "parquet", "", events, _parquet_rows)
            self._export_one(folder / "found.csv", "csv", question.expression, count, _csv_rows)

    def _export_one(
        self, path: Path, form: str, expression: str, events: int, read_back: Callable[[Path], int]
    ) -> None:
        started = time.perf_counter()
        with ProgressBar(f"  {path.name}", events) as bar:
            report = self._query.export(path, form, expression, zstd=path.suffix == ".zst", on_progress=_advance(bar))
        took_s = time.perf_counter() - started
        found = read_back(path)
        print(
            f"  {path.name:<24}{report.events:>10,}{took_s:>9.2f}{report.events / took_s:>12,.0f}"
            f"{report.bytes / _MB:>9.1f}  {found:,} events"
        )
        if {found, report.events} != {events} or path.stat().st_size != report.bytes:
            self._problems.append(f"{path.name} holds {found} events of {events}: {report}")


def _advance(bar: ProgressBar) -> Callable[[ExportProgress], None]:
    """Tell a bar, which counts what is new, of a progress, which counts all."""
    shown = 0

    def advance(progress: ExportProgress) -> None:
        nonlocal shown
        bar.advance(progress.events - shown)
        shown = progress.events

    return advance


def _json_lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file)


def _packed_lines(path: Path) -> int:
    with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as content:
        return sum(1 for _ in io.BufferedReader(cast("io.RawIOBase", content)))


def _csv_rows(path: Path) -> int:
    csv.field_size_limit(_CSV_CELL_CHARACTERS)
    with path.open(newline="") as file:
        return sum(1 for _ in csv.DictReader(file))


def _parquet_rows(path: Path) -> int:
    return int(pq.read_metadata(path).num_rows)
