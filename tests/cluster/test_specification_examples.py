"""The specification's usage examples run as they are written, imports aside."""

import grpc
import pytest
from eventlog.v1 import query_service_pb2, query_service_pb2_grpc

from shared.client import EventLogger
from shared.config import EventConfig, IngestConfig
from tests.support.service_process import ServiceProcess

pytestmark = pytest.mark.cluster


def test_basic_event_logging(tmp_path):
    """Log a simple event, and two with correlation; all three are in the log as they were logged."""
    settings = {"storage": {"base_path": str(tmp_path / "events"), "min_free_bytes": 0}}
    with (
        ServiceProcess("ingest_service", tmp_path / "ingest", settings=settings) as ingest,
        ServiceProcess("query_service", tmp_path / "query", settings=settings) as query,
        grpc.insecure_channel(query.address) as channel,
    ):
        config = EventConfig(ingest=IngestConfig(listen=ingest.address))

        # Initialize logger
        logger = EventLogger(config)

        # Log simple event
        event_id = logger.log(
            event_type="user.action",
            payload={"action": "login", "user_id": "123"},
            source="auth_module"
        )  # fmt: skip

        # Log with correlation
        with logger.with_correlation("session_abc") as ctx_logger:
            ctx_logger.log("process.started", {"step": "validation"})
            ctx_logger.log("process.completed", {"step": "validation"})

        logger.close()
        stub = query_service_pb2_grpc.QueryServiceStub(channel)
        found = stub.ListEvents(query_service_pb2.ListEventsRequest(selection={"min_position": 3}), timeout=10).events
    assert found[0].id == event_id
    assert [(event.type, event.source, event.correlation_id, event.payload_json) for event in found] == [
        ("user.action", "auth_module", "", '{"action":"login","user_id":"123"}'),
        ("process.started", "unknown", "session_abc", '{"step":"validation"}'),
        ("process.completed", "unknown", "session_abc", '{"step":"validation"}'),
    ]
