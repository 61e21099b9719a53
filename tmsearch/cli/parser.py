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

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class _Parser(argparse.ArgumentParser):
    """Says a mistake in one line."""

    def error(self, message: str) -> NoReturn:
        wrong = re.match(r"argument COMMAND: invalid choice: '(.*?)'", message)
        if wrong:
            near = difflib.get_close_matches(wrong[1], COMMANDS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMMANDS)}"
            message = f"no such command: {wrong[1]!r}; {hint}"
        raise UserError(f"{message}; see `{self.prog} --help`")


def duration(text: str) -> float:
    """90, 90s, 5m, 2h, 1d -> seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", text.strip())
    if not match or not float(match[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is no duration; write 90s, 5m or 2h")
    return float(match[1]) * _UNITS[match[2]]


def count(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isdigit() or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 to 1000000")
    return int(text)


def number(text: str) -> int:
    """A whole number from 0 on."""
    if not text.isdigit() or int(text) >= 2**31:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 to {2**31 - 1}")
    return int(text)


def _lazy(module: str, function: str) -> Callable[[argparse.Namespace], int]:
    """Help must answer at once: a command's module is imported when it runs."""

    def call(arguments: argparse.Namespace) -> int:
        command: Callable[[argparse.Namespace], int] = getattr(
            importlib.import_module(f"tmsearch.cli.{module}"), function
        )
        return command(arguments)

    return call


def _run_options(one: argparse.ArgumentParser) -> None:
    one.add_argument(
        "--trials", type=count, metavar="N", help="the study's total number of configurations (new study: 20)"
    )
    one.add_argument("--timeout", type=duration, metavar="TIME", help="save and leave after 90s, 5m, 2h ...")


def _run(one: argparse.ArgumentParser) -> None:
    one.add_argument("--space", required=True, metavar="FILE", help="the space file: what is searched, on which data")
    one.add_argument("--study", metavar="NAME", help="another name than the space's: starts a study beside it")
    _run_options(one)
    one.add_argument("--seed", type=number, metavar="N", help="of sampling and training (new study: 0)")
    one.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change the space: train.batch_size=8"
    )
    one.add_argument("--dry-run", action="store_true", help="check space, data, models and disk; print the plan")


def _study(one: argparse.ArgumentParser) -> None:
    one.add_argument("study", metavar="STUDY")


def _json(one: argparse.ArgumentParser) -> None:
    one.add_argument("--json", action="store_true", help="print JSON for scripts")


def _study_json(one: argparse.ArgumentParser) -> None:
    _study(one)
    _json(one)


def _resume(one: argparse.ArgumentParser) -> None:
    _study(one)
    _run_options(one)


def _add(one: argparse.ArgumentParser) -> None:
    _study(one)
    one.add_argument("values", nargs="+", metavar="KNOB=VALUE", help="searched knobs; what is left out is sampled")


def _retry(one: argparse.ArgumentParser) -> None:
    _study(one)
    one.add_argument("numbers", nargs="*", type=number, metavar="NUMBER", help="none: every failed one")


def _delete(one: argparse.ArgumentParser) -> None:
    _study(one)
    one.add_argument("--yes", action="store_true", help="do not ask")


def _show(one: argparse.ArgumentParser) -> None:
    _study(one)
    one.add_argument("number", type=number, metavar="NUMBER")
    _json(one)


def _confirm(one: argparse.ArgumentParser) -> None:
    _study(one)
    one.add_argument("--top", type=count, metavar="N", help="leaders to race against the default recipe (3)")
    one.add_argument("--seeds", type=count, metavar="N", help="most trainings of each, other seeds each (3)")
    one.add_argument("--folds", type=count, metavar="K", help="reshuffled splits: K disjoint validation sets in turn")
    one.add_argument("--budget", type=duration, metavar="TIME", help="spend no more than 30m, 4h ... on it in all")
    one.add_argument("--test", action="store_true", help="then read the locked test split, once")


def _import(one: argparse.ArgumentParser) -> None:
    _study(one)
    one.add_argument("logs", nargs="+", metavar="LOG", help="results.yaml, trainer_state.json, TensorBoard events, CSV")
    one.add_argument("--space", metavar="FILE", help="make the study from this space file where it is not there yet")
    one.add_argument("--wer", choices=("raw", "normalised"), help="what the WER counts, where the log does not tell")
    one.add_argument("--percent", action=argparse.BooleanOptionalAction, help="WERs are per cent, or are not")
    one.add_argument("--set", action="append", default=[], metavar="KNOB=VALUE", help="what the logs do not tell")


def _export(one: argparse.ArgumentParser) -> None:
    _study(one)
    one.add_argument("--trial", type=number, metavar="NUMBER", help="this configuration; none: the best")
    one.add_argument("-o", "--output", metavar="FILE", help="none: standard output")
    one.add_argument(
        "--format", choices=("tmsearch", "hf"), default="tmsearch", help="hf: Seq2SeqTrainingArguments, as JSON"
    )


def _train(one: argparse.ArgumentParser) -> None:
    one.add_argument("recipe", metavar="RECIPE", help="what `export` wrote, or a trial's config.yaml")
    one.add_argument("-o", "--output", metavar="DIR", help="the model folder to write; none: RECIPE without .yaml")
    one.add_argument(
        "--dtype", choices=("float32", "float16", "bfloat16"), default="float32", help="of the weights (float32)"
    )
    one.add_argument(
        "--average", type=count, metavar="N", help="average the last N checkpoints, if validation says so"
    )
    one.add_argument("--soup", metavar="STUDY", help="merge the models of its confirmation, if validation says so")
    one.add_argument("--on-all", action="store_true", help="train on the validation clips too; the test split stays")
    one.add_argument("--push-to-hub", metavar="NAME", help="then upload it, private; needs HF_TOKEN")
    one.add_argument("--public", action="store_true", help="with --push-to-hub: for everybody to see")


def _dashboard(one: argparse.ArgumentParser) -> None:
    one.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    one.add_argument("--port", type=number, default=8080, help="port to listen on (8080)")


def _tensorboard(one: argparse.ArgumentParser) -> None:
    _study(one)
    one.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    one.add_argument("--port", type=number, default=6006, help="port to listen on (6006)")


def _data(one: argparse.ArgumentParser) -> None:
    one.add_argument("source", metavar="PATH_OR_SPACE", help="a dataset as in data.dataset, or a space file")
    _json(one)


# name -> (what it does, its arguments, where it lives, an example)
COMMANDS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None], tuple[str, str], str]] = {
    "run": (
        "start a study, or go on with it",
        _run,
        ("run", "run"),
        "tmsearch run --space spaces/large_v3.yaml --trials 20",
    ),
    "resume": ("go on with a study, without its file", _resume, ("run", "resume"), "tmsearch resume large_v3"),
    "add": (
        "queue one configuration by hand",
        _add,
        ("edit", "add"),
        "tmsearch add large_v3 learning_rate=1e-5 warmup_steps=50",
    ),
    "retry": ("queue failed configurations again", _retry, ("edit", "retry"), "tmsearch retry large_v3 7"),
    "stop": ("ask a study's workers to save and leave", _study, ("edit", "stop"), "tmsearch stop large_v3"),
    "delete": ("remove a study and its files", _delete, ("edit", "delete"), "tmsearch delete demo --yes"),
    "list": ("every study of the storage, a line each", _json, ("inspect", "list_studies"), "tmsearch list"),
    "status": (
        "one line a configuration: state, rung, WER, cost",
        _study_json,
        ("inspect", "status"),
        "tmsearch status large_v3",
    ),
    "show": ("all about one configuration", _show, ("inspect", "show"), "tmsearch show large_v3 7"),
    "best": ("the best configuration so far", _study_json, ("inspect", "show_best"), "tmsearch best large_v3"),
    "import": (
        "take hand-run trainings into a study",
        _import,
        ("imports", "import_logs"),
        "tmsearch import large_v3 hand-runs/*/results.yaml",
    ),
    "confirm": (
        "train the leaders again: is the winner real?",
        _confirm,
        ("confirm", "confirm"),
        "tmsearch confirm large_v3 --top 3 --seeds 3",
    ),
    "export": (
        "write a configuration as a recipe to train",
        _export,
        ("final", "export"),
        "tmsearch export large_v3 -o best.yaml",
    ),
    "train": (
        "the final training run: a Hugging Face model folder",
        _train,
        ("final", "train"),
        "tmsearch train best.yaml -o my-whisper",
    ),
    "dashboard": ("optuna-dashboard on the storage", _dashboard, ("servers", "dashboard"), "tmsearch dashboard"),
    "tensorboard": (
        "TensorBoard on a study's trials",
        _tensorboard,
        ("servers", "tensorboard"),
        "tmsearch tensorboard large_v3",
    ),
    "data": ("describe a dataset before spending GPU time on it", _data, ("data", "data"), "tmsearch data recordings/"),
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
    for name, (what, arguments, (module, function), example) in COMMANDS.items():
        one = commands.add_parser(
            name,
            help=what,
            description=f"{what[0].upper()}{what[1:]}.",
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        arguments(one)
        if name != "data":
            one.add_argument(
                "--storage",
                metavar="URL",
                help="database of the studies; else TMSEARCH_STORAGE, else sqlite:///studies/tmsearch.db",
            )
        one.set_defaults(command=_lazy(module, function))
    return parser.parse_args(argv)
