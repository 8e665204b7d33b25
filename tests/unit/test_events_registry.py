"""Standard event types and the registry of schemas."""

import dataclasses
from types import MappingProxyType
from typing import NotRequired, TypedDict

import msgspec
import pytest

from shared.errors import EventValidationException
from shared.events import (
    HOOK_EVENTS,
    PIPELINE_EVENTS,
    PROCESSING_EVENTS,
    SchemaRegistry,
    standard_registry,
    standard_types,
)

SPECIFIED = {
    "pipeline.started": "PipelineStartedEvent",
    "pipeline.stage.started": "StageStartedEvent",
    "pipeline.stage.completed": "StageCompletedEvent",
    "pipeline.completed": "PipelineCompletedEvent",
    "pipeline.failed": "PipelineFailedEvent",
    "hook.session.start": "SessionStartHookEvent",
    "hook.session.stop": "SessionStopHookEvent",
    "hook.tool.before": "ToolBeforeHookEvent",
    "hook.tool.after": "ToolAfterHookEvent",
    "hook.config.changed": "ConfigChangedHookEvent",
    "process.document.started": "DocumentStartedEvent",
    "process.extraction.completed": "ExtractionCompletedEvent",
    "process.synthesis.completed": "SynthesisCompletedEvent",
    "process.batch.progress": "BatchProgressEvent",
    "process.retry.attempted": "RetryAttemptedEvent",
}


class Login(msgspec.Struct):
    user: str
    attempts: int = 0


class Place(TypedDict):
    x: int
    y: NotRequired[list[int]]


@dataclasses.dataclass
class Trip:
    name: str
    place: Place


def violations(registry, event_type, payload):
    """Fields and descriptions of a refusal."""
    with pytest.raises(EventValidationException) as caught:
        registry.validate(event_type, payload)
    return {each.field: each.description for each in caught.value.violations}


def test_standard_types_are_those_of_the_specification():
    """Three dicts with the specification's keys and class names, in its order."""
    together = {**PIPELINE_EVENTS, **HOOK_EVENTS, **PROCESSING_EVENTS}
    assert {event_type: schema.__name__ for event_type, schema in together.items()} == SPECIFIED
    assert list(together) == list(SPECIFIED)
    assert len(PIPELINE_EVENTS) == len(HOOK_EVENTS) == len(PROCESSING_EVENTS) == 5
    assert all(getattr(standard_types, name) is together[key] for key, name in SPECIFIED.items())
    assert standard_registry().types == SchemaRegistry().types == tuple(sorted(SPECIFIED))


def test_example_payloads_are_valid():
    """The specification's payload, and one with more keys than the schema names."""
    registry = standard_registry()
    payload = {"stage": "extraction", "duration_ms": 1250, "items_processed": 10}
    registry.validate("pipeline.stage.completed", payload)
    registry.validate("pipeline.stage.completed", {**payload, "status": "ok", "message": "done", "own": [1]})
    registry.validate("pipeline.stage.completed", MappingProxyType(payload))


@pytest.mark.parametrize("event_type", sorted(SPECIFIED))
def test_schemas_make_valid_payloads(event_type):
    """A payload made with the class of a type is valid for that type."""
    schema = standard_registry().schema_of(event_type)
    samples = {str: "x", int: 1, float: 1.0}
    values = {field.name: samples[field.type.__origin__] for field in msgspec.structs.fields(schema) if field.required}
    payload = msgspec.to_builtins(schema(**values))
    assert payload == values
    standard_registry().validate(event_type, payload)


def test_every_wrong_field_is_named_by_its_path():
    """Not only the first one; missing, wrong and out of range."""
    found = violations(
        standard_registry(),
        "pipeline.stage.completed",
        {"duration_ms": -1, "items_processed": 1.5, "status": ""},
    )
    assert found["payload.stage"] == "is missing"
    assert "`float` >= 0.0" in found["payload.duration_ms"]
    assert "expected `int`, got `float`" in found["payload.items_processed"]
    assert "payload.status" in found
    assert len(found) == 4


@pytest.mark.parametrize("value", ["5", True, None, float("nan"), float("inf"), -0.1])
def test_durations_are_finite_numbers(value):
    """Nothing is converted to a number, and no number is infinite."""
    found = violations(standard_registry(), "hook.tool.after", {"tool": "x", "duration_ms": value})
    assert list(found) == ["payload.duration_ms"]


def test_payload_that_is_no_object_is_refused():
    """A payload is a mapping with text keys."""
    assert list(violations(standard_registry(), "pipeline.started", [1])) == ["payload"]
    assert list(violations(standard_registry(), "pipeline.started", {1: 2})) == ["payload"]


def test_unknown_type_is_refused_with_the_nearest_known():
    """The producer sees what it may have meant."""
    found = violations(standard_registry(), "pipeline.stage.complete", {})
    assert "did you mean pipeline.stage.completed?" in found["type"]
    assert "register one" in found["type"]


def test_users_register_structs_typed_dicts_and_dataclasses():
    """Each is validated like a standard type, to any depth."""
    registry = standard_registry()
    registry.register("user.login", Login)
    registry.register("place", Place)
    registry.register("trip", Trip)
    registry.register("counts", dict[str, int])
    registry.validate("user.login", {"user": "a"})
    registry.validate("place", {"x": 1})
    registry.validate("trip", {"name": "n", "place": {"x": 1, "y": []}})
    registry.validate("counts", {"a": 1})
    assert set(violations(registry, "user.login", {"attempts": "1"})) == {"payload.user", "payload.attempts"}
    assert set(violations(registry, "place", {"y": [1, "2"]})) == {"payload.x", "payload.y[1]"}
    assert set(violations(registry, "trip", {"name": 1, "place": {}})) == {"payload.name", "payload.place.x"}
    assert set(violations(registry, "counts", {"a": "1"})) == {"payload[...]"}


def test_schema_may_forbid_other_keys():
    """A schema that allows no other keys refuses them."""

    class Strict(msgspec.Struct, forbid_unknown_fields=True):
        a: int = 0

    registry = SchemaRegistry({"strict": Strict})
    assert "unknown field `b`" in violations(registry, "strict", {"b": 1})["payload"]


def test_registering_again_replaces():
    """The last schema of a type counts, in this registry only."""
    registry = standard_registry()
    registry.register("pipeline.started", Login)
    assert "payload.user" in violations(registry, "pipeline.started", {})
    standard_registry().validate("pipeline.started", {})


@pytest.mark.parametrize("schema", [int, list[int], 5, "Login", lambda: None, None])
def test_other_schemas_are_refused(schema):
    """A schema describes an object."""
    with pytest.raises(EventValidationException) as caught:
        SchemaRegistry({}).register("x", schema)
    assert caught.value.violations[0].field == "schema"


@pytest.mark.parametrize("event_type", ["", "a b", "pipeline.*", ".a", "x" * 201, "a\n", "ä"])
def test_malformed_types_are_refused(event_type):
    """What could never be logged cannot be registered."""
    with pytest.raises(EventValidationException) as caught:
        SchemaRegistry({}).register(event_type, Login)
    assert caught.value.violations[0].field == "type"
