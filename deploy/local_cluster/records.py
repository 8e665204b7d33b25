"""The pid files: what is known about a service that was started. One JSON object a file."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from deploy.local_cluster.processes import Process


@dataclass(frozen=True, slots=True)
class Record:
    """A service that was started. Addresses are host:port, empty until it said them."""

    process: Process
    address: str = ""
    metrics_address: str = ""


def read_record(path: Path) -> Record | None:
    """The record in the file, None if there is none or it cannot be understood."""
    try:
        fields = json.loads(path.read_text())
        return Record(Process(**fields.pop("process")), **fields)
    except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
        return None


def write_record(path: Path, record: Record) -> None:
    """Replace the record in the file, whole or not at all."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps(asdict(record)) + "\n")
    new.replace(path)
