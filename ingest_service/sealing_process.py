"""The process that seals: takes orders, reports on each as it is done.

Invariants: one process seals several segments, one after the other, and ends; it is killed where one takes too
long or nobody waits for it any more; each order that was begun is reported once, also where the process dies.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator, Sequence

import msgspec

from shared.log.sealing import SealOrder, SealReport, SealWork

SEGMENT_S_MAX = 900.0

_decoder = msgspec.json.Decoder(SealReport)


async def seal_in_process(orders: Sequence[SealOrder], *, niceness: int) -> AsyncGenerator[SealReport, None]:
    """Seal segments of one directory, at least one; yield a report on each that was begun, in their order."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "shared.log.sealing",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    # Read all the time, so that the process never waits for us.
    complaints = asyncio.ensure_future(process.stderr.read())
    problem = ""
    done = 0
    try:
        await _give(process, SealWork(list(orders), niceness))
        while line := await asyncio.wait_for(process.stdout.readline(), SEGMENT_S_MAX):
            done += 1
            yield _decoder.decode(line)
        await asyncio.wait_for(process.wait(), SEGMENT_S_MAX)
    except TimeoutError:
        problem = f"not done after {SEGMENT_S_MAX:g} seconds"
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        text = (await complaints).decode(errors="replace")
    if done < len(orders):
        last_line = text.strip().rpartition("\n")[2]
        yield SealReport(orders[done].first, 0.0, problem or last_line or f"exit code {process.returncode}")


async def _give(process: asyncio.subprocess.Process, work: SealWork) -> None:
    assert process.stdin is not None
    # Where it died already, its output ends, too.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(msgspec.json.encode(work))
        await process.stdin.drain()
    process.stdin.close()
