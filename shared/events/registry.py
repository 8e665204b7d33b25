"""The registry of payload schemas: which types are known, and what their payloads must hold.

A schema is a class or type that msgspec can convert an object to: a msgspec.Struct, a dataclass, a TypedDict,
dict[str, int]. A payload may hold keys that its schema does not name, unless the schema itself forbids them.
Conversion is strict: the text "5" is no number. One registry may be read by threads while another registers.
"""

import re
from collections.abc import Mapping
from typing import Any, NotRequired, Required, get_args, get_origin, get_type_hints

import msgspec

from shared.errors import EventValidationException, FieldViolation
from shared.events.limits import TYPE_PATTERN
from shared.events.standard_types import HOOK_EVENTS, PIPELINE_EVENTS, PROCESSING_EVENTS
from shared.suggestion import did_you_mean

_TYPE = re.compile(TYPE_PATTERN, re.ASCII)
_MISSING = re.compile(r"Object missing required field `(.*?)`(?: - at `\$(.*)`)?")
_PLACE = re.compile(r"(.*?) - at `(?:key` in `)?\$(.*)`", re.DOTALL)
_WITH_FIELDS = (
    msgspec.inspect.StructType,
    msgspec.inspect.DataclassType,
    msgspec.inspect.TypedDictType,
)
_OBJECTS = (*_WITH_FIELDS, msgspec.inspect.DictType)


class SchemaRegistry:
    """Schemas by event type. It begins with the standard types, unless it is given others."""

    def __init__(self, schemas: Mapping[str, Any] | None = None) -> None:
        self._schemas: dict[str, Any] = {}
        for event_type, schema in (STANDARD_EVENTS if schemas is None else schemas).items():
            self.register(event_type, schema)

    @property
    def types(self) -> tuple[str, ...]:
        """The known types, sorted."""
        return tuple(sorted(self._schemas))

    def schema_of(self, event_type: str) -> Any:
        """Schema of a type, None if it is not known."""
        return self._schemas.get(event_type)

    def register(self, event_type: str, schema: Any) -> None:
        """Make a type known, or replace its schema.

        Raises EventValidationException where the type is malformed or the schema cannot be used.
        """
        if not _TYPE.fullmatch(event_type):
            allowed = "1 to 200 of A-Z a-z 0-9 _ . : / - beginning with a letter or digit"
            raise _refusal([FieldViolation("type", f"is {event_type[:60]!r}; write {allowed}")])
        try:
            usable = isinstance(msgspec.inspect.type_info(schema), _OBJECTS)
        except (TypeError, NameError) as error:
            raise _refusal([FieldViolation("schema", f"of {event_type} cannot be used: {error}")]) from error
        if not usable:
            problem = f"of {event_type} is {schema!r}; give a msgspec.Struct, a dataclass or a TypedDict"
            raise _refusal([FieldViolation("schema", problem)])
        self._schemas[event_type] = schema

    def validate(self, event_type: str, payload: Mapping[str, Any]) -> None:
        """Check a payload against the schema of its type.

        Raises EventValidationException: the type is not known (with the nearest one), or the payload is wrong,
        each wrong field by its path, such as "payload.duration_ms".
        """
        schema = self._schemas.get(event_type)
        if schema is None:
            problem = f"{event_type[:200]!r} has no schema; register one{did_you_mean(event_type, self.types)}"
            raise _refusal([FieldViolation("type", problem)])
        try:
            msgspec.convert(payload, schema)
        except msgspec.ValidationError as error:
            violations = _wrong_fields(payload, schema) or [_violation(error, "")]
            raise _refusal(violations) from error


STANDARD_EVENTS: dict[str, Any] = {**PIPELINE_EVENTS, **HOOK_EVENTS, **PROCESSING_EVENTS}


def standard_registry() -> SchemaRegistry:
    """A registry of the standard types, to which others may be added."""
    return SchemaRegistry(STANDARD_EVENTS)


def _wrong_fields(payload: Mapping[str, Any], schema: Any) -> list[FieldViolation]:
    """Every wrong field of the payload, each by itself: msgspec stops at the first one."""
    info = msgspec.inspect.type_info(schema)
    if not isinstance(info, _WITH_FIELDS) or not isinstance(schema, type) or not isinstance(payload, Mapping):
        return []
    hints = get_type_hints(schema, include_extras=True)
    violations = []
    for field in info.fields:
        path = f".{field.encode_name}"
        if field.encode_name not in payload:
            if field.required:
                violations.append(FieldViolation(f"payload{path}", "is missing"))
            continue
        try:
            msgspec.convert(payload[field.encode_name], _bare(hints[field.name]))
        except msgspec.ValidationError as error:
            violations.append(_violation(error, path))
    return violations


def _bare(hint: Any) -> Any:
    """The hint of a TypedDict's key without Required and NotRequired."""
    return get_args(hint)[0] if get_origin(hint) in {Required, NotRequired} else hint


def _violation(error: msgspec.ValidationError, path: str) -> FieldViolation:
    """msgspec's message about something at or below the path, as the field and what is wrong with it."""
    text = str(error)
    if missing := _MISSING.fullmatch(text):
        return FieldViolation(f"payload{path}{missing[2] or ''}.{missing[1]}", "is missing")
    place = _PLACE.fullmatch(text)
    problem, below = (place[1], place[2]) if place else (text, "")
    return FieldViolation(f"payload{path}{below}", f"is wrong: {problem[0].lower()}{problem[1:]}")


def _refusal(violations: list[FieldViolation]) -> EventValidationException:
    text = "; ".join(f"{each.field} {each.description}" for each in violations)
    return EventValidationException(text, violations=violations)
