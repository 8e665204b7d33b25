"""What the protos say about errors is what the code does, and the stubs are never part of the project."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from eventlog.v1 import error_reason_pb2

ROOT = Path(__file__).parents[2]
PACKAGES = ("ingest_service", "query_service", "stream_service", "analysis_service", "shared")
PROTOS = sorted((ROOT / "protos").rglob("*.proto"))

REASON_VALUES = error_reason_pb2.ErrorReason.DESCRIPTOR.values
REASONS = {value.name.removeprefix("ERROR_REASON_") for value in REASON_VALUES} - {"UNSPECIFIED"}
CODES = {code.name for code in grpc.StatusCode}

# "Errors: ABORTED (EXPECTED_POSITION_MISMATCH), ..." in the comment above an rpc.
_RPC = re.compile(r"((?:^ *//.*\n)+) *rpc (\w+)\(", re.MULTILINE)
_UPPER_WORD = re.compile(r"\b[A-Z][A-Z_]{3,}\b")
_REASON = re.compile(r"[A-Z][A-Z_]+")


@pytest.mark.parametrize("value", [value for value in REASON_VALUES if value.number], ids=lambda value: value.name)
def test_error_reason_names_its_grpc_code(value):
    """Each reason says which gRPC status code accompanies it."""
    code = value.GetOptions().Extensions[error_reason_pb2.grpc_code]
    assert code in CODES - {"OK"}


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_error_reason_is_given_or_documented(reason: str):
    """Each reason appears where it is given, or where an rpc's comment or the documentation promises it."""
    places = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    places += [path for path in PROTOS if path.name != "error_reason.proto"]
    places += [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    word = re.compile(rf"\b{reason}\b")
    assert any(word.search(path.read_text()) for path in places), f"{reason} is in no code and no document"


@pytest.mark.parametrize("package", PACKAGES)
def test_reasons_given_in_code_are_in_the_enum(package: str):
    """No code gives a reason that clients cannot find in ErrorReason."""
    unknown = [
        f"{path.relative_to(ROOT)} gives {reason}"
        for path in sorted((ROOT / package).rglob("*.py"))
        for reason in _reasons_given(ast.parse(path.read_text()))
        if reason not in REASONS
    ]
    assert unknown == []


def test_reasons_are_found_in_code():
    """A reason is found as an argument, as the attribute of an exception's class, and where either is chosen."""
    code = "class A:\n    reason: str = 'ONE'\nraise A(reason='TWO' if b else 'THREE')\nhook(reason='completed')\n"
    assert list(_reasons_given(ast.parse(code))) == ["ONE", "TWO", "THREE"]


@pytest.mark.parametrize("proto", PROTOS, ids=lambda path: path.stem)
def test_errors_in_rpc_comments_exist(proto: Path):
    """The codes and reasons in the comment of an rpc are those of gRPC and of ErrorReason."""
    for comment, rpc in _RPC.findall(proto.read_text()):
        errors = comment.partition("Errors: ")[2]
        unknown = set(_UPPER_WORD.findall(errors)) - CODES - REASONS
        assert not unknown, f"{rpc} promises {unknown}"


def test_stubs_are_not_part_of_the_project():
    """Generated code is only in build/, which is ignored, so nobody can edit or commit it."""
    assert "build/" in (ROOT / ".gitignore").read_text().split()
    stubs = {path.relative_to(ROOT).parts[0] for path in ROOT.rglob("*_pb2*.py*")}
    assert stubs - {".venv"} == {"build"}


def _reasons_given(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        value: ast.expr | None = None
        if isinstance(node, ast.keyword) and node.arg == "reason":
            value = node.value
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id == "reason" for target in targets):
                value = node.value
        for part in ast.walk(value) if value else ():
            if isinstance(part, ast.Constant) and isinstance(part.value, str) and _REASON.fullmatch(part.value):
                yield part.value
