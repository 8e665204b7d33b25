"""What the documentation says can be done: its code runs, its commands and files exist."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.local_cluster import LocalCluster

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

_PYTHON = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_CODE = re.compile(r"^```.*?^```$|`[^`\n]+`", re.DOTALL | re.MULTILINE)
_MAKE = re.compile(r"\bmake ([a-z][a-z-]*)")
_TARGET = re.compile(r"^([a-z-]+):.*?## \S", re.MULTILINE)
_LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")

_CONFIG = """\
events:
  storage: {{base_path: {folder}/events, min_free_bytes: 0}}
  ingest: {{listen: "127.0.0.1:0", metrics_listen: "127.0.0.1:0"}}
  query: {{listen: "127.0.0.1:0", metrics_listen: "127.0.0.1:0"}}
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory):
    """The environment of a program that uses a cluster of its own: code of the documentation finds it there."""
    folder = tmp_path_factory.mktemp("docs")
    config = folder / "eventlog.yaml"
    config.write_text(_CONFIG.format(folder=folder))
    cluster = LocalCluster(
        root=ROOT, folder=folder / "cluster", config=config, services=("ingest_service", "query_service")
    )
    try:
        ingest, query = cluster.up()
        addresses = {"EVENTLOG__INGEST__LISTEN": ingest.address, "EVENTLOG__QUERY__LISTEN": query.address}
        yield {**os.environ, **addresses}
    finally:
        cluster.down()


def with_python(documents: list[Path]) -> list[Path]:
    """The documents that hold Python code."""
    return [document for document in documents if _PYTHON.search(document.read_text())]


@pytest.mark.cluster
@pytest.mark.parametrize("document", with_python(DOCUMENTS), ids=lambda path: path.name)
def test_python_code_runs(document: Path, environment: dict[str, str]):
    """The Python code of a document runs as written, from top to bottom, with a cluster beside it."""
    code = "\n".join(_PYTHON.findall(document.read_text()))
    command = [sys.executable, "-W", "error", "-c", code]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_make_targets_exist(document: Path):
    """Each make command in the code of a document is a target that `make help` lists."""
    targets = set(_TARGET.findall((ROOT / "Makefile").read_text()))
    named = {target for code in _CODE.findall(document.read_text()) for target in _MAKE.findall(code)}
    assert named - targets == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_linked_files_exist(document: Path):
    """Each file that a document links to is there."""
    links = [link for link in _LINK.findall(document.read_text()) if "://" not in link]
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_promised_make_targets_exist():
    """The Makefile has the targets of the project's frame, and the first of them is help."""
    text = (ROOT / "Makefile").read_text()
    targets = _TARGET.findall(text)
    promised = {"help", "setup", "demo", "up", "down", "test", "check", "bench", "protos", "fmt", "lint", "types"}
    assert promised <= set(targets)
    assert ".DEFAULT_GOAL := help" in text
