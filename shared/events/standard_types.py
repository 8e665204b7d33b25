"""The standard event types: what their payloads hold.

A payload may hold more keys than its schema names. Keys with a default may be left out. Durations are in
milliseconds, counts are whole numbers; both are at least 0. What relates events (the run of a pipeline, the
session of a hook) is the event's correlation_id or metadata.session_id, not its payload.

The schemas are msgspec structs, so that producers may use them: `msgspec.to_builtins(StageStartedEvent(...))`
is a payload, without the keys that have their defaults.
"""

from typing import Annotated, Any, TypeAlias

from msgspec import Meta, Struct, field

Text: TypeAlias = Annotated[str, Meta(min_length=1)]
Count: TypeAlias = Annotated[int, Meta(ge=0)]
# The upper bound, 30,000 years, keeps infinity out.
Milliseconds: TypeAlias = Annotated[float, Meta(ge=0, le=1e15)]
Share: TypeAlias = Annotated[float, Meta(ge=0, le=1)]


class Payload(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Base of the standard payloads."""

    # For people.
    message: str | None = None


class PipelineStartedEvent(Payload, frozen=True, kw_only=True):
    """A pipeline began to run."""

    # Name of the pipeline.
    pipeline: Text | None = None
    # Stages it will run, in order.
    stages: list[Text] = field(default_factory=list)
    # Items it is to process.
    items_total: Count | None = None


class StageStartedEvent(Payload, frozen=True, kw_only=True):
    """A stage of a pipeline began."""

    # Name of the stage.
    stage: Text
    # Items it is to process.
    items_total: Count | None = None


class StageCompletedEvent(Payload, frozen=True, kw_only=True):
    """A stage of a pipeline ended by itself."""

    # Name of the stage.
    stage: Text
    duration_ms: Milliseconds
    items_processed: Count = 0
    # How it ended: "ok", or in what way not.
    status: Text = "ok"


class PipelineCompletedEvent(Payload, frozen=True, kw_only=True):
    """A pipeline ended by itself."""

    # Name of the pipeline.
    pipeline: Text | None = None
    duration_ms: Milliseconds
    stages_completed: Count | None = None
    items_processed: Count = 0
    # How it ended: "ok", or in what way not.
    status: Text = "ok"


class PipelineFailedEvent(Payload, frozen=True, kw_only=True):
    """A pipeline was ended by an error."""

    # Name of the pipeline.
    pipeline: Text | None = None
    # Stage in which it failed.
    stage: Text | None = None
    # What went wrong.
    error: Text
    # Class of the error, such as "TimeoutError".
    error_type: Text | None = None
    duration_ms: Milliseconds | None = None


class SessionStartHookEvent(Payload, frozen=True, kw_only=True):
    """A hook ran because a session started."""

    # Name of the hook.
    hook: Text | None = None
    # What started the session: "startup", "resume", ….
    trigger: Text | None = None


class SessionStopHookEvent(Payload, frozen=True, kw_only=True):
    """A hook ran because a session stopped."""

    # Name of the hook.
    hook: Text | None = None
    # Why it stopped: "completed", "cancelled", ….
    reason: Text | None = None
    # How long the session lasted.
    duration_ms: Milliseconds | None = None


class ToolBeforeHookEvent(Payload, frozen=True, kw_only=True):
    """A hook ran before a tool was used."""

    # Name of the tool.
    tool: Text
    # Name of the hook.
    hook: Text | None = None
    # What the tool is called with.
    arguments: dict[str, Any] = field(default_factory=dict)


class ToolAfterHookEvent(Payload, frozen=True, kw_only=True):
    """A hook ran after a tool was used."""

    # Name of the tool.
    tool: Text
    # Name of the hook.
    hook: Text | None = None
    # How long the tool took.
    duration_ms: Milliseconds
    # How it ended: "ok", or in what way not.
    status: Text = "ok"
    # What went wrong, where something did.
    error: Text | None = None


class ConfigChangedHookEvent(Payload, frozen=True, kw_only=True):
    """A hook ran because the configuration changed."""

    # Path of the key.
    key: Text
    # Values before and after; any JSON value.
    old_value: Any = None
    new_value: Any = None
    # Who or what changed it.
    changed_by: Text | None = None


class DocumentStartedEvent(Payload, frozen=True, kw_only=True):
    """The processing of a document began."""

    # Id of the document.
    document_id: Text
    size_bytes: Count | None = None
    # Media type, such as "application/pdf".
    media_type: Text | None = None


class ExtractionCompletedEvent(Payload, frozen=True, kw_only=True):
    """The content of a document was extracted."""

    # Id of the document.
    document_id: Text
    duration_ms: Milliseconds
    # Items found.
    items_extracted: Count = 0
    # How it ended: "ok", or in what way not.
    status: Text = "ok"


class SynthesisCompletedEvent(Payload, frozen=True, kw_only=True):
    """A result was synthesised from documents."""

    # Id of the result.
    document_id: Text | None = None
    duration_ms: Milliseconds
    # Documents it was made from.
    sources_used: Count = 0
    # How it ended: "ok", or in what way not.
    status: Text = "ok"


class BatchProgressEvent(Payload, frozen=True, kw_only=True):
    """How far a batch is."""

    # Id of the batch.
    batch_id: Text | None = None
    items_processed: Count
    items_total: Count | None = None
    items_failed: Count = 0
    # Share that is done, 0 to 1.
    progress: Share | None = None


class RetryAttemptedEvent(Payload, frozen=True, kw_only=True):
    """Something that failed was tried again."""

    # What was tried.
    operation: Text
    # Number of the attempt; the first retry is 1.
    attempt: Annotated[int, Meta(ge=1)]
    attempts_max: Annotated[int, Meta(ge=1)] | None = None
    # How long was waited before it.
    delay_ms: Milliseconds | None = None
    # What had gone wrong.
    error: Text | None = None


PIPELINE_EVENTS: dict[str, type[Payload]] = {
    "pipeline.started": PipelineStartedEvent,
    "pipeline.stage.started": StageStartedEvent,
    "pipeline.stage.completed": StageCompletedEvent,
    "pipeline.completed": PipelineCompletedEvent,
    "pipeline.failed": PipelineFailedEvent,
}

HOOK_EVENTS: dict[str, type[Payload]] = {
    "hook.session.start": SessionStartHookEvent,
    "hook.session.stop": SessionStopHookEvent,
    "hook.tool.before": ToolBeforeHookEvent,
    "hook.tool.after": ToolAfterHookEvent,
    "hook.config.changed": ConfigChangedHookEvent,
}

PROCESSING_EVENTS: dict[str, type[Payload]] = {
    "process.document.started": DocumentStartedEvent,
    "process.extraction.completed": ExtractionCompletedEvent,
    "process.synthesis.completed": SynthesisCompletedEvent,
    "process.batch.progress": BatchProgressEvent,
    "process.retry.attempted": RetryAttemptedEvent,
}
