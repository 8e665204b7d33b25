"""One writer a directory, and the orderly end of it under load."""

import threading

import pytest

from tests.support.cluster import read_all, wait_until
from tests.support.producers import Ledger, Load, check_ledger, retry
from tests.support.service_process import ServiceDiedError, ServiceProcess

pytestmark = pytest.mark.cluster


def test_second_writer_refuses_to_start_and_names_the_holder(make_cluster, tmp_path):
    """It exits with code 1 and one line that holds the holder's pid, and the first goes on."""
    ledger = Ledger()
    with make_cluster() as cluster:
        load = Load(cluster.appends, ledger, "first")
        with load.on(load.singles(0)):
            second = ServiceProcess(
                "ingest_service", tmp_path / "second", settings={"storage": {"base_path": str(cluster.log)}}
            )
            with pytest.raises(ServiceDiedError, match="exit code 1"):
                second.start()
            [record] = second.records()
        assert record["level"] == "critical"
        assert f"process {cluster.ingest.pid} " in record["event"]
        assert str(second.lines).count("Traceback") == 0
        assert ledger.unanswered == []
        check_ledger(ledger, read_all(cluster))
        # The lock ends with the process, however that ends.
        cluster.ingest.kill()
        with second:
            assert second.running


def test_drain_under_load_answers_what_it_took(make_cluster):
    """SIGTERM: what was taken is acknowledged and there, the rest is refused and not there; a restart works at once."""
    ledger = Ledger()
    with make_cluster(storage={"rotation": {"max_events": 20_000}}) as cluster:
        for number in range(2):
            load = Load(cluster.appends, ledger, f"round{number}")
            before = len(ledger.acknowledged)
            producers = [load.batches(0), load.batches(1), load.singles(0), load.stream(0), load.stream(1)]
            with load.on(*producers):
                wait_until(lambda: len(ledger.acknowledged) > before + 50, "acknowledgements")  # noqa: B023
                assert cluster.ingest.terminate() == 0
            assert len(cluster.ingest.records("draining")) == 1
            assert cluster.ingest.records()[-1]["event"] == "stopped"
            unanswered = ledger.unanswered
            reasons = {sent.error.reason for sent in unanswered if sent.error is not None}
            # Who comes before the port is closed is told, who comes after finds nobody.
            assert reasons <= {"SERVER_DRAINING", "DEPENDENCY_UNAVAILABLE"}
            assert "SERVER_DRAINING" in reasons
            assert {sent.name.split("-")[1] for sent in unanswered if sent.error} & {"stream0", "stream1"}
            cluster.ingest.start()
            found = check_ledger(ledger, read_all(cluster))
            logged = [sent.name for sent in unanswered if sent.name in found]
            assert logged == [], "these were logged, and their producers were not told"
            retry(cluster.appends, ledger, unanswered)
        check_ledger(ledger, read_all(cluster))
        assert list(cluster.verify().damage) == []


def test_idle_stream_ends_with_the_drain(make_cluster):
    """A LogStream on which nothing is sent does not hold up the end, and its producer is told why it ended."""
    with make_cluster(ingest={"grace": "20s"}) as cluster:
        ended = threading.Event()

        def requests():
            ended.wait(60)
            yield from ()

        answers = cluster.appends.LogStream(requests())
        wait_until(lambda: cluster.ingest.running, "it runs")
        assert next(iter(answers.initial_metadata()), None) is not None
        assert cluster.ingest.terminate(timeout_s=10) == 0
        ended.set()
        assert "SERVER_DRAINING" in str(answers.trailing_metadata())
