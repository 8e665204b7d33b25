"""What a log's directory holds, by its listing alone: independent of the code that wrote it."""

import re
import time
from dataclasses import dataclass
from pathlib import Path

_ACTIVE = re.compile(r"\d{20}\.log")
_SEALED = re.compile(r"(\d{20})-(\d{20})\..*")


@dataclass(frozen=True, slots=True)
class LogDirectory:
    """A listing."""

    # Bytes of everything that belongs to sealed segments: events, sidecars, repair data, request ids.
    sealed_bytes: int
    sealed_events: int
    # The active segment and those that wait to be sealed.
    log_files: int
    log_bytes: int


def list_log(log: Path) -> LogDirectory:
    """List a log that may be in use."""
    sizes: dict[str, int] = {}
    for path in (log / "segments").iterdir():
        try:
            sizes[path.name] = path.stat().st_size
        except FileNotFoundError:
            continue
    logs = [size for name, size in sizes.items() if _ACTIVE.fullmatch(name)]
    sealed = {name: match for name in sizes if (match := _SEALED.fullmatch(name))}
    ranges = {(int(match[1]), int(match[2])) for match in sealed.values()}
    return LogDirectory(
        sealed_bytes=sum(sizes[name] for name in sealed),
        sealed_events=sum(last - first + 1 for first, last in ranges),
        log_files=len(logs),
        log_bytes=sum(logs),
    )


def wait_until_sealed(log: Path, *, timeout_s: float = 300.0) -> LogDirectory:
    """Wait until nothing but the active segment is unsealed. Raises TimeoutError."""
    deadline = time.monotonic() + timeout_s
    while (listing := list_log(log)).log_files > 1:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{listing.log_files - 1} segments are not sealed after {timeout_s} s")
        time.sleep(0.1)
    return listing
