"""The grammar of filter expressions, and the lark parser that is built of it.

The parser reads the structure. What fields, literals and operators mean together is up to the callbacks
(`semantics`), which it calls while it reads: no tree of tokens comes between, and nothing recurses, so
that hostile nesting costs nothing.
"""

import contextlib
import functools
from typing import Any

from lark import Lark, UnexpectedInput

from shared.filters.semantics import Part, SyntaxCallbacks

_GRAMMAR = r"""
start: disjunction?
disjunction: conjunction (_OR conjunction)*
conjunction: _term (_AND _term)*
_term: negation | group | _comparison
negation: NOT _term
group: LPAR disjunction _RPAR

_comparison: comparison | like | contains | matches | in_list | between | is_null | exists
comparison: FIELD OPERATOR _literal
like: FIELD [NOT] (LIKE | ILIKE) STRING
contains: FIELD [NOT] CONTAINS _literal
matches: FIELD [NOT] MATCHES STRING
in_list: FIELD [NOT] IN LPAR _literal (_COMMA _literal)* _RPAR
between: FIELD [NOT] BETWEEN _literal _AND _literal
is_null: FIELD IS [NOT] NULL
exists: _EXISTS FIELD

_literal: string | number | boolean | null | now
string: STRING
number: NUMBER
boolean: TRUE | FALSE
null: NULL
now: NOW [SIGN DURATION]

FIELD: /[^\W\d][\w$@-]*(?:\.[\w$@-]+|\."(?:[^"]|"")*"|\[-?[0-9]+\])*/
OPERATOR: "=" | "!=" | "<>" | "<=" | ">=" | "<" | ">"
STRING: /'(?:[^']|'')*'|"(?:[^"]|"")*"/
NUMBER: /[+-]?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?![\w.])/
DURATION: /[0-9]+(?:ms|[smhd])(?!\w)/
SIGN: /[+-]/
LPAR: "("
_RPAR: ")"
_COMMA: ","
NOW.2: /now\s*\(\s*\)/i
_OR.2: /or(?!\w)/i
_AND.2: /and(?!\w)/i
NOT.2: /not(?!\w)/i
LIKE.2: /like(?!\w)/i
ILIKE.2: /ilike(?!\w)/i
CONTAINS.2: /contains(?!\w)/i
MATCHES.2: /matches(?!\w)/i
IN.2: /in(?!\w)/i
BETWEEN.2: /between(?!\w)/i
IS.2: /is(?!\w)/i
NULL.2: /null(?!\w)/i
TRUE.2: /true(?!\w)/i
FALSE.2: /false(?!\w)/i
_EXISTS.2: /exists(?!\w)/i

%import common.WS
%ignore WS
"""

# What to call the tokens that may come next, in the order of naming them.
_PHRASES = {
    "FIELD": "a field",
    "_EXISTS": "EXISTS",
    "OPERATOR": "a comparison (= != < <= > >= LIKE ILIKE CONTAINS MATCHES IN BETWEEN IS NULL)",
    "NOT": "NOT",
    "LIKE": "LIKE",
    "ILIKE": "ILIKE",
    "CONTAINS": "CONTAINS",
    "MATCHES": "MATCHES",
    "IN": "IN",
    "BETWEEN": "BETWEEN",
    "STRING": "a string in quotes",
    "NUMBER": "a number",
    "TRUE": "TRUE",
    "FALSE": "FALSE",
    "NOW": "now()",
    "NULL": "NULL",
    "SIGN": "+ or - and a duration",
    "DURATION": "a duration such as 15m, 2h, 7d, 30s or 500ms",
    "LPAR": "(",
    "_RPAR": ")",
    "_COMMA": "a comma",
    "_AND": "AND",
    "_OR": "OR",
    "$END": "the end",
}
# OPERATOR stands for all that a field can be followed by; a literal can be NULL only to be told better.
_IMPLIED = {
    "OPERATOR": {"NOT", "LIKE", "ILIKE", "CONTAINS", "MATCHES", "IN", "BETWEEN"},
    "STRING": {"NULL"},
}


def parse_structure(text: str) -> Part:
    """Read an expression. Raises lark.UnexpectedInput, and what the callbacks raise."""
    part: Part = _parser().parse(text)
    return part


def describe_expected(text: str) -> str:
    """Return words for what may come where the expression goes wrong."""
    reader = _parser().parse_interactive(text)
    with contextlib.suppress(UnexpectedInput):
        reader.exhaust_lexer()
    terminals = reader.accepts()
    implied = set().union(*(names for head, names in _IMPLIED.items() if head in terminals))
    phrases = [phrase for name, phrase in _PHRASES.items() if name in terminals and name not in implied]
    return " or ".join([", ".join(phrases[:-1]), phrases[-1]] if len(phrases) > 1 else phrases)


@functools.cache
def _parser() -> Any:
    """Build the parser, once in a process. It has no state, so threads can share it."""
    return Lark(_GRAMMAR, parser="lalr", lexer="contextual", maybe_placeholders=True, transformer=SyntaxCallbacks())
