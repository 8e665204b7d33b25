"""Is a service ready: what it said in its log, and what its health service answers."""

import json
import re
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from shared.rpc.channel import connect_sync

_TAIL_BYTES_MAX = 64 * 1024
_PAIR = re.compile(r"\b(address|metrics_address)=(\S+)")


def announced_addresses(log: Path) -> tuple[str, str] | None:
    """The addresses of gRPC and of metrics that the service announced in its log, None if it did not yet."""
    for line in log.read_text(errors="replace").splitlines():
        if "serving" not in line:
            continue
        fields = _fields(line)
        if fields.get("event", "serving") == "serving" and "address" in fields:
            return fields["address"], fields.get("metrics_address", "")
    return None


def is_serving(address: str, *, timeout_s: float) -> bool:
    """Whether the standard health service at the address says SERVING, within the time."""
    with connect_sync(address) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        try:
            answer = health.Check(health_pb2.HealthCheckRequest(), timeout=timeout_s)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def last_lines(log: Path, count: int) -> list[str]:
    """The last lines of a log, at most `count` and 64 KiB of them."""
    try:
        with log.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL_BYTES_MAX))
            return file.read().decode(errors="replace").splitlines()[-count:]
    except FileNotFoundError:
        return []


def _fields(line: str) -> dict[str, str]:
    """The fields of a line of the log, which is JSON, or key=value where the configuration says so."""
    try:
        fields = json.loads(line)
    except ValueError:
        return dict(_PAIR.findall(line))
    return fields if isinstance(fields, dict) else {}
