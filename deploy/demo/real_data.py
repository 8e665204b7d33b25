"""The real events of a data folder: JSON lines in the specification's document form, gzip-compressed.

Streams: only the line at hand is in memory. Does not parse the lines, and knows nothing of their licences:
the folder's README does.
"""

import gzip
from collections.abc import Iterator
from pathlib import Path


def event_files(folder: Path) -> list[Path]:
    """Every file of events below the folder, sorted by name. Empty where the folder is missing."""
    return sorted(folder.rglob("*.jsonl.gz"))


def read_lines(file: Path) -> Iterator[bytes]:
    """The documents of a file, one line each, without line breaks. Raises OSError where it cannot be read."""
    with gzip.open(file, "rb") as lines:
        for line in lines:
            if document := line.strip():
                yield document
