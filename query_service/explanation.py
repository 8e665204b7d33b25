"""What a filter means and what it would read, for people to look at."""

import contextlib
import re
from dataclasses import dataclass

from query_service.planner import Decision
from query_service.question import Question
from query_service.reading import Engine
from query_service.walk import Walk
from shared.errors import LogCorrupted
from shared.filters.printer import print_filter
from shared.filters.sql import to_sql
from shared.filters.tree import And, Everything, Not, Or, Tree
from shared.log.committed_position import Committed
from shared.log.types import Position

# Segments that are told about, the newest.
SEGMENTS_MAX = 1_000
_PARAMETER = re.compile(r"\$f\d+")


@dataclass(frozen=True, slots=True)
class Explanation:
    """A filter in brackets, as a drawing of its tree, as SQL; and what becomes of each segment."""

    normalized: str
    tree: str
    sql: str
    segments: list[Decision]


def explain(engine: Engine, question: Question, committed: Committed) -> Explanation:
    """Explain a question, without reading any event. Raises OSError, PositionTrimmed."""
    walk = Walk(engine.reader, question, committed)
    decisions, at = [], question.first or engine.reader.first_position()
    while at < question.until:
        try:
            decision = walk.decision_from(at, until=question.until)
        except LogCorrupted as damage:
            # Positions of no segment: there is nothing to decide about.
            at = Position(int(damage.metadata["last_position"]) + 1)
            continue
        if decision is None:
            break
        decisions.append(decision)
        at = decision.until
    return Explanation(
        normalized=print_filter(question.tree),
        tree=draw(question.tree),
        sql=_PARAMETER.sub("?", to_sql(question.tree, log_id=question.log_id).text),
        segments=decisions[-SEGMENTS_MAX:],
    )


def promoted_paths(engine: Engine, committed: Committed) -> tuple[tuple[str, ...], ...]:
    """The payload paths that the newest sealed segment has as columns: those that are frequent. Raises OSError."""
    for span in reversed(engine.reader.segments(committed)):
        for name in span.files.sealed if span.files.is_sealed else ():
            with contextlib.suppress(FileNotFoundError):
                footer = engine.reader.files.footer(name)
                if footer is not None and footer.metadata.promoted:
                    return tuple(dict.fromkeys(column.path for column in footer.metadata.promoted))
    return ()


def draw(tree: Tree) -> str:
    """Draw a tree, a line a node."""
    return "\n".join(_lines(tree, "", ""))


def _lines(tree: Tree, lead: str, below: str) -> list[str]:
    if isinstance(tree, And | Or):
        lines = [f"{lead}{'AND' if isinstance(tree, And) else 'OR'}"]
        for number, operand in enumerate(tree.operands, start=1):
            last = number == len(tree.operands)
            lines += _lines(operand, below + ("└─ " if last else "├─ "), below + ("   " if last else "│  "))
        return lines
    if isinstance(tree, Not):
        return [f"{lead}NOT", *_lines(tree.operand, f"{below}└─ ", f"{below}   ")]
    return [f"{lead}{'everything' if isinstance(tree, Everything) else print_filter(tree)}"]
