"""python -m tests.benchmarks [--only NAME...] [--quick] [--output FILE] [--list], from the project's root.

The exit code is 0 if every row was measured or skipped, whether or not its target holds: a figure on a slower
machine is a figure too. 1 if a measurement failed, 2 for wrong arguments.
"""

import argparse
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.benchmarks import case_fanout, case_replay
from tests.benchmarks.bench import Bench, Case
from tests.benchmarks.case_analysis import ANALYSIS
from tests.benchmarks.case_query import QUERY
from tests.benchmarks.case_storage import IDLE, RECOVERY, SEALED
from tests.benchmarks.case_sustained import SUSTAINED
from tests.benchmarks.case_throughput import SIDE_BY_SIDE, UNARY
from tests.benchmarks.report import Failed, Outcome, Report, RowSpec

CASES: tuple[Case, ...] = (
    IDLE,
    SIDE_BY_SIDE,
    UNARY,
    SUSTAINED,
    SEALED,
    RECOVERY,
    QUERY,
    ANALYSIS,
    case_fanout.ONE,
    case_fanout.HUNDRED,
    case_fanout.DISTINCT,
    case_fanout.PEAK,
    case_replay.HISTORY,
    case_replay.TIMING,
)
_PROJECT = Path(__file__).parents[2]


def main(arguments: Sequence[str]) -> int:
    """Run the benchmarks that the arguments ask for; returns the exit code."""
    specs = [spec for case in CASES for spec in case.rows]
    chosen = _parser(specs).parse_args(arguments)
    if chosen.list:
        for spec in specs:
            print(spec.name)
        return 0
    if chosen.only:
        specs = [spec for spec in specs if spec.name in chosen.only]
    wanted = frozenset(spec.name for spec in specs)
    build = _PROJECT / "build"
    build.mkdir(exist_ok=True)
    report = Report(specs, sys.stdout, chosen.output, quick=chosen.quick)
    # Not in the system's temporary directory, which may be memory: syncing it would cost nothing.
    with tempfile.TemporaryDirectory(dir=build, prefix="bench-") as directory:
        bench = Bench(Path(directory), chosen.quick, wanted)
        for case in CASES:
            names = [spec.name for spec in case.rows if spec.name in wanted]
            if names:
                outcomes = _outcomes(case, bench)
                for name in names:
                    report.add(name, outcomes[name])
    return report.finish()


def _outcomes(case: Case, bench: Bench) -> Mapping[str, Outcome]:
    try:
        return case.measure(bench)
    except Exception as error:  # noqa: BLE001 — the other cases can still be measured
        traceback.print_exc()
        summary = str(error).splitlines()[0] if str(error) else type(error).__name__
        return {spec.name: Failed(summary) for spec in case.rows}


def _parser(specs: Sequence[RowSpec]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="Measure eventlog.")
    names = [spec.name for spec in specs]
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", choices=names, default=[], help="measure these rows only; see --list"
    )
    parser.add_argument("--quick", action="store_true", help="measure shortly, to see that everything works")
    parser.add_argument(
        "--output", type=Path, default=Path("build/bench.json"), metavar="FILE", help="default: %(default)s"
    )
    parser.add_argument("--list", action="store_true", help="list the rows and do nothing else")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
