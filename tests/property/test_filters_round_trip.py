"""Trees print as expressions that read as the same trees, and no text makes the parser fail in another way."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared.errors import EventFilterException
from shared.filters import tree as t
from shared.filters.parser import parse_filter
from shared.filters.printer import print_filter
from shared.filters.problems import EXCERPT_BYTES_MAX
from tests.support import filter_strategies as fs

TOKENS = [
    *("type", "payload.a", "payload", "timestamp", "metadata.tags", "=", "!=", "<>", "<", ">=", "LIKE", "not", "IN"),
    *("between", "AND", "or", "(", ")", ",", "'a'", '"b"', "1", "-1.5e3", "TRUE", "null", "now()", "- 15m", "EXISTS"),
    *(
        "IS",
        "CONTAINS",
        "matches",
        "'",
        '"',
        ".",
        "[0]",
        "[-1]",
        "\n",
        " ",
        "\\",
        "$",
        ";",
        "--",
        "\x00",
        "é",
        "1e99999",
    ),
]


@settings(max_examples=200)
@given(fs.trees)
@example(t.Comparison(t.Field("payload", ("",)), "=", t.Text("it's")))
@example(t.Comparison(t.Field("timestamp"), "<", t.Now(-1_500_000_000)))
def test_printed_tree_reads_as_the_same_tree(tree):
    """parse(print(tree)) == tree, and it prints alike."""
    again = parse_filter(print_filter(tree))
    assert again == tree
    assert print_filter(again) == print_filter(tree)


@settings(max_examples=300)
@given(st.lists(st.sampled_from(TOKENS) | st.text(max_size=3), max_size=12), st.sampled_from(["", " "]))
def test_any_text_is_read_or_refused_with_its_place(pieces, between):
    """Whatever is written: a tree that prints and reads again, or an error with line and column inside the text."""
    read_or_refuse(between.join(pieces))


@settings(max_examples=200)
@given(fs.trees.map(print_filter), st.integers(0), st.integers(0, 3), st.sampled_from(TOKENS) | st.text(max_size=2))
def test_damaged_expression_is_read_or_refused_with_its_place(expression, at, removed, inserted):
    """An expression with some characters taken out and others put in, anywhere."""
    start = at % (len(expression) + 1)
    read_or_refuse(expression[:start] + inserted + expression[start + removed :])


def read_or_refuse(text: str) -> None:
    refusal = None
    try:
        tree = parse_filter(text)
    except EventFilterException as error:
        refusal = error
    if refusal is None:
        assert parse_filter(print_filter(tree)) == tree
    else:
        check_place(text, refusal)


def check_place(text: str, refusal: EventFilterException) -> None:
    assert refusal.reason == "INVALID_FILTER" or "limit" in refusal.metadata
    lines = text.split("\n")
    line, column = int(refusal.metadata["line"]), int(refusal.metadata["column"])
    assert 1 <= line <= len(lines)
    assert 1 <= column <= len(lines[line - 1]) + 1
    assert refusal.metadata.get("expected") or refusal.metadata.get("limit")
    assert refusal.metadata["excerpt"].split("\n")[1].strip("^ ") == ""
    assert len(refusal.metadata["excerpt"].encode()) <= EXCERPT_BYTES_MAX
