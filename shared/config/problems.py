"""Says in words what pydantic found wrong: path of the key, value, and what to write instead. Pure."""

from collections.abc import Iterator
from typing import Any, TypeAlias, TypeGuard

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from shared.config.model import EventConfig
from shared.suggestion import did_you_mean

ROOT = "events"

# Name of the environment variable that gave the value at a path below ROOT.
Origins: TypeAlias = dict[tuple[str, ...], str]

_VALUE_CHARACTERS_MAX = 100


def describe(error: ValidationError, origins: Origins) -> list[str]:
    """One line for each problem, in the order of the sections."""
    return [_line(each, origins) for each in error.errors(include_url=False)]


def known_keys(model: type[BaseModel] = EventConfig, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of each key below ROOT that takes a value; sections do not."""
    for name, field in model.model_fields.items():
        if _is_section(field.annotation):
            yield from known_keys(field.annotation, (*above, name))
        else:
            yield (*above, name)


def _line(error: ErrorDetails, origins: Origins) -> str:
    path, context = error["loc"], error.get("ctx", {})
    if error["type"] == "relation":
        path = (*path, context["key"])
    return f"{_dotted(path)}{_origin(path, origins)} {_what(error, path)}"


def _what(error: ErrorDetails, path: tuple[Any, ...]) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind in {"extra_forbidden", "invalid_key"}:
        return f"is not known{_nearest(path)}"
    if path[-1] == "[key]":
        return f"is no pattern; write {context['expected']}"
    shown = _shown(context.get("value", error["input"]))
    if kind in {"kind", "relation"}:
        return f"is {shown}; write {context['expected']}"
    if kind in {"model_type", "model_attributes_type"}:
        return f"is {shown}; write keys below it: {', '.join(_section(path).model_fields)}"
    if kind == "dict_type":
        return f"is {shown}; write entries below it, such as error: 365d"
    return f"is {shown}: {error['msg']}"


def _nearest(path: tuple[Any, ...]) -> str:
    """The nearest known key, in the same section first, else one of the same name in another."""
    name = str(path[-1])
    here = list(_section(path[:-1]).model_fields)
    suggestion = did_you_mean(name, here)
    if not suggestion.startswith("; did you mean"):
        for other in known_keys():
            if other[-1] == name.lower():
                return f"; did you mean {_dotted(other)}?"
    return suggestion


def _section(path: tuple[Any, ...]) -> type[BaseModel]:
    model: type[BaseModel] = EventConfig
    for name in path:
        annotation = model.model_fields[name].annotation
        assert _is_section(annotation), path
        model = annotation
    return model


def _dotted(path: tuple[Any, ...]) -> str:
    return ".".join([ROOT, *(str(part) for part in path if part != "[key]")])


def _origin(path: tuple[Any, ...], origins: Origins) -> str:
    names = [name for origin, name in origins.items() if origin[: len(path)] == path or origin == path[:-1]]
    return f" (from {', '.join(names)})" if names else ""


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _VALUE_CHARACTERS_MAX else text[:_VALUE_CHARACTERS_MAX] + "…"


def _is_section(annotation: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
