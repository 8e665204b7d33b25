"""Processes that outlive the one that started them: are they still ours, and how are they stopped.

Invariant: a signal only ever goes to the process that was started, never to another one that has its number
by now: a process is its number, its start time and its command, and it is held by a descriptor while it is
judged and signalled.
"""

import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Process:
    """A process. started: clock ticks from the boot of the machine to its start; module: as in python -m."""

    pid: int
    started: int
    module: str


def identify(pid: int, module: str) -> Process | None:
    """The process of this number, None if there is none or it has ended."""
    try:
        stat = (_PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # "pid (command) state ...": the command may hold spaces and brackets. The start time is field 22.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else Process(pid, int(fields[19]), module)


def is_running(process: Process) -> bool:
    """Whether the process runs, and is the one that was started."""
    with _held(process) as descriptor:
        return descriptor is not None


def terminate(process: Process) -> bool:
    """Ask the process to end. False if it has already."""
    return _send(process, signal.SIGTERM)


def kill(process: Process) -> bool:
    """End the process without asking. False if it has ended already."""
    return _send(process, signal.SIGKILL)


def wait_for_end(process: Process, *, timeout_s: float) -> bool:
    """Wait until the process has ended; False if it has not within the time."""
    with _held(process) as descriptor:
        if descriptor is None:
            return True
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(max(0.0, timeout_s) * 1000))


def _send(process: Process, number: signal.Signals) -> bool:
    with _held(process) as descriptor:
        if descriptor is not None:
            signal.pidfd_send_signal(descriptor, number)
        return descriptor is not None


@contextmanager
def _held(process: Process) -> Iterator[int | None]:
    """Yield a descriptor of the process, None if it has ended: its number may belong to another by now."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        yield None
        return
    try:
        yield descriptor if _is_ours(process) else None
    finally:
        os.close(descriptor)


def _is_ours(process: Process) -> bool:
    if identify(process.pid, process.module) != process:
        return False
    try:
        command = (_PROC / str(process.pid) / "cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return False
    # It is empty for a moment after the start.
    return command == [b""] or process.module.encode() in command
