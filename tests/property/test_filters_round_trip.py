"""Trees print as expressions that read as the same trees, and no text makes the parser fail in another way."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared.errors import EventFilterException
from shared.filters import tree as t
from shared.filters.parser import parse_filter
from shared.filters.printer import print_filter
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


@settings(max_examples=400)
@given(fs.trees)
@example(t.Comparison(t.Field("payload", ("",)), "=", t.Text("it's")))
@example(t.Comparison(t.Field("timestamp"), "<", t.Now(-1_500_000_000)))
def test_printed_tree_reads_as_the_same_tree(tree):
    """parse(print(tree)) == tree."""
    assert parse_filter(print_filter(tree)) == tree


@settings(max_examples=400)
@given(st.lists(st.sampled_from(TOKENS) | st.text(max_size=3), max_size=12), st.sampled_from(["", " "]))
def test_any_text_is_read_or_refused_with_its_place(pieces, between):
    """Whatever is written: a tree that prints and reads again, or an error with line and column inside the text."""
    text = between.join(pieces)
    try:
        tree = parse_filter(text)
    except EventFilterException as raised:
        error = raised
    else:
        assert parse_filter(print_filter(tree)) == tree
        return
    assert error.reason == ("FILTER_NUMBER_OUT_OF_RANGE" if "limit" in error.metadata else "INVALID_FILTER")
    lines = text.split("\n")
    line, column = int(error.metadata["line"]), int(error.metadata["column"])
    assert 1 <= line <= len(lines)
    assert 1 <= column <= len(lines[line - 1]) + 1
    assert error.metadata.get("expected") or error.metadata.get("limit")
