"""What the __main__ of every service does: arguments, configuration, logs, event loop, exit code.

Exit codes: 0 after a drain, 1 where the service cannot start or fails, 2 for wrong arguments.
What the operator can mend is one log line that says how, without a traceback.
"""

import argparse
import asyncio
import gc
import importlib.abc
import logging
import os
import sys
import threading
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path

import uvloop
from prometheus_client import disable_created_metrics

from shared.config import EventConfig, load_config
from shared.errors import EventException
from shared.rpc.call import sole_cause
from shared.telemetry.logs import configure_logging

_log = logging.getLogger("eventlog.service")

# New container objects between two looks at the youngest generation; 700 is Python's own.
_GC_THRESHOLD = 50_000


def service_main(
    run: Callable[[EventConfig], Coroutine[None, None, None]],
    *,
    service: str,
    argv: Sequence[str] | None = None,
) -> int:
    """Load the configuration, run the service until it ends, and return the exit code.

    run: serves until a signal; makes everything itself, from the configuration. argv: None for sys.argv.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {service}", description=f"The {service} of eventlog.")
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file; without it, defaults")
    arguments = parser.parse_args(argv)
    # A creation time for each series would double the metrics page, and nothing reads it.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    configure_logging(level="info", log_format="json", service=service)
    try:
        config = load_config(arguments.config)
        telemetry = config.telemetry
        configure_logging(level=telemetry.log_level, log_format=telemetry.log_format, service=service)
        threading.excepthook = _end_process
        _tune_garbage_collection()
        sys.meta_path.insert(0, _WithoutPandas())
        # A loop in C: a call costs about a quarter less.
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(config))
    except Exception as error:  # noqa: BLE001 — the last place where it can be told
        cause = sole_cause(error)
        if isinstance(cause, EventException):
            _log.critical("%s", cause, extra={"reason": cause.reason, "details": cause.metadata})
        else:
            _log.critical("the service failed", exc_info=error)
        return 1
    finally:
        # What was frozen must be found again, or libraries report it as leaked at the end.
        gc.unfreeze()
    return 0


class _WithoutPandas(importlib.abc.MetaPathFinder):
    """Says at once that pandas is not there: Arrow looks for it at every conversion, and Python on the disk."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        """Refuse pandas, and leave everything else to others."""
        del path, target
        if fullname == "pandas":
            raise ModuleNotFoundError(name=fullname)


def _tune_garbage_collection() -> None:
    """Look for cycles less often: a call makes hundreds of objects, and next to none of them are in cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_THRESHOLD, 20, 20)


def _end_process(died: threading.ExceptHookArgs) -> None:
    """End the process where one of its threads died: half a service must not look like a whole one.

    What was acknowledged is synced, so nothing is lost by ending at once.
    """
    assert died.exc_value is not None
    _log.critical("a thread died; ending the service", exc_info=died.exc_value)
    logging.shutdown()
    os._exit(1)
