"""The report: a row for each figure, printed beside its target as it comes in, and written as JSON.

Invariants: each row that was asked for is in the report once, measured, skipped with the reason, or failed; the
file is whole after each row, so that a run that is broken off leaves what it measured.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO


@dataclass(frozen=True, slots=True)
class RowSpec:
    """What a row is about."""

    name: str
    unit: str
    # None: for orientation only.
    target: float | None = None
    # Whether the target is the most that is allowed; otherwise it is the least.
    at_most: bool = False

    def holds(self, value: float) -> bool | None:
        """Whether a value reaches the target, None where there is none."""
        if self.target is None:
            return None
        return value <= self.target if self.at_most else value >= self.target


@dataclass(frozen=True, slots=True)
class Skipped:
    """Stands for a value that cannot be measured here."""

    # Why, and what to do to get it.
    reason: str


@dataclass(frozen=True, slots=True)
class Failed:
    """Stands for a value whose measurement went wrong."""

    error: str


Outcome = float | Skipped | Failed


class Report:
    """Takes rows and prints and writes them. Belongs to one thread."""

    def __init__(self, specs: Sequence[RowSpec], out: TextIO, file: Path, *, quick: bool) -> None:
        """Begin a report of these rows. quick: mark each as measured in too short a time to be quoted."""
        self._specs: Mapping[str, RowSpec] = {spec.name: spec for spec in specs}
        assert len(self._specs) == len(specs), "two rows have the same name"
        self._out = out
        self._file = file
        self._quick = quick
        self._name_width = max((len(name) for name in self._specs), default=0)
        self._rows: list[dict[str, Any]] = []
        self._failed = False
        self._line("figure", "measured", "target", "")

    def add(self, name: str, outcome: Outcome) -> None:
        """Add the row of a name: print it and write the file."""
        spec = self._specs[name]
        assert all(row["name"] != name for row in self._rows), f"{name} is there already"
        row: dict[str, Any] = {"name": name, "value": None, "unit": spec.unit, "target": spec.target, "holds": None}
        notes = ["quick run"] if self._quick else []
        if isinstance(outcome, Skipped):
            notes.append(f"skipped: {outcome.reason}")
        elif isinstance(outcome, Failed):
            self._failed = True
            row["holds"] = None if spec.target is None else False
            notes.append(f"failed: {outcome.error}")
        else:
            assert math.isfinite(outcome), f"{name} is {outcome}"
            row["value"] = _rounded(float(outcome))
            # As it is shown, so that a row never contradicts itself.
            row["holds"] = spec.holds(row["value"])
        if notes:
            row["note"] = "; ".join(notes)
        self._rows.append(row)
        self._print(spec, row)
        self._write()

    def finish(self) -> int:
        """Print the summary and return the exit code: 1 if a row failed to be measured, else 0."""
        missing = [name for name in self._specs if all(row["name"] != name for row in self._rows)]
        assert not missing, f"no outcome for {missing}"
        judged = [row["holds"] for row in self._rows if row["holds"] is not None]
        print(f"{sum(judged)} of {len(judged)} targets hold; written to {self._file}", file=self._out)
        return 1 if self._failed else 0

    def _print(self, spec: RowSpec, row: Mapping[str, Any]) -> None:
        measured = "-" if row["value"] is None else f"{_shown(row['value'])} {spec.unit}"
        target = "" if spec.target is None else f"{'≤' if spec.at_most else '≥'} {_shown(spec.target)}"
        mark = {True: "✓", False: "✗", None: ""}[row["holds"]]
        note = f"  {row['note']}" if "note" in row else ""
        self._line(spec.name, measured, target, f"{mark}{note}")

    def _line(self, name: str, measured: str, target: str, rest: str) -> None:
        line = f"{name.ljust(self._name_width)}  {measured.rjust(20)}  {target.rjust(12)}  {rest}"
        print(line.rstrip(), file=self._out, flush=True)

    def _write(self) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._file.with_suffix(".tmp")
        rows = ",\n".join(f"  {json.dumps(row, ensure_ascii=False)}" for row in self._rows)
        temporary.write_text(f"[\n{rows}\n]\n", encoding="utf-8")
        temporary.replace(self._file)


def _rounded(value: float) -> float:
    """Three decimals below 10, fewer above: no benchmark repeats itself better."""
    return round(value, 3 if abs(value) < 10 else 2 if abs(value) < 100 else 0)


def _shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:,}"
