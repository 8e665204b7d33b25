"""What every benchmark case gets, and what it is."""

import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.report import Outcome, RowSpec


@dataclass(frozen=True, slots=True)
class Bench:
    """The run that a case is a part of."""

    # Scratch files, on the disk that the log would be on; gone at the end.
    directory: Path
    # Measure for a shorter time, to see that everything works.
    quick: bool
    # The rows that are wanted: a case may leave out the others.
    wanted: frozenset[str]

    def seconds(self, full: float) -> float:
        """Seconds to measure: all of them, or a tenth but at least 1.5 in a quick run."""
        return max(1.5, full / 10) if self.quick else full

    def count(self, full: int) -> int:
        """Number of things to measure with: all of them, or a tenth in a quick run."""
        return max(1, full // 10) if self.quick else full

    def progress(self, text: str) -> None:
        """Say on stderr what is being done."""
        print(f"  … {text}", file=sys.stderr, flush=True)

    @contextmanager
    def scratch(self, name: str) -> Iterator[Path]:
        """Make a fresh directory below `directory`; yields it, and removes it at the end."""
        with tempfile.TemporaryDirectory(dir=self.directory, prefix=f"{name}-") as path:
            yield Path(path)


@dataclass(frozen=True, slots=True)
class Case:
    """Measures some rows together. `measure` gives an outcome for each row that is wanted, and may for others."""

    rows: tuple[RowSpec, ...]
    measure: Callable[[Bench], Mapping[str, Outcome]]
