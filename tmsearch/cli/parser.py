"""The commands: what each does, its arguments and examples, where it lives; and the parser made of them."""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import re
import shlex
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from search.errors import UserError
from search.exit_codes import BAD_INPUT, DONE, FAILED, INTERRUPTED
from search.paths import DEFAULT_URL
from search.space.errors import printable
from tmsearch import __version__
from tmsearch.cli import arguments


@dataclass(frozen=True)
class Command:
    """One command. `target` is module:function, imported when the command runs: help must answer at once."""

    summary: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    target: str
    examples: tuple[str, ...]
    has_storage: bool = True

    def __call__(self, arguments: argparse.Namespace) -> int:
        module, _, function = self.target.partition(":")
        run: Callable[[argparse.Namespace], int] = getattr(importlib.import_module(f"tmsearch.cli.{module}"), function)
        return run(arguments)


COMMANDS = {
    "data": Command(
        "describe a dataset before spending GPU time on it",
        arguments.data,
        "commands.data:data",
        ("tmsearch data recordings/",),
        has_storage=False,
    ),
    "init": Command(
        "write a space file for a dataset after looking at it",
        arguments.init,
        "commands.init:init",
        (
            "tmsearch init recordings/ --language en",
            "tmsearch init me/throat --model openai/whisper-large-v3 --gpu 80 -o spaces/throat.yaml",
        ),
        has_storage=False,
    ),
    "run": Command(
        "start a study, or continue it",
        arguments.run,
        "commands.run:run",
        (
            "tmsearch run --space spaces/large_v3.yaml --trials 20",
            "tmsearch run --space spaces/large_v3.yaml --dry-run              # check all of it, train nothing",
            "tmsearch run --space spaces/large_v3.yaml --trials 40 --workers 4 --timeout 8h",
        ),
    ),
    "resume": Command(
        "continue a study without its space file",
        arguments.resume,
        "commands.run:resume",
        (
            "tmsearch resume large_v3",
            "tmsearch resume large_v3 --trials 40                             # more of the same",
        ),
    ),
    "worker": Command(
        "one more worker of a study, on any machine",
        arguments.worker,
        "commands.run:worker",
        ("tmsearch worker large_v3 --storage postgresql://HOST/DATABASE",),
    ),
    "add": Command(
        "queue one configuration by hand",
        arguments.add,
        "commands.edit:add",
        ("tmsearch add large_v3 learning_rate=1e-5 warmup_steps=50",),
    ),
    "import": Command(
        "take hand-run trainings into a study",
        arguments.import_,
        "commands.import_:import_logs",
        ("tmsearch import large_v3 hand-runs/*/results.yaml",),
    ),
    "retry": Command(
        "queue failed configurations again",
        arguments.retry,
        "commands.edit:retry",
        ("tmsearch retry large_v3 7",),
    ),
    "stop": Command(
        "ask a study's workers to save and exit",
        arguments.study,
        "commands.edit:stop",
        ("tmsearch stop large_v3",),
    ),
    "status": Command(
        "one line a configuration: state, rung, WER, cost",
        arguments.status,
        "commands.status:status",
        (
            "tmsearch status large_v3",
            "tmsearch status large_v3 --watch && tmsearch export large_v3 -o best.yaml",
        ),
    ),
    "show": Command(
        "all about one configuration",
        arguments.show,
        "commands.show:show",
        ("tmsearch show large_v3 7",),
    ),
    "best": Command(
        "the best configuration so far",
        arguments.study_json,
        "commands.show:show_best",
        ("tmsearch best large_v3",),
    ),
    "report": Command(
        "a study as one page to look at and listen to",
        arguments.report,
        "commands.report:report",
        ("tmsearch report large_v3 -o report.html",),
    ),
    "dashboard": Command(
        "optuna-dashboard on the storage",
        arguments.dashboard,
        "commands.serve:dashboard",
        ("tmsearch dashboard",),
    ),
    "tensorboard": Command(
        "TensorBoard on a study's trials",
        arguments.tensorboard,
        "commands.serve:tensorboard",
        ("tmsearch tensorboard large_v3",),
    ),
    "confirm": Command(
        "train the leaders again: is the winner real?",
        arguments.confirm,
        "commands.confirm:confirm",
        (
            "tmsearch confirm large_v3 --dry-run --price 2.50                 # what it would take; writes nothing",
            "tmsearch confirm large_v3 --top 3 --seeds 3",
            "tmsearch confirm large_v3 --test                                 # then once on the locked test split",
        ),
    ),
    "export": Command(
        "write a configuration as a recipe to train",
        arguments.export,
        "commands.train:export",
        (
            "tmsearch export large_v3 -o best.yaml",
            "tmsearch export large_v3 --trial 7 --format hf",
        ),
    ),
    "train": Command(
        "the final training run: a Hugging Face model folder",
        arguments.train,
        "commands.train:train",
        (
            "tmsearch train best.yaml -o my-whisper",
            "tmsearch train best.yaml --average 3 --soup large_v3",
        ),
    ),
    "export-model": Command(
        "convert a model folder for faster-whisper, whisper.cpp or onnxruntime",
        arguments.export_model,
        "commands.train:export_model",
        (
            "tmsearch export-model my-whisper --to ctranslate2",
            "tmsearch export-model my-whisper --to ggml --out my-whisper-cpp",
        ),
        has_storage=False,
    ),
    "list": Command(
        "every study of the storage, a line each",
        arguments.as_json,
        "commands.show:list_studies",
        ("tmsearch list",),
    ),
    "doctor": Command(
        "find what is wrong with this machine, or with a study",
        arguments.doctor,
        "commands.doctor:doctor",
        (
            "tmsearch doctor                                                  # this machine, to paste into an issue",
            "tmsearch doctor large_v3 --repair",
        ),
    ),
    "delete": Command(
        "remove a study and its files",
        arguments.delete,
        "commands.edit:delete",
        ("tmsearch delete demo --yes",),
    ),
    "completion": Command(
        "print a script that completes tmsearch's words in a shell",
        arguments.completion,
        "completion:completion",
        (
            'eval "$(tmsearch completion bash)"     # in ~/.bashrc; the same for zsh in ~/.zshrc, after compinit',
            "tmsearch completion fish > ~/.config/fish/completions/tmsearch.fish",
        ),
        has_storage=False,
    ),
    "help": Command(
        "help on a command",
        arguments.help_,
        "parser:print_help",
        ("tmsearch help run",),
        has_storage=False,
    ),
}

# What a person wants to do -> the commands for it.
GROUPS = {
    "prepare": ("data", "init"),
    "search": ("run", "resume", "worker", "add", "import", "retry", "stop"),
    "look": ("status", "show", "best", "report", "dashboard", "tensorboard"),
    "decide": ("confirm", "export", "train", "export-model"),
    "maintain": ("list", "doctor", "delete", "completion", "help"),
}


class _Parser(argparse.ArgumentParser):
    """Reports a mistake in one line, with what was probably meant."""

    _words: Sequence[str] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's, but unknown arguments are an error here, where the command's own options are at hand."""
        self._words = list(args or ())
        namespace, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unexpected: {' '.join(_without_address(str(word)) for word in unknown)}")
        for action in self._actions:
            if getattr(namespace, action.dest, None) == "":  # a shell's variable that is not set
                self.error(f"argument {'/'.join(action.option_strings) or action.metavar}: is empty; give a value")
        return namespace, unknown

    def error(self, message: str) -> NoReturn:
        unknown_command = re.match(r"argument COMMAND: invalid choice: '(.*?)'", message)
        unknown_option = self._unknown_option()
        if unknown_command:
            message = f"no such command: {unknown_command[1]!r}; {_hint(unknown_command[1], COMMANDS)}"
        elif unknown_option is not None:
            options = [option for option in self._option_string_actions if option.startswith("--")]
            message = f"no such option: {unknown_option}; {_hint(unknown_option, options)}"
        elif message.endswith("required: --space") and self._words and not self._words[0].startswith("-"):
            message += f"; did you mean --space {shlex.quote(_without_address(self._words[0]))}?"
        raise UserError(f"{printable(message)}; see `{self.prog} --help`")

    def _unknown_option(self) -> str | None:
        for word in self._words:
            option = word.partition("=")[0]
            if word == "--":
                return None
            if option.startswith("--") and option not in self._option_string_actions:
                return option
        return None


def _without_address(word: str) -> str:
    """A word without what follows `://`: of a webhook it is a secret."""
    return re.sub(r"(?<=://).+", "...", word)


def _hint(word: str, choices: Iterable[str]) -> str:
    """The choice that a misspelt word is closest to, or all choices."""
    names = list(choices)
    close_matches = difflib.get_close_matches(word, names, n=1)
    return f"did you mean {close_matches[0]}?" if close_matches else f"there are {', '.join(names)}"


class _Program(_Parser):
    """The program itself: its help lists the commands in groups."""

    def format_help(self) -> str:
        width = max(map(len, COMMANDS))
        lines = [self.format_usage(), f"{self.description}\n"]
        for group, names in GROUPS.items():
            lines.append(f"{group}:")
            lines += [f"  {name:<{width}}  {COMMANDS[name].summary}" for name in names]
            lines.append("")
        return "\n".join([*lines, str(self.epilog), ""])


def new_parser() -> argparse.ArgumentParser:
    """The parser of the program with all its commands."""
    parser = _Program(
        prog="tmsearch",
        description="Hyperparameter search for fine-tuning Whisper on throat-microphone speech.",
        epilog="first steps:\n  tmsearch run --space spaces/demo.yaml --trials 8\n  tmsearch status demo\n"
        "  tmsearch export demo -o best.yaml\n  tmsearch train best.yaml\n\n"
        "`tmsearch COMMAND --help` has each command's options and an example; --version prints the version\n"
        f"exit codes: {DONE} done, {FAILED} the run failed, {BAD_INPUT} bad input, {INTERRUPTED} interrupted with "
        "everything kept",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"tmsearch {__version__}")
    subparsers = parser.add_subparsers(metavar="COMMAND", dest="name", required=True, parser_class=_Parser)
    for name, command in COMMANDS.items():
        title = "examples:" if len(command.examples) > 1 else "example:"
        subparser = subparsers.add_parser(
            name,
            help=command.summary,
            description=_sentence(command.summary),
            epilog="\n  ".join([title, *command.examples]),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.add_arguments(subparser)
        if command.has_storage:
            subparser.add_argument(
                "--storage",
                metavar="URL",
                help=f"database of the studies; else TMSEARCH_STORAGE, else {DEFAULT_URL}",
            )
        subparser.set_defaults(command=command)
    return parser


def _sentence(summary: str) -> str:
    """What a command does, as a sentence of its own."""
    return f"{summary[0].upper()}{summary[1:]}{'' if summary.endswith('?') else '.'}"


def parse(argv: Sequence[str]) -> Any:
    """The arguments, with the command to call under `command`.

    Where a shell asks for completions (argcomplete's protocol) it answers them and ends the process.

    Raises:
        UserError: a word of `argv` is missing, unknown or malformed.
    """
    parser = new_parser()
    if "_ARGCOMPLETE" in os.environ:
        from tmsearch.cli.completion import complete

        complete(parser, {name: command.summary for name, command in COMMANDS.items()})
    return parser.parse_args(_with_interval(argv))


def _with_interval(argv: Sequence[str]) -> list[str]:
    """`--watch demo` means the study: argparse gives an option with an optional value whatever follows it."""
    words = list(argv)
    for position, word in enumerate(words[:-1]):
        is_watch = word == "--watch" and words[0] == "status"
        if is_watch and not re.fullmatch(r"[\d.]+[smhd]?", words[position + 1]):
            words[position] = "--watch=2s"
    return words


def print_help(arguments: argparse.Namespace) -> int:
    """What `--help` prints, of the program or of a command."""
    about = [arguments.about] if arguments.about else []
    new_parser().parse_args([*about, "--help"])  # prints and ends the process
    return DONE
