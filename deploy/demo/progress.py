"""A progress bar for a terminal; where the output is no terminal, nothing."""

import sys
from typing import Self

_WIDTH = 40


class ProgressBar:
    """Draws how much of `total` is done. Use as a context: the bar is gone afterwards."""

    def __init__(self, title: str, total: int) -> None:
        self._title = title
        self._total = total
        self._done = 0
        self._drawn = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._drawn >= 0:
            sys.stdout.write("\r\x1b[K")

    def advance(self, count: int) -> None:
        """Say that `count` more is done."""
        self._done += count
        filled = _WIDTH * self._done // max(1, self._total)
        if filled != self._drawn and sys.stdout.isatty():
            self._drawn = filled
            bar = "#" * filled + "." * (_WIDTH - filled)
            sys.stdout.write(f"\r{self._title} [{bar}] {self._done:,} of {self._total:,}")
            sys.stdout.flush()
