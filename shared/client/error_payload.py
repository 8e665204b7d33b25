"""Payload of an error event: what was raised, where, and because of what. Pure.

    {"error_type": "builtins.ValueError", "message": "...", "context": {...},
     "frames": [{"file": "...", "line": 12, "function": "load", "code": "x = int(text)"}, ...],
     "causes": [{"relation": "cause", "error_type": ..., "message": ..., "frames": [...]}, ...]}

Frames are in the order of a traceback: the outermost call first, the line that raised last. Everything is
bounded, by the limits below; what was left out is counted ("frames_omitted", "causes_omitted"). Values of
local variables are never recorded.
"""

import sys
import traceback
from collections.abc import Iterator, Mapping
from typing import Any

FRAMES_MAX = 32
CAUSES_MAX = 8
TEXT_CHARACTERS_MAX = 4_096
CODE_CHARACTERS_MAX = 160
NOTES_MAX = 4

# Type of an error event, where the caller names no other.
ERROR_TYPE = "error.exception"


def describe_exception(error: BaseException) -> dict[str, Any]:
    """Payload of an exception, with its causes, contexts and group members, nearest first."""
    payload = _describe(error)
    causes: list[dict[str, Any]] = []
    omitted = 0
    for relation, cause in _related(error):
        if len(causes) < CAUSES_MAX:
            causes.append({"relation": relation, **_describe(cause)})
        else:
            omitted += 1
    if causes:
        payload["causes"] = causes
    if omitted:
        payload["causes_omitted"] = omitted
    return payload


def error_payload(error: BaseException | str, context: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Payload of an exception, or of a message.

    A message given while an exception is being handled carries that exception, whose own message then stands
    in "error_message". The context is what the caller adds.
    """
    if isinstance(error, BaseException):
        payload = describe_exception(error)
    else:
        handled = sys.exception()
        payload = {} if handled is None else describe_exception(handled)
        if handled is not None:
            payload["error_message"] = payload["message"]
        payload["message"] = _bounded(error, TEXT_CHARACTERS_MAX)
    if context is not None:
        payload["context"] = dict(context)
    return payload


def _related(error: BaseException) -> Iterator[tuple[str, BaseException]]:
    """Exceptions that the error follows from or consists of, each once."""
    seen = {id(error)}
    waiting = list(_next_to(error))
    while waiting:
        relation, found = waiting.pop(0)
        if id(found) in seen:
            continue
        seen.add(id(found))
        yield relation, found
        waiting.extend(_next_to(found))


def _next_to(error: BaseException) -> Iterator[tuple[str, BaseException]]:
    if error.__cause__ is not None:
        yield "cause", error.__cause__
    elif error.__context__ is not None and not error.__suppress_context__:
        yield "context", error.__context__
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            yield "member", member


def _describe(error: BaseException) -> dict[str, Any]:
    kind = type(error)
    described: dict[str, Any] = {
        "error_type": f"{kind.__module__}.{kind.__qualname__}",
        "message": _bounded(_message_of(error), TEXT_CHARACTERS_MAX),
    }
    described["frames"], omitted = _frames(error)
    if omitted:
        described["frames_omitted"] = omitted
    notes = getattr(error, "__notes__", None)
    if isinstance(notes, list) and notes:
        described["notes"] = [_bounded(str(note), TEXT_CHARACTERS_MAX) for note in notes[:NOTES_MAX]]
    return described


def _message_of(error: BaseException) -> str:
    """str(error), also where its own __str__ fails: logging an error must not raise another."""
    try:
        return str(error)
    except Exception as failure:  # noqa: BLE001 — whatever a foreign __str__ raises
        return f"<__str__ of the exception raised {type(failure).__name__}>"


def _frames(error: BaseException) -> tuple[list[dict[str, Any]], int]:
    """Frames to record, and how many were left out in the middle."""
    walked = list(traceback.walk_tb(error.__traceback__))
    omitted = max(len(walked) - FRAMES_MAX, 0)
    if omitted:
        # Where it began and where it was raised tell most; the middle is usually recursion.
        outer = FRAMES_MAX // 4
        walked = walked[:outer] + walked[outer - FRAMES_MAX :]
    summary = traceback.StackSummary.extract(iter(walked), lookup_lines=True)
    frames = [
        {
            "file": _bounded(frame.filename, CODE_CHARACTERS_MAX, keep_end=True),
            "line": frame.lineno,
            "function": _bounded(frame.name, CODE_CHARACTERS_MAX),
            "code": _bounded(frame.line or "", CODE_CHARACTERS_MAX),
        }
        for frame in summary
    ]
    return frames, omitted


def _bounded(text: str, characters_max: int, *, keep_end: bool = False) -> str:
    """The text, shortened, and with lone surrogates replaced so that it can be stored."""
    if len(text) > characters_max:
        kept = characters_max - 1
        text = "…" + text[-kept:] if keep_end else text[:kept] + "…"
    return text.encode("utf-8", "backslashreplace").decode()
