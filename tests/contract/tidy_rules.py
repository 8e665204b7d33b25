"""The rules of style that no linter has, as functions from a source file to its problems. Pure.

They catch the gross cases; the rules of thumb are stricter (50 lines a function, 300 a module).
Where each rule applies is the business of test_tidy.
"""

import ast
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

FUNCTION_LINES_MAX = 60
MODULE_LINES_MAX = 400

# Written in two parts, so that this file does not break its own rule.
_LEFTOVERS = re.compile(r"\b(FIX" + r"ME|TO" + r"DO|XX" + r"X)\b")
_DOTTED_NAME = re.compile(r"\w+(?:\.\w+)+")

_WALL_CLOCK = {
    "time.time",
    "time.time_ns",
    "datetime.now",
    "datetime.utcnow",
    "datetime.today",
    "datetime.datetime.now",
    "datetime.datetime.utcnow",
    "datetime.datetime.today",
    "dt.datetime.now",
    "dt.datetime.utcnow",
    "dt.datetime.today",
    "date.today",
    "datetime.date.today",
    "dt.date.today",
}
_ENVIRONMENT = {"os.environ", "os.getenv", "os.environb", "os.putenv"}
_SLEEPS = {"time.sleep", "asyncio.sleep"}


@dataclass(frozen=True)
class Source:
    """A source file: its path from the project's root, and its text."""

    path: PurePosixPath
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree of a Python file."""
        return ast.parse(self.text, str(self.path))

    @property
    def module(self) -> str:
        """Dotted name of a Python file; that of its package for __init__.py."""
        parts = self.path.with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


Rule = Callable[[Source], Iterator[str]]


def long_functions(source: Source) -> Iterator[str]:
    """Functions with more lines than FUNCTION_LINES_MAX, docstring and decorators included."""
    for function in _functions(source):
        lines = (function.end_lineno or function.lineno) - function.lineno + 1
        if lines > FUNCTION_LINES_MAX:
            yield _at(source, function, f"{function.name} has {lines} lines; at most {FUNCTION_LINES_MAX}: split it")


def long_module(source: Source) -> Iterator[str]:
    """Modules with more lines than MODULE_LINES_MAX."""
    lines = source.text.count("\n")
    if lines > MODULE_LINES_MAX:
        yield f"{source.path} has {lines} lines; at most {MODULE_LINES_MAX}: split it by responsibility"


def leftovers(source: Source) -> Iterator[str]:
    """Notes to come back to something."""
    for number, line in enumerate(source.text.splitlines(), start=1):
        if found := _LEFTOVERS.search(line):
            yield f"{source.path}:{number} says {found[0]}: do it, or write an issue"


def prints(source: Source) -> Iterator[str]:
    """Calls of print."""
    for call in _calls(source):
        if isinstance(call.func, ast.Name) and call.func.id == "print":
            yield _at(source, call, "prints: log it, or return it")


def wall_clock(source: Source) -> Iterator[str]:
    """Questions to the operating system what time it is."""
    for node, name in _used(source, _WALL_CLOCK):
        yield _at(source, node, f"uses {name}: take a shared.clock.Clock")


def environment(source: Source) -> Iterator[str]:
    """Uses of the process's environment."""
    for node, name in _used(source, _ENVIRONMENT):
        yield _at(source, node, f"uses {name}: make it a key of shared.config")


def sleeps(source: Source) -> Iterator[str]:
    """Waiting for time to pass.

    asyncio.sleep(0) only lets others run, and is no sleep; neither is what `while not holds():` does in between.
    """
    imported = _imported_names(source)
    between = {
        call
        for loop in ast.walk(source.tree)
        if isinstance(loop, ast.While) and not isinstance(loop.test, ast.Constant) and len(loop.body) == 1
        for call in ast.walk(loop.body[0])
    }
    for call in _calls(source):
        name = _dotted(call.func, imported)
        given = call.args[0] if call.args else None
        if name in _SLEEPS and call not in between and not (isinstance(given, ast.Constant) and given.value == 0):
            yield _at(source, call, f"calls {name}: wait for a condition with a deadline, or use FakeClock")


def tests_without_docstring(source: Source) -> Iterator[str]:
    """Tests that do not say which behaviour they state."""
    for function in _functions(source):
        if function.name.startswith("test_") and not ast.get_docstring(function):
            yield _at(source, function, f"{function.name} has no docstring: state the behaviour in a sentence")


def module_without_docstring(source: Source) -> Iterator[str]:
    """Modules that do not say what they are for."""
    if not ast.get_docstring(source.tree):
        yield f"{source.path} has no docstring: say what it is for, its invariants, what it does not do"


def dead_modules(sources: Iterable[Source], users: Iterable[Source]) -> Iterator[str]:
    """Modules among sources that none of the users imports, nor names in a string as `python -m` would.

    Packages and __main__ modules are in use by their nature. A module does not use itself.
    """
    mentioned: dict[str, set[str]] = {}
    for user in users:
        for name in _mentioned_modules(user):
            mentioned.setdefault(name, set()).add(user.module)
    for source in sources:
        in_use = source.path.name in {"__init__.py", "__main__.py"}
        if not in_use and not mentioned.get(source.module, set()) - {source.module}:
            yield f"{source.path} is imported by nothing in the product: use it or remove it"


def _mentioned_modules(source: Source) -> Iterator[str]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = source.path.parent.parts[: len(source.path.parent.parts) - node.level + 1]
                base = ".".join([*package, base]).rstrip(".")
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _DOTTED_NAME.fullmatch(node.value):
            yield node.value


def _functions(source: Source) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def _calls(source: Source) -> Iterator[ast.Call]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call):
            yield node


def _used(source: Source, names: set[str]) -> Iterator[tuple[ast.expr, str]]:
    imported = _imported_names(source)
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute | ast.Name) and (name := _dotted(node, imported)) in names:
            yield node, name


def _imported_names(source: Source) -> dict[str, str]:
    """What names that were imported from a module stand for: `from time import time as now`."""
    return {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ImportFrom) and node.module and not node.level
        for alias in node.names
    }


def _dotted(node: ast.expr, imported: dict[str, str]) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value, imported)}.{node.attr}"
    return imported.get(node.id, node.id) if isinstance(node, ast.Name) else ""


def _at(source: Source, node: ast.stmt | ast.expr, problem: str) -> str:
    return f"{source.path}:{node.lineno} {problem}"
