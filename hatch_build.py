"""Generates the gRPC stubs of protos/ into build/stubs, as part of every install and build.

Run by hatch; `make protos` runs it by hand. Nothing it writes is edited or committed.
"""

import shutil
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).parent
STUBS = ROOT / "build" / "stubs"


def generate_stubs() -> None:
    """Compile every .proto file into Python modules with type stubs. Raises RuntimeError on failure."""
    import grpc_tools  # noqa: PLC0415 — only installed where stubs are built
    from grpc_tools import protoc  # noqa: PLC0415

    shutil.rmtree(STUBS, ignore_errors=True)
    STUBS.mkdir(parents=True)
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    sources = sorted(str(path) for path in (ROOT / "protos").rglob("*.proto"))
    outputs = [f"--{kind}_out={STUBS}" for kind in ("python", "grpc_python")]
    outputs += [f"--{kind}_out=quiet:{STUBS}" for kind in ("mypy", "mypy_grpc")]
    if protoc.main(["protoc", f"-I{ROOT / 'protos'}", f"-I{well_known}", *outputs, *sources]) != 0:
        raise RuntimeError("protoc failed; its message is above")
    for package in ("eventlog", "eventlog/v1"):
        (STUBS / package / "__init__.py").write_text('"""Generated gRPC stubs of eventlog."""\n')
        (STUBS / package / "py.typed").touch()


class StubsBuildHook(BuildHookInterface[Any]):
    """Makes the stubs before hatch collects files."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Generate the stubs, and put them into a wheel; an editable install finds them in build/stubs."""
        generate_stubs()
        if version == "standard":
            build_data["force_include"][str(STUBS / "eventlog")] = "eventlog"


if __name__ == "__main__":
    sys.path.insert(0, str(Path(sys.executable).parent))
    generate_stubs()
