"""Whether a payload is one JSON object: every text for itself, whatever stands beside it."""

import json
import random
import time
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest_service.payload_check import PayloadCheck, find_deep_payloads
from shared.events.limits import PAYLOAD_DEPTH_MAX

_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**40), 10**40),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('ab{}[]"\\, ', max_size=3), inner, max_size=3),
    max_leaves=8,
)
_OBJECTS = st.builds(
    lambda value, ascii_only, indent, before, after: (
        before + json.dumps(value, ensure_ascii=ascii_only, indent=indent) + after
    ),
    st.dictionaries(st.text('abc{}"\\', max_size=3), _VALUES, max_size=3),
    st.booleans(),
    st.sampled_from([None, 1]),
    st.text(" \t\r\n", max_size=2),
    st.text(" \t\r\n", max_size=2),
)
_PIECES = st.sampled_from(
    [
        *'{}[]",:\\0123456789.eE+-untrfalsx /\x00\x0b\x0c\x7f\xa0\ufeff\u2028',
        "\\u",
        "\\ud800",
        "\\udc00",
        "NaN",
        "1e999",
    ]
)


@st.composite
def _mutated(draw: st.DrawFn) -> str:
    text = draw(_OBJECTS)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(text)))
        removed = draw(st.integers(0, 2))
        text = text[:at] + draw(st.one_of(st.just(""), _PIECES)) + text[at + removed :]
    return text


@st.composite
def _split(draw: st.DrawFn) -> list[str]:
    """Pieces that only together are objects."""
    text = ",".join(draw(st.lists(_OBJECTS, min_size=1, max_size=3)))
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=3)))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


_TEXTS = st.lists(
    st.one_of(_OBJECTS.map(lambda text: [text]), _mutated().map(lambda text: [text]), _split()), max_size=4
)


class _Object(list[Any]):
    """The pairs of an object, repeated keys included."""


def _refuse(name: str) -> None:
    raise ValueError(name)


def _strings(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    items = [part for pair in value for part in pair] if isinstance(value, _Object) else value
    return [text for item in items for text in _strings(item)] if isinstance(items, list) else []


def _is_object(text: str) -> bool:
    """What json.loads says, without what it takes beyond JSON: NaN, Infinity, halves of surrogate pairs."""
    try:
        value = json.loads(
            text, parse_constant=_refuse, parse_int=_number, parse_float=_number, object_pairs_hook=_Object
        )
        "".join(_strings(value)).encode()
    except ValueError:
        return False
    return isinstance(value, _Object)


def _number(text: str) -> int:
    return len(text)


def _invalid(texts: list[str | None]) -> list[int]:
    return [row for row, _ in PayloadCheck().find_invalid(pa.array(texts, pa.string()))]


@settings(max_examples=200)
@given(_TEXTS)
def test_exactly_the_texts_that_are_objects_by_themselves_pass(groups: list[list[str]]) -> None:
    """Each text is judged as json.loads judges it alone, whatever stands beside it."""
    texts = [text for group in groups for text in group]
    assert _invalid(list(texts)) == [row for row, text in enumerate(texts) if not _is_object(text)]


@pytest.mark.parametrize(
    "texts",
    [
        ['{"a":[1', "2]}"],
        ['{"a":1}', '{"a":[1', "2]}", "{}"],
        ['{"a":"', '"}'],
        ["{},{}", '{"a":[1', "2]}"],
        ['{},"x",{}', '{"a":[1', "2]}"],
        ['{},"x",{}', '{"a":[1', "{}]}"],
        ['{"a":[1', "{}]}", '{},"x",{}'],
        ["{", "}"],
        ["", "{}"],
        ["{}]", "[{}"],
        ["{}],[{}"],
        ['{}]}{"a":[{}'],
    ],
)
def test_texts_that_are_json_only_together_are_refused(texts: list[str]) -> None:
    """A text cannot lend a bracket or a comma to its neighbour."""
    assert _invalid(list(texts)) == [row for row, text in enumerate(texts) if text not in {"{}", '{"a":1}'}]


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        " \t\r\n{}\n ",
        '{"a":1,"a":2}',
        '{"":{}}',
        '{"n":' + "1" * 5000 + "}",
        '{"n":1e999,"m":-1E+5,"z":-0.0,"t":1e-999}',
        '{"s":"\\ud83d\\ude00 \\u0000 \\" \\\\ \\/"}',
        '{"s":"\u2028 \x7f ü 😀"}',
    ],
)
def test_unusual_objects_pass(text: str) -> None:
    """What JSON allows passes, beyond what a double or a sane producer holds."""
    assert _invalid([text, None, "{}"]) == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "[]",
        "1",
        '"a"',
        "null",
        "{}{}",
        "{},",
        "{} x",
        "\ufeff{}",
        "\x0c{}",
        "\xa0{}",
        "{}\x00",
        '{"a":NaN}',
        '{"a":Infinity}',
        '{"a":-Infinity}',
        '{"a":"\\ud800"}',
        '{"\\udc00":1}',
        '{"a":"\\ud800\\u0041"}',
        '{"a":"\x01"}',
        '{"a":"\t"}',
        '{"a":"\\x"}',
        '{"a":01}',
        '{"a":1.}',
        '{"a":.5}',
        '{"a":+1}',
        '{"a":1,}',
        "{'a':1}",
        "{a:1}",
        '{"a":1}//',
        '{"a":tru}',
        '{"a":"b',
    ],
)
def test_what_is_no_object_is_refused_alone(text: str) -> None:
    """A wrong text is named, and no other, also where the others are unusual."""
    others = ['{"s":"\\ud83d\\ude00"}', " {} ", '{"n":1e999}']
    found = list(PayloadCheck().find_invalid(pa.array([*others, text, None, *others])))
    assert [row for row, _ in found] == [3]
    assert found[0][1]


@pytest.mark.parametrize("ending", ["", "}"])
def test_a_million_keys_are_checked_in_time(ending: str) -> None:
    """A payload with very many keys costs its length, not more."""
    text = "{" + ",".join(f'"{number:x}":1' for number in range(1_000_000)) + "}" + ending
    started = time.process_time()
    assert _invalid([text]) == ([0] if ending else [])
    assert find_deep_payloads(pa.array([text])) == []
    assert time.process_time() - started < 5


@st.composite
def _nested(draw: st.DrawFn) -> tuple[str, int]:
    """An object around the allowed depth, with brackets, quotes and backslashes in strings; and its depth."""
    levels = draw(st.one_of(st.integers(1, 3), st.integers(PAYLOAD_DEPTH_MAX - 2, PAYLOAD_DEPTH_MAX + 3)))
    seed = random.Random(draw(st.integers(0, 2**32)))
    strings = st.text('{}[]"\\/a', max_size=6)
    noise = [json.dumps(draw(strings)) for _ in range(4)]
    opening, closing = '{"k":', "}"
    for _ in range(levels - 1):
        sibling = seed.choice(noise)
        if seed.random() < 0.5:
            opening, closing = f'{opening}{{{seed.choice(noise)}:[],"k":', "}" + closing
        else:
            opening, closing = f"{opening}[{sibling},{{}},", "]" + closing
    return opening + seed.choice(noise) + closing, levels


def _depth(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0


@given(st.lists(_nested(), min_size=1, max_size=6))
def test_deep_objects_are_found_exactly(nested: list[tuple[str, int]]) -> None:
    """A level too many is found, brackets in strings count nothing, and neighbours change nothing."""
    texts = [text for text, _ in nested]
    deep = [row for row, text in enumerate(texts) if _depth(json.loads(text)) > PAYLOAD_DEPTH_MAX]
    assert find_deep_payloads(pa.array([None, *texts])) == [row + 1 for row in deep]


@pytest.mark.parametrize(("opening", "closing"), [('{"a":', "}"), ("[", "]")])
def test_a_hundred_levels_pass_and_one_more_does_not(opening: str, closing: str) -> None:
    """The limit is exact for objects and for arrays."""

    def text(levels: int) -> str:
        return '{"a":' + opening * (levels - 1) + "1" + closing * (levels - 1) + "}"

    payloads = pa.array([text(PAYLOAD_DEPTH_MAX), text(PAYLOAD_DEPTH_MAX + 1), text(10_000)])
    assert find_deep_payloads(payloads) == [1, 2]
    assert list(PayloadCheck().find_invalid(payloads.slice(0, 1))) == []


def test_broken_neighbours_change_nothing() -> None:
    """Brackets that stay open, a quote that does, and a backslash at the end are their own row's business."""
    open_brackets = "[]" * 120 + "[" * 90
    open_quote = '"' + "[]" * 120
    backslash = "[]" * 120 + "\\"
    flat = '{"a":' + "[" * 50 + "[]," * 60 + "[]" + "]" * 50 + "}"
    deep = '{"a":' + "[" * 150 + "]" * 150 + "}"
    texts = [flat, open_brackets, flat, open_quote, deep, open_quote, flat, backslash, '"' + "[" * 300 + '"', deep]
    assert find_deep_payloads(pa.array(texts)) == [4, 9]


def test_brackets_in_strings_are_no_levels() -> None:
    """Escaped quotes and runs of backslashes do not end a string, and real quotes do."""
    brackets = "[" * 300
    inside = [f'{{"a":"{brackets}"}}', f'{{"a":"\\"{brackets}"}}', f'{{"a":"\\\\\\"{brackets}"}}']
    outside = [f'{{"a":"\\\\",{brackets}}}', f'{{"a":"\\\\\\\\",{brackets}}}']
    assert find_deep_payloads(pa.array([*inside, *outside])) == [3, 4]


@pytest.mark.parametrize(
    ("alphabet", "length"),
    [("[", 250), ("[", 1_600), ('[]{}"\\,:', 1_600), ('{"', 1_600), ("[]", 2**20), ('[]{}"\\,:', 2**20)],
)
def test_sixteen_megabytes_of_brackets_are_refused_in_time(alphabet: str, length: int) -> None:
    """Hostile payloads cost a fraction of a second for a whole batch."""
    chance = np.random.default_rng(1)
    soup = chance.choice(np.frombuffer(alphabet.encode(), np.uint8), 2**24).tobytes().decode()
    texts = pa.array([soup[at : at + length] for at in range(0, len(soup), length)])
    started = time.process_time()
    refused = {*find_deep_payloads(texts), *(row for row, _ in PayloadCheck().find_invalid(texts))}
    elapsed = time.process_time() - started
    assert len(refused) == len(texts)
    assert elapsed < 2, f"took {elapsed:.2f} s"
