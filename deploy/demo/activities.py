"""What happens in the simulated platform: sessions with tool calls, nightly batches, and what hosts say by themselves.

Each function records the events of one activity from its start to its end, also those after the hour in which
it started. Times are seconds since the epoch. Durations are lognormal.
"""

from dataclasses import replace
from typing import Any

from deploy.demo import cast
from deploy.demo.cast import Tool
from deploy.demo.incidents import RARE_TYPE
from deploy.demo.pipeline_run import pipeline_run
from deploy.demo.recorder import Origin, Recorder

# Sessions and tools have one hook each.
_SESSION_HOOK, _TOOL_HOOK = "session_audit", "tool_audit"

_KEYS = (
    ("synthesis.temperature", (0.2, 0.3, 0.4, 0.7)),
    ("extraction.parallel_documents", (2, 4, 8)),
    ("delivery.notify", (True, False)),
    ("synthesis.model", ("compact-3", "large-2", "large-3")),
)


def session(recorder: Recorder, at: float, region: str) -> float:
    """Somebody works for a while: a session with tool calls, some of which start pipelines."""
    random = recorder.random
    user = random.choice([user for user in cast.USERS if user.region == region])
    origin = Origin(region, user.name, recorder.new_id("sess"))
    host = random.choice(cast.GATEWAYS)
    started = {"hook": _SESSION_HOOK, "trigger": "resume" if random.random() < 0.2 else "startup"}
    recorder.record(at, "hook.session.start", started, source="hook_runner", host=host, origin=origin)
    now = at
    while True:
        now += recorder.duration_ms(25_000, 0.9) / 1000
        tool = random.choices(cast.TOOLS, [tool.weight for tool in cast.TOOLS])[0]
        now = tool_call(recorder, now, tool, host, origin)
        if random.random() < 0.18:
            break
    now += recorder.duration_ms(40_000, 0.8) / 1000
    reason = "timeout" if random.random() < 0.15 else "completed"
    stopped = {"hook": _SESSION_HOOK, "reason": reason, "duration_ms": round((now - at) * 1000)}
    recorder.record(now, "hook.session.stop", stopped, source="hook_runner", host=host, origin=origin)
    return now


def tool_call(recorder: Recorder, at: float, tool: Tool, host: str, session_origin: Origin) -> float:
    """A tool is used; both of its events have the id of the call. Synthesising starts a pipeline and goes on."""
    random = recorder.random
    origin = replace(session_origin, correlation_id=recorder.new_id("call"))
    arguments: dict[str, Any] = {"limit": random.choice((10, 20, 50))}
    after: dict[str, Any] = {}
    if tool is cast.SYNTHESISE:
        pipeline = random.choice(cast.PIPELINES)
        run_id = recorder.new_id("pipe")
        arguments, after = {"pipeline": pipeline.name}, {"pipeline_run": run_id}
        run = replace(session_origin, correlation_id=run_id)
        pipeline_run(recorder, at + 0.05 + random.random() * 0.2, pipeline, run, caused_by=origin.correlation_id)
    before = {"tool": tool.name, "hook": _TOOL_HOOK, "arguments": arguments}
    recorder.record(at, "hook.tool.before", before, source="hook_runner", host=host, origin=origin)
    duration = recorder.duration_ms(tool.median_ms, tool.sigma)
    failed = random.random() < 0.015
    outcome = {"status": "error", "error": f"{tool.name} timed out"} if failed else {"status": "ok"}
    payload = {"tool": tool.name, "hook": _TOOL_HOOK, "duration_ms": duration, **outcome, **after}
    end = at + duration / 1000
    recorder.record(end, "hook.tool.after", payload, source="hook_runner", host=host, origin=origin)
    return end


def nightly_batch(recorder: Recorder, at: float, region: str) -> float:
    """The scheduler runs digests one after the other, and reports how far it is after each."""
    batch = Origin(region, correlation_id=recorder.new_id("batch"))
    done = failed = 0
    now = at
    for number in range(1, cast.BATCH_RUNS + 1):
        run = replace(batch, correlation_id=recorder.new_id("pipe"))
        now, sound = pipeline_run(recorder, now + 1.0, cast.DIGEST, run, caused_by=batch.correlation_id)
        done, failed = number, failed + (not sound)
        payload = {
            "batch_id": batch.correlation_id,
            "items_processed": done,
            "items_total": cast.BATCH_RUNS,
            "items_failed": failed,
            "progress": done / cast.BATCH_RUNS,
        }
        recorder.record(
            now, "process.batch.progress", payload, source="batch_processor", host=cast.SCHEDULER, origin=batch
        )
    return now


def heartbeat(recorder: Recorder, at: float, host: str) -> None:
    """A host says that it lives, and how busy it is."""
    payload = {"interval_s": cast.HEARTBEAT_S, "load": round(recorder.random.betavariate(2, 5), 3)}
    recorder.record(at, "worker.heartbeat", payload, source="supervisor", host=host, origin=Origin("eu"))


def config_change(recorder: Recorder, at: float) -> None:
    """An administrator changes a key of the configuration."""
    random = recorder.random
    key, values = random.choice(_KEYS)
    old, new = random.sample(values, 2)
    origin = Origin("eu", random.choice(cast.ADMINISTRATORS))
    payload = {"key": key, "old_value": old, "new_value": new, "changed_by": origin.user}
    recorder.record(at, "hook.config.changed", payload, source="hook_runner", host=cast.GATEWAYS[0], origin=origin)


def host_update(recorder: Recorder, at: float, host: str, old: str, new: str) -> None:
    """A host gets a new version."""
    payload = {"from_version": old, "to_version": new}
    recorder.record(at, "deployment.host.updated", payload, source="deployer", host=host, origin=Origin("eu"))


def template_export(recorder: Recorder, at: float) -> None:
    """What never happened before: somebody takes the templates away."""
    user = recorder.random.choice(cast.USERS)
    payload = {"templates": 212, "destination": "external"}
    recorder.record(
        at, RARE_TYPE, payload, source="editor", host=cast.GATEWAYS[0], origin=Origin(user.region, user.name)
    )
