"""What operators see of ingest and query: health, reflection, metrics, logs, segments."""

import json
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from eventlog.v1 import ingest_service_pb2, log_admin_service_pb2
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from tests.support.cluster import CALL_S_MAX, failure_of, get_event, metrics, read_all, refused, wait_until
from tests.support.producers import Sent

pytestmark = pytest.mark.cluster

SERVICES = {
    "ingest": ["eventlog.v1.IngestService", "eventlog.v1.LogAdminService"],
    "query": ["eventlog.v1.QueryService"],
}


@pytest.fixture(scope="module")
def cluster(module_cluster):
    with module_cluster() as cluster:
        yield cluster


def log(cluster, name, count=3):
    return cluster.appends.LogBatch(Sent(name, count).batch(), timeout=CALL_S_MAX)


@pytest.mark.parametrize("process", SERVICES)
def test_health_answers_for_each_service_by_name(cluster, process):
    """Each service and the process as a whole serve; an unknown name is not found."""
    health = health_pb2_grpc.HealthStub(cluster.channel(getattr(cluster, process)))
    for name in ("", *SERVICES[process]):
        answer = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=CALL_S_MAX)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    error = failure_of(lambda: health.Check(health_pb2.HealthCheckRequest(service="nothing"), timeout=CALL_S_MAX))
    assert error.code == grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("process", SERVICES)
def test_reflection_describes_every_service(cluster, process):
    """A client that knows nothing finds the services and their methods."""
    database = ProtoReflectionDescriptorDatabase(cluster.channel(getattr(cluster, process)))
    assert set(SERVICES[process]) <= set(database.get_services())
    for name in SERVICES[process]:
        file = database.FindFileContainingSymbol(name)
        [service] = [each for each in file.service if f"{file.package}.{each.name}" == name]
        assert service.method


def test_metrics_page_counts_what_happens(make_cluster):
    """Events, bytes, batches, group commits, syncs, the buffer, segments, recovery and quarantine are on the page."""
    with make_cluster() as cluster:
        for number in range(5):
            log(cluster, f"counted {number}", 10)
        log(cluster, "counted 0", 10)
        with refused("INVALID_EVENT"):
            bad = ingest_service_pb2.LogBatchRequest(events=[{"type": "not a type"}])
            cluster.appends.LogBatch(bad, timeout=CALL_S_MAX)
        cluster.rotate()
        log(cluster, "in the next segment", 1)
        cluster.wait_until_sealed()
        wait_until(
            lambda: metrics(cluster.ingest).get("eventlog_ingest_segments{state=sealed}") == 1, "segments are counted"
        )
        counted = metrics(cluster.ingest)
        prefix = "eventlog_ingest_"
        exact = {
            "events_total": 51,
            "committed_position": 51,
            "duplicate_requests_total": 1,
            "refused_requests_total": 1,
            "frame_events_sum": 51,
            "commit_seconds_count": 6,
            "sync_seconds_count": 6,
            "buffered_bytes": 0,
            "buffered_bytes_max": 256 * 1024 * 1024,
            "segments{state=active}": 1,
            "segments{state=rotated}": 0,
            "segments{state=sealed}": 1,
            "sealed_segments_total": 1,
            "sealing_failures_total": 0,
            "storage_failures_total": 0,
            "recovered_torn_bytes": 0,
            "damaged_positions": 0,
            "quarantined_files": 0,
        }
        assert {name: counted.get(prefix + name) for name in exact} == exact
        for name in ("written_bytes_total", "acknowledge_seconds_count", "disk_bytes", "free_bytes"):
            assert counted[prefix + name] > 0
        calls = "eventlog_rpc_requests_total{code=%s,method=LogBatch,service=eventlog.v1.IngestService}"
        assert (counted[calls % "OK"], counted[calls % "INVALID_ARGUMENT"]) == (7, 1)
        read_all(cluster)
        of_query = metrics(cluster.query)
        assert of_query["eventlog_rpc_requests_total{code=OK,method=ListEvents,service=eventlog.v1.QueryService}"] >= 1


def test_logs_are_json_lines_with_request_ids(make_cluster):
    """Every line that a service writes is one JSON object; a failed call is found by the caller's request id."""
    with make_cluster() as cluster:
        bad = ingest_service_pb2.LogBatchRequest(events=[{"type": "two\nlines"}])
        metadata = (("x-request-id", "operator-42"),)
        with pytest.raises(grpc.RpcError) as caught:
            cluster.appends.LogBatch(bad, timeout=CALL_S_MAX, metadata=metadata)
        assert dict(caught.value.trailing_metadata())["x-request-id"] == "operator-42"
        with pytest.raises(grpc.RpcError):
            get_event(cluster, 77)
        for process in (cluster.ingest, cluster.query):
            assert process.terminate() == 0
            records = [json.loads(line) for line in process.lines]
            assert all({"time", "level", "event", "service"} <= record.keys() for record in records)
            [failed] = [record for record in records if record["event"] == "call failed"]
            assert failed["request_id"]
        [failed] = cluster.ingest.records("call failed")
        assert (failed["request_id"], failed["reason"]) == ("operator-42", "INVALID_EVENT")
        assert failed["rpc"] == "eventlog.v1.IngestService/LogBatch"


def test_segments_are_listed_in_pages_that_fit_together(make_cluster):
    """ListSegments pages through every position once; rotating an empty segment does nothing."""
    with make_cluster() as cluster:
        assert not cluster.rotate().rotated
        for number in range(3):
            log(cluster, f"segment {number}", number + 1)
            rotated = cluster.rotate()
            assert rotated.rotated
            assert not cluster.rotate().rotated
        assert rotated.active_first_position == 7
        cluster.wait_until_sealed()
        found, token = [], ""
        while True:
            request = log_admin_service_pb2.ListSegmentsRequest(page_size=2, page_token=token)
            page = cluster.admin.ListSegments(request, timeout=CALL_S_MAX)
            assert len(page.segments) <= 2
            found += page.segments
            token = page.next_page_token
            if not token:
                break
        assert found == cluster.segments()
        assert [(each.first_position, each.last_position) for each in found][:3] == [(1, 1), (2, 3), (4, 6)]
        status = cluster.status()
        assert (status.sealed_segments, status.unsealed_segments) == (3, 0)
        assert (status.first_position, status.committed_position) == (1, 6)
        assert status.last_recorded_at == read_all(cluster)[-1].recorded_at
        for request in (
            log_admin_service_pb2.ListSegmentsRequest(page_size=-1),
            log_admin_service_pb2.ListSegmentsRequest(page_token="made up"),
        ):
            with refused("INVALID_FIELD", "INVALID_PAGE_TOKEN"):
                cluster.admin.ListSegments(request, timeout=CALL_S_MAX)


def test_index_may_be_rebuilt_by_many_at_once(make_cluster):
    """Requests to rebuild and to verify do not disturb each other, nor what is read meanwhile."""
    with make_cluster() as cluster:
        log(cluster, "rebuilt", 100)
        cluster.rotate()
        cluster.wait_until_sealed()

        def rebuild(_):
            answer = cluster.admin.RebuildIndex(log_admin_service_pb2.RebuildIndexRequest(), timeout=CALL_S_MAX)
            return answer.rebuilt_sidecars, list(cluster.verify().damage), len(read_all(cluster))

        with ThreadPoolExecutor(10) as threads:
            outcomes = list(threads.map(rebuild, range(10)))
        assert outcomes == [(len(cluster.segments()[0].files), [], 100)] * 10


def test_request_typed_by_hand_through_reflection(cluster):
    """A client that has only reflection and JSON logs an event with a structure, and is told what is wrong with one."""
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(cluster.channel(cluster.ingest)))
    method = pool.FindServiceByName("eventlog.v1.IngestService").FindMethodByName("Log")

    def call(typed):
        request = json_format.Parse(typed, GetMessageClass(method.input_type)())
        response = cluster.channel(cluster.ingest).unary_unary(f"/{method.containing_service.full_name}/{method.name}")(
            request.SerializeToString(), timeout=CALL_S_MAX
        )
        return json_format.MessageToDict(GetMessageClass(method.output_type).FromString(response))

    typed = '{"event": {"type": "typed.by.hand", "payload": {"n": 3, "list": [true, null, {"x": "y"}]}}}'
    answer = call(typed)
    assert answer["durability"] == "DURABILITY_DURABLE"
    event = get_event(cluster, int(answer["position"]))
    assert (event.id, json.loads(event.payload_json)) == (answer["eventId"], {"n": 3, "list": [True, None, {"x": "y"}]})
    with refused("INVALID_EVENT") as refusal:
        call('{"event": {"type": "typed by hand", "payload": {}}}')
    assert [violation.field for violation in refusal.error.violations] == ["event.type"]


def test_rpcs_not_built_yet_say_so(cluster):
    """ArchiveLogs and ApplyRetention answer UNIMPLEMENTED with a reason."""
    for call in (
        lambda: cluster.admin.ArchiveLogs(log_admin_service_pb2.ArchiveLogsRequest(), timeout=CALL_S_MAX),
        lambda: cluster.admin.ApplyRetention(log_admin_service_pb2.ApplyRetentionRequest(), timeout=CALL_S_MAX),
    ):
        error = failure_of(call)
        assert (error.reason, error.code) == ("NOT_IMPLEMENTED", grpc.StatusCode.UNIMPLEMENTED)
