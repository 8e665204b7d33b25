"""Export by the real query service: memory that does not grow with the file, and formats of other packages."""

from pathlib import Path

import pytest

from shared.client import EventLogger, EventQuery, ExportProgress, LoggerOptions, QueryOptions
from shared.config import EventConfig, IngestConfig
from tests.benchmarks.query_log import build_query_log
from tests.support.service_process import ServiceProcess

pytestmark = pytest.mark.cluster

SEGMENT_EVENTS = 50_000
# What an export of four times the events may take more than the first did, at its highest.
GROWTH_MB_MAX = 100
_PACKAGE = Path(__file__).parents[1] / "support" / "types_format.py"


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> Path:
    """A log of five sealed segments and a tail of the same size, 125 MB as JSON lines."""
    log = tmp_path_factory.mktemp("log")
    build_query_log(log, sealed_segments=5, tail_events=SEGMENT_EVENTS, segment_events=SEGMENT_EVENTS)
    return log


@pytest.mark.parametrize("name", ["json", "csv", "parquet"])
def test_memory_of_the_service_stays_bounded_while_everything_is_exported(log, tmp_path, name):
    """The whole log takes hardly more memory than its first segment did."""
    settings = {"storage": {"base_path": str(log)}}
    with (
        ServiceProcess("query_service", tmp_path / "query", settings=settings) as service,
        EventQuery(EventConfig(), QueryOptions(address=service.address)) as query,
    ):

        def peak_mb(until_position: int) -> float:
            peaks = [service.rss_mb()]

            def look(_: ExportProgress) -> None:
                peaks.append(service.rss_mb())

            report = query.export(tmp_path / "file", name, until_position=until_position, on_progress=look)
            assert report.events == until_position - 1
            return max(peaks)

        first = peak_mb(SEGMENT_EVENTS + 1)
        assert peak_mb(6 * SEGMENT_EVENTS + 1) - first <= GROWTH_MB_MAX


def test_installed_package_adds_a_format(make_cluster, tmp_path):
    """A package beside the service that names an entry point adds a format to it, without another word."""
    packages = tmp_path / "packages"
    (packages / "types_format-1.0.dist-info").mkdir(parents=True)
    (packages / "types_format.py").write_text(_PACKAGE.read_text())
    (packages / "types_format-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: types-format\nVersion: 1.0\n"
    )
    (packages / "types_format-1.0.dist-info" / "entry_points.txt").write_text(
        "[eventlog.exporters]\ntypes = types_format:TYPES\n"
    )
    with make_cluster(environ={"PYTHONPATH": str(packages)}) as cluster:
        config = EventConfig(ingest=IngestConfig(listen=cluster.ingest.address))
        with EventLogger(config, LoggerOptions(version="1")) as logger:
            log_id = logger.log("first.type", {})[4:12]
            logger.log("second.type", {})
        with EventQuery(config, QueryOptions(address=cluster.query.address)) as query:
            report = query.export(tmp_path / "types.txt", "types")
    assert (tmp_path / "types.txt").read_text() == f"# log {log_id}\nfirst.type\nsecond.type\n# end\n"
    assert report.events == 2
