"""The dependency rules of pyproject.toml are kept by `make lint`; here: each of them can be broken."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]

# For each contract a line that breaks it, and the module that it is added to.
BREACHES = {
    "services stand above shared, shared above the generated stubs": ("shared/clock.py", "import query_service"),
    "the storage engine knows neither the wire nor the loop": ("shared/log/frame.py", "import asyncio"),
    "only the edges know protobuf and grpc": ("shared/events/model.py", "from google.protobuf import message"),
    "only ingest writes the log": ("query_service/servicer.py", "import shared.log.log_writer"),
}


def test_each_dependency_rule_can_be_broken(tmp_path: Path):
    """lint-imports refuses one breach of each contract, and names the contract."""
    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    assert {contract["name"] for contract in configuration["contracts"]} == set(BREACHES)
    for package in configuration["root_packages"]:
        source = ROOT / ("build/stubs" if package == "eventlog" else "") / package
        shutil.copytree(source, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for path, line in BREACHES.values():
        with (tmp_path / path).open("a") as file:
            file.write(f"\n{line}\n")

    # Run like this, Python looks for modules in the current folder first: it is the copy that is judged.
    lint = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as lint; lint()", "--no-cache"]
    result = subprocess.run(lint, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert result.returncode == 1, result.stdout + result.stderr
    summary = " ".join(result.stdout.split())
    assert [name for name in BREACHES if f"{name} BROKEN" not in summary] == []
