"""The project keeps its own rules of style, and each rule can fail."""

from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

import pytest

from tests.contract import tidy_rules
from tests.contract.tidy_rules import Rule, Source

ROOT = Path(__file__).parents[2]
PACKAGES = ("ingest_service", "query_service", "stream_service", "analysis_service", "shared")
EVERYWHERE = (*PACKAGES, "deploy", "tests")
TEXTS = ("*.py", "*.proto", "*.md", "*.yaml", "*.toml")

# Each rule, the folders it holds for, and the files below them that exist to do what it forbids.
RULES: list[tuple[Rule, tuple[str, ...], tuple[str, ...]]] = [
    (tidy_rules.long_functions, EVERYWHERE, ()),
    # One file of tests for one of the source, however many cases that has.
    (tidy_rules.long_module, (*PACKAGES, "deploy"), ()),
    (tidy_rules.module_without_docstring, EVERYWHERE, ()),
    (tidy_rules.wall_clock, EVERYWHERE, ("shared/clock.py",)),
    (tidy_rules.environment, (*PACKAGES, "deploy"), ("shared/config",)),
    (tidy_rules.prints, PACKAGES, ()),
    # Benchmarks measure over time, and may let it pass.
    (tidy_rules.sleeps, ("tests",), ("tests/benchmarks",)),
    (tidy_rules.tests_without_docstring, ("tests",), ()),
]

# What breaks each rule, at the path "shared/bad.py".
BREACHES = {
    tidy_rules.long_functions: "def f():\n" + "    g()\n" * tidy_rules.FUNCTION_LINES_MAX,
    tidy_rules.long_module: "a = 1\n" * (tidy_rules.MODULE_LINES_MAX + 1),
    tidy_rules.module_without_docstring: "a = 1\n",
    tidy_rules.wall_clock: "import datetime as dt\n\nprint(dt.datetime.now(dt.UTC))\n",
    tidy_rules.environment: "from os import environ as e\n\na = e['HOME']\n",
    tidy_rules.prints: "def f():\n    print('hello')\n",
    tidy_rules.sleeps: "import asyncio\n\nasync def f():\n    while True:\n        await asyncio.sleep(0.1)\n",
    tidy_rules.tests_without_docstring: "class A:\n    async def test_b(self):\n        pass\n",
    tidy_rules.leftovers: "a = 1  # " + "TO" + "DO later\n",
}


@pytest.mark.parametrize(("rule", "folders", "exempt"), RULES, ids=[rule.__name__ for rule, _, _ in RULES])
def test_project_keeps_rule(rule: Rule, folders: tuple[str, ...], exempt: tuple[str, ...]):
    """No Python file of the project breaks the rule."""
    sources = [source for source in python_sources(*folders) if not str(source.path).startswith(exempt or ("\0",))]
    fail_on(problem for source in sources for problem in rule(source))


def test_project_has_no_leftovers():
    """No text of the project says that something is still to be done."""
    paths = [path for pattern in TEXTS for path in ROOT.glob(pattern)]
    paths += [path for folder in (*EVERYWHERE, "protos", "docs") for path in files(folder, *TEXTS)]
    fail_on(problem for path in paths for problem in tidy_rules.leftovers(read(path)))


def test_project_has_no_dead_modules():
    """Each module of the product is used by the product; being tested is not enough."""
    product = list(python_sources(*PACKAGES, "deploy"))
    fail_on(tidy_rules.dead_modules(product, product))


@pytest.mark.parametrize(("rule", "text"), BREACHES.items(), ids=[rule.__name__ for rule in BREACHES])
def test_rule_finds_breach(rule: Rule, text: str):
    """Each rule finds what it forbids, says where, and finds it once."""
    problems = list(rule(Source(PurePosixPath("shared/bad.py"), text)))
    assert len(problems) == 1
    assert problems[0].startswith("shared/bad.py")


@pytest.mark.parametrize("rule", BREACHES, ids=lambda rule: rule.__name__)
def test_rule_accepts_tidy_module(rule: Rule):
    """A tidy module breaks no rule."""
    text = (
        '"""Purpose."""\n\nimport asyncio\n\n\nasync def test_a():\n    """It yields."""\n    await asyncio.sleep(0)\n'
    )
    assert list(rule(Source(PurePosixPath("shared/good.py"), text))) == []


def test_every_rule_is_applied():
    """No rule of tidy_rules is forgotten here."""
    applied = {rule for rule, _, _ in RULES} | {tidy_rules.leftovers}
    assert applied == set(BREACHES)


def test_dead_module_is_found():
    """A module that nothing imports is dead, also if it imports itself; relative imports and strings count as use."""
    texts = {
        "shared/__init__.py": "from . import used\n",
        "shared/used.py": "import shared.also_used\n",
        "shared/also_used.py": "COMMAND = ['python', '-m', 'shared.run_by_name']\n",
        "shared/run_by_name.py": "",
        "shared/dead.py": "import shared.dead\n",
    }
    sources = [Source(PurePosixPath(path), text) for path, text in texts.items()]
    assert [problem.split()[0] for problem in tidy_rules.dead_modules(sources, sources)] == ["shared/dead.py"]


def fail_on(problems: Iterable[str]) -> None:
    """Fail where there are problems, and show all of them."""
    if shown := "\n".join(problems):
        pytest.fail(shown, pytrace=False)


def python_sources(*folders: str) -> Iterator[Source]:
    """Every Python file below the folders."""
    for folder in folders:
        yield from (read(path) for path in files(folder, "*.py"))


def files(folder: str, *patterns: str) -> list[Path]:
    """Files below a folder of the project."""
    return sorted(path for pattern in patterns for path in (ROOT / folder).rglob(pattern))


def read(path: Path) -> Source:
    """Read a file of the project."""
    return Source(PurePosixPath(path.relative_to(ROOT).as_posix()), path.read_text())
