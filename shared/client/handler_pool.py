"""A few threads, and one event loop, that run the handlers of an event bus.

The threads run one job at a time; which jobs there are is bounded by the bus, whose subscriptions are queued
at most once each. The loop is for asynchronous handlers that were registered outside of any loop. Threads and
loop begin when they are first needed. All are daemons: a handler that hangs does not keep the interpreter from
exiting.
"""

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue

JOIN_S_MAX = 1.0


class HandlerPool:
    """See the module. Thread-safe."""

    def __init__(self, threads_max: int) -> None:
        self._threads_max = threads_max
        self._lock = threading.Lock()
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread: threading.Thread | None = None
        self._unfinished = 0

    def submit(self, job: Callable[[], None]) -> None:
        """Run the job in one of the threads. It must not raise."""
        with self._lock:
            self._unfinished += 1
            if self._unfinished > len(self._threads) < self._threads_max:
                thread = threading.Thread(target=self._run, name=f"eventlog-handlers-{len(self._threads)}", daemon=True)
                self._threads.append(thread)
                thread.start()
        self._jobs.put(job)

    def loop(self) -> asyncio.AbstractEventLoop:
        """The pool's own event loop, running."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._loop_thread = threading.Thread(
                    target=_run_loop, args=(self._loop,), name="eventlog-handler-loop", daemon=True
                )
                self._loop_thread.start()
            return self._loop

    def close(self) -> None:
        """End the threads after the jobs submitted so far, and the loop. Waits a moment for them."""
        with self._lock:
            threads = list(self._threads)
            loop, loop_thread = self._loop, self._loop_thread
        for _ in threads:
            self._jobs.put(None)
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(loop.stop)
        for thread in [*threads, *([loop_thread] if loop_thread is not None else [])]:
            if thread is not threading.current_thread():
                thread.join(JOIN_S_MAX)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
            with self._lock:
                self._unfinished -= 1


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        loop.close()
