"""python -m deploy.demo: events through the whole cluster and back, compared exactly. Exit code 1 if they differ.

Starts the four services on free ports with a log in a temporary folder, logs real events (simulated ones where
there are none), reads them back by id and by range, verifies and seals the log, asks questions of it, exports it,
analyses it, streams some of it live and replays that, and stops everything.
"""

import argparse
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import grpc
import orjson

from deploy.demo import analysis_scenes
from deploy.demo.analysis_tour import AnalysisTour
from deploy.demo.batches import Batches, make_batches
from deploy.demo.query_tour import QueryTour
from deploy.demo.questions import REAL, SIMULATED
from deploy.demo.read_back import Defaults
from deploy.demo.real_data import event_files, read_lines
from deploy.demo.round_trip import RoundTrip
from deploy.demo.simulator import Simulation
from deploy.demo.stream_tour import StreamTour
from deploy.demo.watch_tour import watch_a_burst
from deploy.local_cluster import ClusterFailed, LocalCluster
from shared.errors import EventException

ROOT = Path(__file__).parents[2]

_DEFAULTS = Defaults(host="demo-host", version="demo-1.0")

# Free ports, known where another service has to find them; segments small enough that some are sealed while events
# are still logged.
_CONFIG = """\
events:
  storage:
    base_path: {folder}/events
    min_free_bytes: 0
    rotation: {{max_events: 100000}}
  replay: {{checkpoint_dir: {folder}/events/checkpoints}}
  ingest:
    {{listen: "127.0.0.1:0", metrics_listen: "127.0.0.1:0", publish_to: "{stream}", host: {host}, version: {version}}}
  query: {{listen: "{query}", metrics_listen: "127.0.0.1:0"}}
  streaming: {{listen: "{stream}", metrics_listen: "127.0.0.1:0", query_address: "{query}"}}
  analysis: {{listen: "127.0.0.1:0", metrics_listen: "127.0.0.1:0", query_address: "{query}"}}
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m deploy.demo", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of real events (*.jsonl.gz); default: simulate some")
    parser.add_argument("--days", type=int, default=7, help="days to simulate (default: 7)")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="eventlog-demo-") as name:
        folder = Path(name)
        config = folder / "eventlog.yaml"
        config.write_text(_config(folder))
        cluster = LocalCluster(root=ROOT, folder=folder / "cluster", config=config)
        try:
            addresses = _start(cluster)
            files = event_files(arguments.data) if arguments.data else []
            sources = list(_sources(files, arguments.data, arguments.days))
            with RoundTrip(addresses["ingest_service"], addresses["query_service"], _DEFAULTS) as trip:
                problems = trip.run(sources)
            with QueryTour(addresses["query_service"]) as tour:
                problems += tour.run(REAL if files else SIMULATED, trip.acknowledged)
            scene = analysis_scenes.REAL if files else analysis_scenes.SIMULATED
            problems += AnalysisTour(addresses["analysis_service"], scene, trip.acknowledged).run()
            problems += watch_a_burst(addresses["ingest_service"], addresses["analysis_service"])
            streams = StreamTour(addresses["ingest_service"], addresses["stream_service"], _DEFAULTS)
            problems += streams.run(sources)
        except (ClusterFailed, EventException, grpc.RpcError) as error:
            problems = [str(error)]
        finally:
            endings = {ending.how for ending in cluster.down()}
    print("all services " + " and ".join(sorted(endings)))
    for problem in problems:
        print(f"WRONG: {problem}", file=sys.stderr)
    print("the demo failed" if problems else "everything that was logged came back as it was")
    return 1 if problems else 0


def _config(folder: Path) -> str:
    """The configuration of a cluster in a folder."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        query, stream = (f"127.0.0.1:{each.getsockname()[1]}" for each in (one, other))
    return _CONFIG.format(folder=folder, host=_DEFAULTS.host, version=_DEFAULTS.version, query=query, stream=stream)


def _start(cluster: LocalCluster) -> dict[str, str]:
    started = time.perf_counter()
    states = cluster.up()
    print(f"{len(states)} services are serving after {time.perf_counter() - started:.1f} s:")
    for state in states:
        print(f"  {state.service:<18}gRPC {state.address:<18} metrics http://{state.metrics_address}/metrics")
    return {state.service: state.address for state in states}


def _sources(files: Sequence[Path], data: Path | None, days: int) -> Iterator[Batches]:
    """The requests to log: of each file of real events, else of a simulation."""
    if not files:
        where = f"no real events at {data}" if data else "no folder of real events was named"
        print(f"{where}: simulating {days} days of a document-synthesis platform (docs/simulator.md)")
        yield make_batches("simulation", map(orjson.dumps, Simulation(days=days).documents()))
        return
    print(f"reading the real events in {data}")
    for file in files:
        name = f"{file.parent.name}/{file.name.removesuffix('.jsonl.gz')}"
        yield make_batches(name, read_lines(file))


if __name__ == "__main__":
    sys.exit(main())
