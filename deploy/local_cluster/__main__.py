"""python -m deploy.local_cluster up | down | status."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from deploy.local_cluster.cluster import ClusterFailed, LocalCluster, ServiceState

ROOT = Path(__file__).parents[2]

_ROW = "{:<18}{:<13}{:<24}{:<24}{:>8}  {}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0 where what was asked for is so, 1 where it is not."""
    parser = argparse.ArgumentParser(prog="python -m deploy.local_cluster", description=__doc__)
    parser.add_argument("command", choices=("up", "down", "status"))
    parser.add_argument("--config", type=Path, default=ROOT / "deploy" / "eventlog.yaml", help="YAML file")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "cluster", help="for pid files and logs")
    arguments = parser.parse_args(argv)
    cluster = LocalCluster(root=ROOT, folder=arguments.folder, config=arguments.config)
    return {"up": _up, "down": _down, "status": _status}[arguments.command](cluster)


def _up(cluster: LocalCluster) -> int:
    try:
        _print_table(cluster.up())
    except ClusterFailed as error:
        print(error, file=sys.stderr)
        print("nothing that was started is left running", file=sys.stderr)
        return 1
    return 0


def _down(cluster: LocalCluster) -> int:
    endings = cluster.down()
    for ending in endings:
        print(f"{ending.service:<18}{ending.how}")
    return int(any(ending.how == "killed" for ending in endings))


def _status(cluster: LocalCluster) -> int:
    states = cluster.status()
    _print_table(states)
    return int(any(state.state != "serving" for state in states))


def _print_table(states: list[ServiceState]) -> None:
    print(_ROW.format("service", "state", "gRPC", "metrics", "pid", "log"))
    for state in states:
        cells = (state.state, state.address or "-", state.metrics_address or "-", state.pid or "-", state.log)
        print(_ROW.format(state.service, *cells))


if __name__ == "__main__":
    sys.exit(main())
