"""What the README shows works as it stands there."""

import re
import subprocess
from pathlib import Path

import pytest
from eventlog.v1 import (
    analysis_service_pb2,
    ingest_service_pb2,
    log_admin_service_pb2,
    query_service_pb2,
    stream_service_pb2,
)
from google.protobuf import json_format
from google.protobuf.message_factory import GetMessageClass

from tests.support.cluster import read_all

pytestmark = pytest.mark.cluster

_README = Path(__file__).parents[2].joinpath("README.md").read_text()
_PYTHON = re.findall(r"```python\n(.*?)```", _README, re.DOTALL)
_CALLS = re.findall(r"^grpcurl .*?eventlog\.v1\.\w+/\w+$", _README, re.DOTALL | re.MULTILINE)
_SERVICES = {
    name: service
    for module in (
        analysis_service_pb2,
        ingest_service_pb2,
        log_admin_service_pb2,
        query_service_pb2,
        stream_service_pb2,
    )
    for name, service in module.DESCRIPTOR.services_by_name.items()
}


def test_python_of_the_readme_runs(make_cluster, monkeypatch):
    """The README's Python logs what it says, in the context of its correlation."""
    assert _PYTHON, "the README shows Python"
    with make_cluster() as cluster:
        monkeypatch.setenv("EVENTLOG__INGEST__LISTEN", cluster.ingest.address)
        for code in _PYTHON:
            exec(compile(code, "README.md", "exec"), {})
        logged = read_all(cluster)
    assert [event.type for event in logged] == ["user.action", "process.started", "process.completed"]
    assert [event.correlation_id for event in logged] == ["", "session_abc", "session_abc"]


@pytest.mark.parametrize("call", _CALLS, ids=range(len(_CALLS)))
def test_call_of_the_readme_is_a_request(call):
    """The JSON of each grpcurl call, as a shell would pass it, is a request of the RPC that it names."""
    script = f"grpcurl() {{ printf '%s\\0' \"$@\"; }}\n{call}"
    given = subprocess.run(["bash", "-c", script], check=True, capture_output=True, text=True).stdout.split("\0")
    service, method = re.findall(r"eventlog\.v1\.(\w+)/(\w+)$", call)[0]
    message = GetMessageClass(_SERVICES[service].methods_by_name[method].input_type)()
    json_format.Parse(given[given.index("-d") + 1] if "-d" in given else "{}", message)
