"""Filters evaluated in the most naive way, to compare the real evaluators with: slow, plain, one step at a time.

It shares only the syntax tree with them: JSON, numbers, patterns and compact text are read anew, by other means.
"""

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import re2  # type: ignore[import-untyped]

from shared.filters import tree as t

NOTHING = object()


def reference_holds(tree: t.Tree, event: Mapping[str, Any], now_ns: int) -> bool:
    """Whether a filter holds for an event: a row of EVENT_SCHEMA with times in nanoseconds, and its id."""
    if isinstance(tree, t.And):
        return all(reference_holds(operand, event, now_ns) for operand in tree.operands)
    if isinstance(tree, t.Or):
        return any(reference_holds(operand, event, now_ns) for operand in tree.operands)
    if isinstance(tree, t.Not):
        return not reference_holds(tree.operand, event, now_ns)
    if isinstance(tree, t.Everything):
        return True
    return _leaf(tree, _find(tree.field, event), now_ns)


def _find(field: t.Field, event: Mapping[str, Any]) -> Any:
    """The value of a field; the whole payload is its compact text."""
    if field.name != "payload":
        value = event[field.name.rpartition(".")[2]]
        return NOTHING if value is None else value
    if not field.path:
        return compact(event["payload"])
    value = parse(event["payload"])
    for segment in field.path:
        if isinstance(segment, str):
            if not isinstance(value, Object) or segment not in value.values:
                return NOTHING
            value = value.values[segment]
        else:
            if not isinstance(value, list) or segment >= len(value):
                return NOTHING
            value = value[segment]
    return value


def _leaf(leaf: t.Leaf, found: Any, now_ns: int) -> bool:
    if isinstance(leaf, t.Exists):
        return found is not NOTHING
    if isinstance(leaf, t.IsNull):
        return (found is NOTHING or found is None) != leaf.negated
    if isinstance(leaf, t.Comparison):
        return _compare(found, leaf.operator, leaf.value, now_ns)
    if isinstance(leaf, t.In):
        equal = any(_compare(found, "=", value, now_ns) for value in leaf.values)
        comparable = any(_compare(found, "!=", value, now_ns) for value in leaf.values)
        return (comparable and not equal) if leaf.negated else equal
    if isinstance(leaf, t.Between):
        if leaf.negated:
            return _compare(found, "<", leaf.low, now_ns) or _compare(found, ">", leaf.high, now_ns)
        return _compare(found, ">=", leaf.low, now_ns) and _compare(found, "<=", leaf.high, now_ns)
    if isinstance(leaf, t.Contains):
        return _contains(found, leaf)
    if not isinstance(found, str):
        return False
    if isinstance(leaf, t.Like):
        return like(leaf.pattern, found, ignore_case=leaf.ignore_case) != leaf.negated
    options = re2.Options()
    options.log_errors = False
    return (re2.compile(leaf.pattern, options).search(_utf8(found)) is not None) != leaf.negated


def _contains(found: Any, leaf: t.Contains) -> bool:
    if isinstance(found, list):
        return any(_compare(element, "=", leaf.value, 0) for element in found) != leaf.negated
    if isinstance(found, str) and isinstance(leaf.value, t.Text):
        return (leaf.value.value in found) != leaf.negated
    return False


def _compare(found: Any, operation: str, literal: t.Value, now_ns: int) -> bool:
    if isinstance(literal, t.Now):
        literal = t.Instant(now_ns + literal.offset_ns)
    wanted: Any = literal.ns if isinstance(literal, t.Instant) else literal.value
    if isinstance(literal, t.Boolean):
        comparable = isinstance(found, bool)
    elif isinstance(literal, t.Text):
        comparable = isinstance(found, str)
        if comparable:
            found, wanted = [ord(each) for each in found], [ord(each) for each in wanted]
    else:
        comparable = isinstance(found, int | Decimal) and not isinstance(found, bool)
    if not comparable:
        return False
    if operation in {"=", "!="}:
        return (found == wanted) == (operation == "=")
    if operation in {"<", "<="}:
        return found < wanted or (operation == "<=" and found == wanted)
    return found > wanted or (operation == ">=" and found == wanted)


class Object:
    """A JSON object: of equal keys the first."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        self.values: dict[str, Any] = {}
        for key, value in pairs:
            if key not in self.values:
                self.values[key] = value


def parse(text: str) -> Any:
    """Parse JSON with exact numbers."""
    return json.loads(text, object_pairs_hook=Object, parse_int=_number, parse_float=_number)


def _number(text: str) -> Decimal:
    """A number; one with an exponent beyond all literals is infinite, or closer to 0 than any of them."""
    mantissa, _, exponent = text.lower().partition("e")
    if len(exponent) < 10:
        return Decimal(text)
    if Decimal(mantissa) == 0:
        return Decimal(0)
    size = "1e-100000" if exponent[0] == "-" else "Infinity"
    return Decimal(f"{'-' if mantissa[0] == '-' else ''}{size}")


def compact(text: str) -> str:
    """JSON text without white space outside of strings, character by character."""
    kept = []
    in_string = escaped = False
    for character in text:
        if in_string or character not in " \t\r\n":
            kept.append(character)
        if escaped:
            escaped = False
        elif in_string and character == "\\":
            escaped = True
        elif character == '"':
            in_string = not in_string
    return "".join(kept)


def like(pattern: str, text: str, *, ignore_case: bool) -> bool:
    """Match a pattern of LIKE by trying every way."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(like(pattern[1:], text[start:], ignore_case=ignore_case) for start in range(len(text) + 1))
    if not text:
        return False
    if pattern[0] == "?":
        return like(pattern[1:], text[1:], ignore_case=ignore_case)
    wanted, rest = (pattern[1], pattern[2:]) if pattern[0] == "\\" else (pattern[0], pattern[1:])
    same = bool(re2.fullmatch(f"(?i){re2.escape(wanted)}", _utf8(text[0]))) if ignore_case else wanted == text[0]
    return same and like(rest, text[1:], ignore_case=ignore_case)


def _utf8(text: str) -> bytes:
    """The text as RE2 takes it, half surrogate pairs too, which are no characters for it."""
    return text.encode("utf-8", "surrogatepass")
