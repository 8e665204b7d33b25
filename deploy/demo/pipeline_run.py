"""A pipeline run of the simulated platform: its stages, documents, retries, failure and rerun.

All events of a run have its id as correlation id. Times are seconds since the epoch.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from deploy.demo import cast
from deploy.demo.cast import Pipeline
from deploy.demo.recorder import Origin, Recorder

_PARALLEL_DOCUMENTS = 4
_RERUN_SHARE = 0.7


def pipeline_run(
    recorder: Recorder, at: float, pipeline: Pipeline, origin: Origin, *, caused_by: str | None
) -> tuple[float, bool]:
    """A pipeline runs, stage by stage; returns when it ended and whether it was completed.

    All of its events have the run's id as correlation id. A run that failed may be run again, under an id of its
    own: caused_by is the id of what started a run, be it a tool call, a batch or the run that failed.
    """
    run = _Run(recorder, pipeline, origin)
    now = run.start(at, caused_by)
    for stage in pipeline.stages:
        now, failure = run.stage(stage, now)
        if failure:
            run.fail(now, at, stage, failure)
            if recorder.random.random() >= _RERUN_SHARE:
                return now, False
            again = replace(origin, correlation_id=recorder.new_id("pipe"))
            wait = recorder.duration_ms(60_000, 0.5) / 1000
            return pipeline_run(recorder, now + wait, pipeline, again, caused_by=origin.correlation_id)
    run.complete(now, at)
    return now, True


class _Run:
    """One run of a pipeline."""

    def __init__(self, recorder: Recorder, pipeline: Pipeline, origin: Origin) -> None:
        self._recorder = recorder
        self._random = recorder.random
        self._pipeline = pipeline
        self._origin = origin
        self._host = self._random.choice(cast.SYNTHESISERS)
        count = max(1, round(recorder.duration_ms(pipeline.documents, 0.5)))
        self._documents = [recorder.new_id("doc") for _ in range(count)]

    def start(self, at: float, caused_by: str | None) -> float:
        payload: dict[str, Any] = {
            "pipeline": self._pipeline.name,
            "stages": list(self._pipeline.stages),
            "items_total": len(self._documents),
        }
        if caused_by:
            payload["caused_by"] = caused_by
        self._record(at, "pipeline.started", payload)
        return at + 0.02

    def stage(self, stage: str, at: float) -> tuple[float, tuple[str, str] | None]:
        """One stage; returns when it ended and what failed, as class and text of the error."""
        self._record(at, "pipeline.stage.started", {"stage": stage, "items_total": len(self._documents)})
        failure = None
        if stage == "extraction":
            end = self._extract(at)
        elif stage == "synthesis":
            end, failure = self._synthesise(at)
        else:
            end = at + self._recorder.duration_ms(cast.STAGE_MS[stage], 0.35) / 1000
        if failure is None:
            payload = {
                "stage": stage,
                "duration_ms": round((end - at) * 1000),
                "items_processed": len(self._documents),
                "status": "ok",
                "message": f"completed within budget #{self._random.randrange(10_000)}",
            }
            self._record(end, "pipeline.stage.completed", payload)
        return end + 0.01, failure

    def complete(self, at: float, started: float) -> None:
        payload = {
            "pipeline": self._pipeline.name,
            "duration_ms": round((at - started) * 1000),
            "stages_completed": len(self._pipeline.stages),
            "items_processed": len(self._documents),
            "status": "ok",
        }
        self._record(at, "pipeline.completed", payload)

    def fail(self, at: float, started: float, stage: str, failure: tuple[str, str]) -> None:
        payload = {
            "pipeline": self._pipeline.name,
            "stage": stage,
            "error": failure[1],
            "error_type": failure[0],
            "duration_ms": round((at - started) * 1000),
        }
        self._record(at, "pipeline.failed", payload)

    def _extract(self, at: float) -> float:
        """The documents, several at a time, each on the next host; the stage ends with the last one."""
        free = [at] * _PARALLEL_DOCUMENTS
        first = self._random.randrange(len(cast.WORKERS))
        for number, document in enumerate(self._documents):
            lane = number % _PARALLEL_DOCUMENTS
            host = cast.WORKERS[(first + number) % len(cast.WORKERS)]
            if self._recorder.faults.is_silent(host, free[lane]):
                host = cast.WORKERS[(first + number + 1) % len(cast.WORKERS)]
            free[lane] = self._extract_document(free[lane], host, document)
        return max(free)

    def _extract_document(self, at: float, host: str, document: str) -> float:
        recorder, random = self._recorder, self._random
        size = round(recorder.duration_ms(180_000, 1.1))
        started = {"document_id": document, "size_bytes": size, "media_type": random.choice(cast.MEDIA_TYPES)}
        self._record(at, "process.document.started", started, source="extraction_service", host=host)
        now = at
        share, most = recorder.faults.retries(at)
        for attempt in range(1, most + 1):
            if random.random() >= share:
                break
            delay = 200 * 2**attempt
            now += recorder.duration_ms(350, 0.3) / 1000
            retry = {
                "operation": "extraction",
                "attempt": attempt,
                "attempts_max": most,
                "delay_ms": delay,
                "error": "object store: read timed out",
                "document_id": document,
            }
            self._record(now, "process.retry.attempted", retry, source="extraction_service", host=host)
            now += delay / 1000
        duration = recorder.duration_ms(cast.EXTRACTION_MS * recorder.faults.extraction_factor(host, at), 0.45)
        now += duration / 1000
        completed = {
            "document_id": document,
            "duration_ms": duration,
            "items_extracted": random.randrange(1, 40),
            "status": "ok",
        }
        self._record(now, "process.extraction.completed", completed, source="extraction_service", host=host)
        return now

    def _synthesise(self, at: float) -> tuple[float, tuple[str, str] | None]:
        share, error_type, error = self._recorder.faults.synthesis_failure(self._host, at)
        if self._random.random() < share:
            return at + self._recorder.duration_ms(300, 0.3) / 1000, (error_type, error)
        duration = self._recorder.duration_ms(cast.SYNTHESIS_MS, 0.5)
        end = at + duration / 1000
        payload = {
            "document_id": self._recorder.new_id("synth"),
            "duration_ms": duration,
            "sources_used": len(self._documents),
            "status": "ok",
        }
        self._record(end, "process.synthesis.completed", payload, source="synthesis_service")
        return end, None

    def _record(
        self,
        at: float,
        event_type: str,
        payload: Mapping[str, Any],
        *,
        source: str = "synthesis_pipeline",
        host: str | None = None,
    ) -> None:
        self._recorder.record(at, event_type, payload, source=source, host=host or self._host, origin=self._origin)
