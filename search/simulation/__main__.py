"""Search methods compared on a recorded table: `python -m search.simulation TABLE`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from search.errors import RunError, UserError
from search.simulation import benchmark_table, comparison, simulator
from search.storage.database import open_storage
from search.study import open_study


def main(command_line: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = _parser().parse_args(command_line)
    try:
        if arguments.record:
            study = open_study(open_storage(arguments.record), arguments.table)
            sys.stdout.write(benchmark_table.of_study(study))
            return 0
        table = benchmark_table.read(arguments.table)
    except (UserError, RunError) as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    good = simulator.good_curves(table)
    rungs = ", ".join(map(str, table.rungs))
    print(
        f"{arguments.table}: {len(table.curves)} curves, rungs {rungs}; best {table.full_value(table.best):.4f}, "
        f"good are {len(good)}; a training in full takes {table.training_seconds:.1f} s"
    )
    seeds = range(arguments.seeds)
    if arguments.scaling:
        for trials in arguments.trials or [len(table.curves)]:
            print("\n".join(comparison.scaling_lines(table, seeds, trials)), flush=True)
        return 0
    methods = [comparison.own_method(), *comparison.baseline_methods(table)]
    if arguments.samplers:
        methods += comparison.own_variants()
    for trials in arguments.trials:
        print("\n".join(comparison.study_lines(table, methods, seeds, trials)), flush=True)
    for workers in arguments.workers:
        print("\n".join(comparison.cost_lines(table, methods, seeds, workers)), flush=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument(
        "table", help="JSON lines as search/simulation/benchmark_table.py describes; with --record, a study's name"
    )
    parser.add_argument("--seeds", type=int, default=50, help="searches a method (50)")
    parser.add_argument("--workers", type=int, nargs="+", default=[1], help="workers of a search, such as 1 4 16 (1)")
    parser.add_argument("--trials", type=int, nargs="+", default=[], help="also studies of so many configurations")
    parser.add_argument("--samplers", action="store_true", help="also compare other samplers and schedulers")
    parser.add_argument("--record", metavar="URL", help="print the study's curves in this storage as a table instead")
    parser.add_argument("--scaling", action="store_true", help="instead: studies with 1 to 64 workers, in virtual time")
    return parser


if __name__ == "__main__":
    sys.exit(main())
