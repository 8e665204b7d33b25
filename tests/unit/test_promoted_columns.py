"""Promoted columns: which there are, what they claim, and that they agree with json_extract."""

import json

import duckdb
import pyarrow as pa
import pytest

from shared.errors import EventConfigException
from shared.log import exact_numbers
from shared.log.json_path import duckdb_path, parse_declared_path
from shared.log.promoted_paths import PATHS_MAX, choose_paths
from tests.support.promoting import promote

STRANGE_KEYS = [
    *["a.b", "$", "*", "**", "a*b", "[0]", "a[0]", "0", "12x", "é", "\U0001f600", "a b", " ", "a/b", "~", "~1"],
    *["back\\slash", "ends\\", "\n", "\x01", "#", "-", "'", "a'b", "%", "?", "@", "$.a", "/", ":", ",", "{", "}"],
    *['"', '""', '"/', 'x"*', 'q"uote', "null", "\\u0061", ""],
]


def promote_texts(*texts: str, declared=()) -> dict[tuple[tuple[str, ...], str], list[object]]:
    """Promote payloads, in two chunks; return the values by path and kind."""
    half = len(texts) // 2
    chunks = [pa.array(texts[:half], pa.string()), pa.array(texts[half:], pa.string())]
    promoted = promote(chunks, declared, sample=pa.array(texts, pa.string()))
    return {
        (column.path, column.kind): [value for array in arrays for value in array.to_pylist()]
        for column, arrays in zip(promoted.columns, promoted.arrays, strict=True)
    }


def columns_of(*texts: str) -> dict[tuple[tuple[str, ...], str], bool]:
    """Promote payloads; return the claim `only` by path and kind, `complete` being true throughout."""
    promoted = promote([pa.array(texts, pa.string())], [])
    assert all(column.complete for column in promoted.columns)
    return {(column.path, column.kind): column.only for column in promoted.columns}


def test_scalars_become_typed_columns():
    """Strings, integers, doubles and booleans get columns of their type; arrays and nulls get none."""
    payload = '{"s": "x", "i": 1, "d": 1.5, "b": true, "n": null, "l": [1], "o": {"s": "deep"}}'
    assert promote_texts(payload, payload) == {
        (("s",), "string"): ["x", "x"],
        (("i",), "integer"): [1, 1],
        (("d",), "double"): [1.5, 1.5],
        (("b",), "boolean"): [True, True],
        (("o", "s"), "string"): ["deep", "deep"],
    }


def test_kinds_of_one_path_get_a_column_each():
    """A path with several kinds has a column for each, null where the value is of another kind."""
    assert promote_texts('{"a": 1}', '{"a": "1"}', '{"a": false}', '{"a": null}', '{"a": [2]}', "{}") == {
        (("a",), "string"): [None, "1", None, None, None, None],
        (("a",), "boolean"): [None, None, False, None, None, None],
        (("a",), "integer"): [1, None, None, None, None, None],
    }


@pytest.mark.parametrize(
    ("others", "only"),
    [([], True), (["{}"], True), (['{"a": null}'], False), (['{"a": "x"}'], False), (['{"a": {}}'], False)],
)
def test_only_is_claimed_where_the_column_is_null_just_where_the_path_is_missing(others, only):
    """A missing path does not spoil `only`; a JSON null, another kind or an object does."""
    assert columns_of('{"a": 1}', '{"a": 2}', *others)[("a",), "integer"] is only


def test_rare_paths_and_kinds_stay_in_the_text():
    """A kind on one row in a hundred or fewer gets no column."""
    texts = ['{"a": 1}'] * 990 + ['{"a": "rare", "b": 1}'] * 10
    assert columns_of(*texts) == {(("a",), "integer"): False}
    texts = ['{"a": 1}'] * 980 + ['{"a": "not so rare"}'] * 20
    assert columns_of(*texts) == {(("a",), "string"): False, (("a",), "integer"): False}


def test_declared_paths_are_promoted_however_rare():
    """A declared path has a column if it occurs at all, and none if it does not."""
    texts = ["{}"] * 2999 + ['{"x": {"y": 1}}']
    found = promote_texts(*texts, declared=[("x", "y"), ("absent",)])
    assert found == {(("x", "y"), "integer"): [None] * 2999 + [1]}


def test_integers_keep_their_exactness():
    """Integers of 64 bits are exact; larger ones keep all numbers of the path out of the columns."""
    texts = [f'{{"a": {n}}}' for n in (2**53 + 1, 2**63 - 1, -(2**63), 0, -0)]
    assert promote_texts(*texts)[("a",), "integer"] == [2**53 + 1, 2**63 - 1, -(2**63), 0, 0]
    for number in (2**63, 2**64 - 1, 2**64, -(2**63) - 1, 10**400):
        assert columns_of('{"a": 1, "b": 1}', f'{{"a": {number}, "b": 1}}') == {(("b",), "integer"): True}


@pytest.mark.parametrize("number", ["1.5", "0.1", "1e3", "1E+2", "-0.0", "1.50", "1e23", "123456789012345.6", "5e-324"])
def test_exact_decimals_are_promoted(number):
    """Decimals that mean their double are promoted, also beside integers."""
    assert promote_texts(f'{{"a": {number}}}', '{"a": 2}') == {(("a",), "double"): [float(number), 2.0]}


@pytest.mark.parametrize(
    "number",
    ["0.1000000000000000055", "9007199254740993.0", "1e400", "1e-400", "1.2345678901234567890", "4e-324", "-1e999"],
)
def test_inexact_decimals_are_not_promoted(number):
    """A number that its double does not mean exactly keeps all numbers of its path out of the columns."""
    texts = ['{"a": 1.5, "b": 1.5}'] * 50 + [f'{{"a": {number}, "b": 2.5}}']
    assert columns_of(*texts) == {(("b",), "double"): True}


def test_large_integers_beside_decimals_are_not_promoted():
    """Beside a decimal, integers beyond 2^53 have no exact place."""
    assert columns_of('{"a": 1.5}', f'{{"a": {2**53}}}') == {(("a",), "double"): True}
    for number in (2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63), 2**80):
        assert columns_of('{"a": 1.5}', f'{{"a": {number}}}') == {}
        assert promote_texts('{"a": 1.5}', f'{{"a": {number}}}') == {}


def test_long_decimals_are_promoted_in_any_surroundings(monkeypatch):
    """Shortest decimals of 17 digits are promoted at once, or after a look at the row where that is needed."""
    numbers = [0.1 + 0.2, 1 / 3, 2 / 3, 1e-7 / 3, 1e22 / 7]
    texts = [json.dumps({"a": n, "s": 'quoted "a": 5', "o": {"b": n}}) for n in numbers]
    assert promote_texts(*texts)[("a",), "double"] == numbers
    twice = [f'{{"x": {{"a": 0.5}}, "a": {n!r}}}' for n in numbers]
    escaped = [f'{{"\\u0061": {n!r}, "a": 7}}' for n in numbers]
    assert promote_texts(*twice)[("a",), "double"] == numbers
    assert promote_texts(*escaped)[("a",), "double"] == numbers
    monkeypatch.setattr(exact_numbers, "SLOW_ROWS_MAX", 1)
    assert (("a",), "double") not in promote_texts(*twice)


@pytest.mark.parametrize(
    "text",
    [
        '{"\\u0061": 0.1000000000000000055, "b": {"a": 0.1}}',
        '{"b": {"a": 0.1}, "a": 0.1000000000000000055}',
        '{"s": "{\\"a\\": 0.1", "\\u0061": 0.1000000000000000055}',
        '{"a": 0.1000000000000000055, "a": 0.1}',
        '{"a"\n:\t0.1000000000000000055}',
    ],
)
def test_inexact_decimals_cannot_hide(text):
    """Escaped keys, equal keys elsewhere and quotations do not make an inexact number pass."""
    assert (("a",), "double") not in columns_of(text, text, '{"a": 0.5}')


def test_first_of_duplicate_keys_counts():
    """Of duplicate keys the first is the value, as for json_extract."""
    assert promote_texts('{"a": 1, "a": 2}', '{"a": 1.5, "a": "x"}')[("a",), "double"] == [1.0, 1.5]
    assert promote_texts('{"a": {"x": 1}, "a": {"y": 1}}', '{"a": {"y": 3}}')[("a", "y"), "integer"] == [None, 3]


def test_strings_come_out_of_their_escapes():
    """Escapes, null characters and non-ASCII text are what the JSON means."""
    values = ["plain", "", 'q"', "b\\", "n\n", "\0", "é\U0001f600", "/", "\\u0041"]
    texts = [json.dumps({"a": v}) for v in values] + [json.dumps({"a": v}, ensure_ascii=False) for v in values]
    assert promote_texts(*texts)[("a",), "string"] == values * 2


@pytest.mark.parametrize("key", STRANGE_KEYS)
def test_strange_keys_are_promoted_rightly_or_not_at_all(key):
    """Whatever the characters of a key, its column has its values and not those of other keys or of arrays."""
    decoys = {other: -1 for other in [*STRANGE_KEYS, "a", "b", "x"] if other != key}
    texts = [json.dumps({key: 7}), json.dumps(decoys), json.dumps({"x": {key: 8}, "l": [5, 6]}), "[5, 6]", "{}"]
    found = promote_texts(*texts, declared=[(key,), ("x", key), ("l", key)])
    for path, expected in [((key,), [7, None, None, None, None]), (("x", key), [None, None, 8, None, None])]:
        if duckdb_path(path) is None:
            assert (path, "integer") not in found
        else:
            assert found[path, "integer"] == expected
    assert (("l", key), "integer") not in found


def test_most_strange_keys_can_be_promoted():
    """Only the empty key and few others have no expression."""
    without = [key for key in STRANGE_KEYS if duckdb_path((key,)) is None]
    assert without == [""]
    assert duckdb_path(()) is None
    assert duckdb_path(("a",) * 17) is None


@pytest.mark.parametrize("bad", ['{"a": "\\ud800"}', "", "nonsense", '{"a": 1', "\x00"])
def test_payload_that_duckdb_cannot_parse_prevents_promotion(bad):
    """One such payload leaves the file without promoted columns: text and column must not differ."""
    texts = ['{"a": 1}'] * 5
    for chunks in ([[*texts, bad]], [texts, [*texts, bad], texts], [texts, texts, [bad]]):
        assert promote([pa.array(chunk) for chunk in chunks], [("a",)]).columns == ()


def test_at_most_64_paths_are_chosen_the_declared_first():
    """Of more paths the declared ones and the most frequent are kept."""
    often = json.dumps({f"k{n:02}": n for n in range(PATHS_MAX)})
    more = json.dumps({f"k{n:02}": n for n in range(PATHS_MAX + 20)})
    paths = choose_paths([pa.array([often] * 9 + [more])], [("declared",)])
    assert paths == [("declared",), *((f"k{n:02}",) for n in range(PATHS_MAX - 1))]


def test_hostile_payloads_are_sampled_within_bounds():
    """Very many keys, deep nesting and very long payloads neither fail nor yield endless paths."""
    many = json.dumps({f"key{n}": n for n in range(50_000)})
    wide = json.dumps({f"key{n}": n for n in range(5_000)})
    deep = '{"a":' * 90 + "1" + "}" * 90
    texts = [many, wide, deep, '{"a": "' + "x" * 100_000 + '"}']
    assert len(choose_paths([pa.array(texts)], [])) <= PATHS_MAX
    assert promote([pa.array(texts)], []).columns is not None


def test_no_payloads_have_no_columns():
    """An empty file has no promoted columns."""
    assert promote([], [("a",)]).columns == ()


def _later(*texts: str, declared=(), sample=()) -> tuple[dict[tuple[tuple[str, ...], str], list[object]], bool]:
    """Promote 100 times {"a": 1}, then payloads; return the values of these, and whether the choice was revised."""
    chunks = [pa.array(['{"a": 1}'] * 100), pa.array(texts)]
    promoted = promote(chunks, declared, sample=pa.array(sample, pa.string()) if sample else None)
    return {
        (column.path, column.kind): arrays[1].to_pylist()
        for column, arrays in zip(promoted.columns, promoted.arrays, strict=True)
    }, promoted.revised


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"a": 7}', {(("a",), "integer"): [7]}),
        ("{}", {(("a",), "integer"): [None]}),
        ('{"a": "x"}', {(("a",), "integer"): [None]}),
        ('{"b": 1}', {(("a",), "integer"): [None]}),
    ],
)
def test_later_chunks_that_fit_are_extracted_once(text, found):
    """Whatever has a place in the columns of the first chunk, or is of another kind, changes no column."""
    assert _later(text) == (found, False)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"a": 1.5}', {(("a",), "double"): [1.5]}),
        ('{"a": 18446744073709551616}', {}),
        ('{"a": 0.1000000000000000055}', {}),
    ],
)
def test_numbers_that_do_not_fit_revise_the_choice(text, found):
    """Then all numbers of the path get a column in which each is exact, or none gets one."""
    assert _later(text) == (found, True)


def test_declared_paths_that_come_late_revise_the_choice():
    """They are promoted wherever they occur, and with every kind."""
    late = {(("a",), "integer"): [None], (("b",), "string"): ["x"]}
    assert _later('{"b": "x"}', declared=[("b",)]) == (late, True)
    assert _later('{"b": "x"}') == ({(("a",), "integer"): [None]}, False)


def test_a_sample_of_what_comes_later_helps_to_choose():
    """A path that the first chunk lacks is promoted at once."""
    late = {(("a",), "integer"): [None], (("b",), "string"): ["x"]}
    assert _later('{"b": "x"}', sample=['{"b": "y"}'] * 5) == (late, False)
    assert _later('{"a": 0.5}', sample=['{"a": 1.5}']) == ({(("a",), "double"): [0.5]}, False)


def test_columns_claim_only_what_all_chunks_hold():
    """Whether a path has values of one kind only is known at the end."""
    promoted = promote([pa.array(['{"a": 1}'] * 5), pa.array(['{"a": null}'])], [])
    assert [(column.path, column.only) for column in promoted.columns] == [(("a",), False)]


def test_column_equals_json_extract():
    """Each column equals what json_extract finds, cast, where the kind is that of the column."""
    texts = [
        json.dumps({"a": [n, n / 7, str(n), n % 2 == 0, None][n % 5], "b": {"c": "x\ty" * (n % 3)}}) for n in range(500)
    ]
    kinds = {
        "string": (["VARCHAR"], "json_extract_string(t, ?)"),
        "boolean": (["BOOLEAN"], "CAST(json_extract(t, ?) AS BOOLEAN)"),
        "double": (["DOUBLE", "BIGINT", "UBIGINT"], "CAST(json_extract(t, ?) AS DOUBLE)"),
    }
    with duckdb.connect() as connection:
        connection.register("payloads", pa.table({"t": texts}))
        promoted = promote([pa.array(texts)], [])
        assert len(promoted.columns) == 4
        for column, (values,) in zip(promoted.columns, promoted.arrays, strict=True):
            types, expression = kinds[column.kind]
            path = duckdb_path(column.path)
            sql = f"SELECT CASE WHEN json_type(t, ?) IN {tuple(types)} THEN {expression} END FROM payloads"
            rows = connection.execute(sql.replace("('VARCHAR',)", "('VARCHAR')"), [path, path]).fetchall()
            assert [row[0] for row in rows] == values.to_pylist()


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("duration_ms", ("duration_ms",)),
        ("payload.user.id", ("user", "id")),
        ('"http.status"', ("http.status",)),
        ('payload.a."b.c".d', ("a", "b.c", "d")),
    ],
)
def test_declared_paths_are_parsed(text, path):
    """Dots separate keys, quotation marks keep a key together, `payload.` in front is optional."""
    assert parse_declared_path(text) == path


@pytest.mark.parametrize("text", ["", "payload.", "a..b", ".a", "a.", '"a', '"a"b', '""', ".".join("a" * 17)])
def test_malformed_declared_paths_are_refused(text):
    """A path of the configuration that is none raises EventConfigException that says how to write it."""
    with pytest.raises(EventConfigException, match="separated by dots"):
        parse_declared_path(text)
