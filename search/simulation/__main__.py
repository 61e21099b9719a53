"""Search methods compared on recorded tables: `python -m search.simulation TABLE...`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from search.errors import RunError, UserError
from search.simulation import anytime, benchmark_table, comparison, peers, simulator, transfer
from search.simulation.benchmark_table import BenchmarkTable
from search.simulation.simulator import Method
from search.storage.database import open_storage
from search.study import open_study

_FORMATS = (".png", ".svg", ".pdf")


def main(command_line: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = _parser().parse_args(command_line)
    try:
        _check(arguments)
        if arguments.record:
            for name in arguments.tables:
                sys.stdout.write(benchmark_table.of_study(open_study(open_storage(arguments.record), name)))
            return 0
        tables = [(path, benchmark_table.read(path)) for path in arguments.tables]
        known = [benchmark_table.read(path) for path in arguments.known]
    except (UserError, RunError) as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1
    try:
        for path, table in tables:
            _print_table(path, table)
            _answer(table, arguments, known)
    except BrokenPipeError:
        # The reader (`| head`) has closed the pipe. Python flushes once more at exit: send that to /dev/null.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _check(arguments: argparse.Namespace) -> None:
    """Raise UserError where options ask for what there is not."""
    counts = {"--seeds": [arguments.seeds], "--trials": arguments.trials, "--workers": arguments.workers}
    counts["--known-trials"] = [arguments.known_trials]
    for option, values in counts.items():
        for value in values:
            if value < 1:
                raise UserError(f"{option} {value}: give at least 1")
    if arguments.reversed and not arguments.known:
        raise UserError("--reversed: says how wrong tables are known, and none is; give --known OTHER, too")
    if arguments.plot and (arguments.plot.suffix not in _FORMATS or not arguments.plot.parent.is_dir()):
        raise UserError(f"--plot {arguments.plot}: give a file that ends in {', '.join(_FORMATS)}, in a folder")


def _print_table(path: str, table: BenchmarkTable) -> None:
    rungs = ", ".join(map(str, table.rungs))
    good = simulator.good_curves(table)
    print(
        f"{path}: {len(table.curves)} curves, rungs {rungs}; best {table.full_value(table.best):.4f}, "
        f"good are {len(good)}; a training in full takes {table.training_seconds:.1f} s"
    )


def _answer(table: BenchmarkTable, arguments: argparse.Namespace, known: Sequence[BenchmarkTable]) -> None:
    seeds = range(arguments.seeds)
    if arguments.scaling:
        for trials in arguments.trials:
            print("\n".join(comparison.scaling_lines(table, seeds, trials)), flush=True)
        return
    methods = _methods(table, arguments, known)
    if arguments.until_good:
        for workers in arguments.workers:
            print("\n".join(comparison.cost_lines(table, methods, seeds, workers)), flush=True)
        return
    given = {"no": [False], "yes": [True], "both": [False, True]}[arguments.given]
    for question in anytime.questions(table, arguments.trials, arguments.workers, given):
        text, courses = anytime.lines(table, methods, question, seeds)
        print("\n".join(text), flush=True)
        if arguments.plot:
            given_name = "-given" if question.is_given else ""
            name = f"{arguments.plot.stem}-{table.study}-{question.trials}-{question.workers}{given_name}"
            file = arguments.plot.with_name(name + arguments.plot.suffix)
            anytime.plot(file, f"{table.study}: {question}", courses)
            print(f"picture: {file}")


def _methods(table: BenchmarkTable, arguments: argparse.Namespace, known: Sequence[BenchmarkTable]) -> list[Method]:
    methods = [comparison.own_method()]
    if known:
        methods.append(transfer.informed_method(known, arguments.known_trials))
        if arguments.reversed:
            methods.append(transfer.informed_method(known, arguments.known_trials, is_reversed=True))
    if not arguments.own:
        methods += comparison.baseline_methods(table)
    if arguments.peers:
        methods += peers.methods()
    if arguments.samplers:
        methods += comparison.own_variants()
    return methods


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m search.simulation",
        description=f"{str(__doc__).splitlines()[0]} How far from the table's best a search is after so many "
        "trainings, and where a study ends at what cost: medians over seeds, 90th percentiles in brackets.",
    )
    parser.add_argument(
        "tables",
        nargs="+",
        metavar="TABLE",
        help="JSON lines as search/simulation/benchmark_table.py describes; with --record, studies' names",
    )
    parser.add_argument("--seeds", type=int, default=50, help="searches a method (50)")
    parser.add_argument("--workers", type=int, nargs="+", default=[1], help="workers of a search, such as 1 4 16 (1)")
    parser.add_argument("--trials", type=int, nargs="+", default=[20], help="configurations of a study, 10 20 40 (20)")
    parser.add_argument(
        "--given",
        choices=("no", "yes", "both"),
        default="both",
        help="the default recipe as first configuration (both)",
    )
    parser.add_argument("--own", action="store_true", help="without what people use instead")
    parser.add_argument(
        "--peers", action="store_true", help="also compare Optuna's GPSampler, CMA-ES (extra `peers`), and PriorBand"
    )
    _add_earlier_options(parser)
    parser.add_argument("--samplers", action="store_true", help="also compare other samplers and schedulers")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="also draw each answer: FILE's name with the question"
    )
    parser.add_argument("--until-good", action="store_true", help="instead: trainings until a good one was found")
    parser.add_argument("--scaling", action="store_true", help="instead: studies with 1 to 64 workers, in virtual time")
    parser.add_argument("--record", metavar="URL", help="instead: print the studies' curves in this storage as tables")
    return parser


def _add_earlier_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--known",
        nargs="+",
        default=[],
        metavar="OTHER",
        help="also ours with what a study on each of these other tables knows",
    )
    parser.add_argument("--known-trials", type=int, default=20, help="configurations of such a study (20)")
    parser.add_argument("--reversed", action="store_true", help="also with its values reversed: as wrong as can be")


if __name__ == "__main__":
    sys.exit(main())
