"""Every command's arguments, help and example."""

from __future__ import annotations

import argparse
import difflib
import importlib
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from search.errors import UserError
from tmsearch import __version__
from tmsearch.cli import arguments


class _Parser(argparse.ArgumentParser):
    """Says a mistake in one line."""

    def error(self, message: str) -> NoReturn:
        wrong = re.match(r"argument COMMAND: invalid choice: '(.*?)'", message)
        if wrong:
            near = difflib.get_close_matches(wrong[1], COMMANDS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMMANDS)}"
            message = f"no such command: {wrong[1]!r}; {hint}"
        raise UserError(f"{message}; see `{self.prog} --help`")


def _lazy(module: str, function: str) -> Callable[[argparse.Namespace], int]:
    """Help must answer at once: a command's module is imported when it runs."""

    def call(arguments: argparse.Namespace) -> int:
        command: Callable[[argparse.Namespace], int] = getattr(
            importlib.import_module(f"tmsearch.cli.{module}"), function
        )
        return command(arguments)

    return call


# name -> (what it does, its arguments, where it lives, an example)
COMMANDS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None], tuple[str, str], str]] = {
    "run": (
        "start a study, or go on with it",
        arguments.run,
        ("run", "run"),
        "tmsearch run --space spaces/large_v3.yaml --trials 20",
    ),
    "resume": ("go on with a study, without its file", arguments.resume, ("run", "resume"), "tmsearch resume large_v3"),
    "worker": (
        "one more worker of a study, on any machine",
        arguments.worker,
        ("worker", "worker"),
        "tmsearch worker large_v3 --storage postgresql://HOST/DATABASE",
    ),
    "add": (
        "queue one configuration by hand",
        arguments.add,
        ("edit", "add"),
        "tmsearch add large_v3 learning_rate=1e-5 warmup_steps=50",
    ),
    "retry": ("queue failed configurations again", arguments.retry, ("edit", "retry"), "tmsearch retry large_v3 7"),
    "stop": ("ask a study's workers to save and leave", arguments.study, ("edit", "stop"), "tmsearch stop large_v3"),
    "delete": ("remove a study and its files", arguments.delete, ("edit", "delete"), "tmsearch delete demo --yes"),
    "list": (
        "every study of the storage, a line each",
        arguments.as_json,
        ("inspect", "list_studies"),
        "tmsearch list",
    ),
    "status": (
        "one line a configuration: state, rung, WER, cost",
        arguments.study_json,
        ("inspect", "status"),
        "tmsearch status large_v3",
    ),
    "doctor": (
        "what is wrong with a study, and mend it",
        arguments.doctor,
        ("doctor", "doctor"),
        "tmsearch doctor large_v3 --repair",
    ),
    "show": ("all about one configuration", arguments.show, ("inspect", "show"), "tmsearch show large_v3 7"),
    "best": ("the best configuration so far", arguments.study_json, ("inspect", "show_best"), "tmsearch best large_v3"),
    "import": (
        "take hand-run trainings into a study",
        arguments.import_,
        ("imports", "import_logs"),
        "tmsearch import large_v3 hand-runs/*/results.yaml",
    ),
    "confirm": (
        "train the leaders again: is the winner real?",
        arguments.confirm,
        ("confirm", "confirm"),
        "tmsearch confirm large_v3 --top 3 --seeds 3",
    ),
    "export": (
        "write a configuration as a recipe to train",
        arguments.export,
        ("final", "export"),
        "tmsearch export large_v3 -o best.yaml",
    ),
    "train": (
        "the final training run: a Hugging Face model folder",
        arguments.train,
        ("final", "train"),
        "tmsearch train best.yaml -o my-whisper",
    ),
    "report": (
        "a study as one page to look at and listen to",
        arguments.report,
        ("report", "report"),
        "tmsearch report large_v3 -o report.html",
    ),
    "dashboard": (
        "optuna-dashboard on the storage",
        arguments.dashboard,
        ("servers", "dashboard"),
        "tmsearch dashboard",
    ),
    "tensorboard": (
        "TensorBoard on a study's trials",
        arguments.tensorboard,
        ("servers", "tensorboard"),
        "tmsearch tensorboard large_v3",
    ),
    "data": (
        "describe a dataset before spending GPU time on it",
        arguments.data,
        ("data", "data"),
        "tmsearch data recordings/",
    ),
}


def parse(argv: Sequence[str]) -> Any:
    """The arguments, with the command's function under `command`; raises UserError."""
    parser = _Parser(
        prog="tmsearch",
        description="Hyperparameter search for fine-tuning Whisper on throat-microphone speech.",
        epilog="first steps:\n  tmsearch run --space spaces/demo.yaml --trials 8\n  tmsearch status demo\n"
        "  tmsearch export demo -o best.yaml\n  tmsearch train best.yaml\n\n"
        "exit codes: 0 done, 1 the run failed, 2 bad input, 130 interrupted with everything kept",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"tmsearch {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", dest="name", required=True)
    for name, (what, add_arguments, (module, function), example) in COMMANDS.items():
        one = commands.add_parser(
            name,
            help=what,
            description=f"{what[0].upper()}{what[1:]}.",
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        add_arguments(one)
        if name != "data":
            one.add_argument(
                "--storage",
                metavar="URL",
                help="database of the studies; else TMSEARCH_STORAGE, else sqlite:///studies/tmsearch.db",
            )
        one.set_defaults(command=_lazy(module, function))
    return parser.parse_args(argv)
