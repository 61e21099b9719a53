"""Every command's arguments, help and example."""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from search.errors import UserError
from search.space.errors import printable
from tmsearch import __version__
from tmsearch.cli import arguments


class _Parser(argparse.ArgumentParser):
    """Says a mistake in one line, and what was meant where that can be told."""

    words: Sequence[str] = ()

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's; what it does not know is a mistake here, where the command's own options are at hand."""
        self.words = list(args or ())
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unexpected: {' '.join(map(str, unknown))}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        wrong = re.match(r"argument COMMAND: invalid choice: '(.*?)'", message)
        if wrong:
            near = difflib.get_close_matches(wrong[1], COMMANDS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(COMMANDS)}"
            message = f"no such command: {wrong[1]!r}; {hint}"
        else:
            message = self._mistyped() or message
        raise UserError(f"{printable(message)}; see `{self.prog} --help`")

    def _mistyped(self) -> str | None:
        """The first option that there is not, with the one that was meant or all that there are."""
        known = self._option_string_actions
        for word in self.words:
            option = word.partition("=")[0]
            if word == "--":
                return None
            if option.startswith("--") and option not in known:
                near = difflib.get_close_matches(option, known, n=1)
                all_ = ", ".join(one for one in known if one.startswith("--"))
                return f"no such option: {option}; {f'did you mean {near[0]}?' if near else f'there are {all_}'}"
        return None


class _Program(_Parser):
    """The program itself: its commands stand in groups, by what a person is about to do."""

    def format_help(self) -> str:
        widest = max(map(len, COMMANDS))
        lines = [self.format_usage(), f"{self.description}\n"]
        for group, names in GROUPS.items():
            lines.append(f"{group}:")
            lines += [f"  {name:<{widest}}  {COMMANDS[name][0]}" for name in names if name in COMMANDS]
            lines.append("")
        return "\n".join([*lines, str(self.epilog), ""])


def _lazy(module: str, function: str) -> Callable[[argparse.Namespace], int]:
    """Help must answer at once: a command's module is imported when it runs."""

    def call(arguments: argparse.Namespace) -> int:
        command: Callable[[argparse.Namespace], int] = getattr(importlib.import_module(module), function)
        return command(arguments)

    return call


# name -> what it does, its arguments, where it lives, examples
COMMANDS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None], tuple[str, str], *tuple[str, ...]]] = {
    "run": (
        "start a study, or go on with it",
        arguments.run,
        ("tmsearch.cli.commands.run", "run"),
        "tmsearch run --space spaces/large_v3.yaml --trials 20",
        "tmsearch run --space spaces/large_v3.yaml --dry-run              # check all of it, train nothing",
        "tmsearch run --space spaces/large_v3.yaml --trials 40 --workers 4 --timeout 8h",
    ),
    "resume": (
        "go on with a study, without its file",
        arguments.resume,
        ("tmsearch.cli.commands.run", "resume"),
        "tmsearch resume large_v3",
        "tmsearch resume large_v3 --trials 40                             # more of the same",
    ),
    "worker": (
        "one more worker of a study, on any machine",
        arguments.worker,
        ("tmsearch.cli.commands.run", "worker"),
        "tmsearch worker large_v3 --storage postgresql://HOST/DATABASE",
    ),
    "add": (
        "queue one configuration by hand",
        arguments.add,
        ("tmsearch.cli.commands.edit", "add"),
        "tmsearch add large_v3 learning_rate=1e-5 warmup_steps=50",
    ),
    "retry": (
        "queue failed configurations again",
        arguments.retry,
        ("tmsearch.cli.commands.edit", "retry"),
        "tmsearch retry large_v3 7",
    ),
    "stop": (
        "ask a study's workers to save and leave",
        arguments.study,
        ("tmsearch.cli.commands.edit", "stop"),
        "tmsearch stop large_v3",
    ),
    "delete": (
        "remove a study and its files",
        arguments.delete,
        ("tmsearch.cli.commands.edit", "delete"),
        "tmsearch delete demo --yes",
    ),
    "list": (
        "every study of the storage, a line each",
        arguments.as_json,
        ("tmsearch.cli.commands.show", "list_studies"),
        "tmsearch list",
    ),
    "status": (
        "one line a configuration: state, rung, WER, cost",
        arguments.status,
        ("tmsearch.cli.commands.status", "status"),
        "tmsearch status large_v3",
        "tmsearch status large_v3 --watch && tmsearch export large_v3 -o best.yaml",
    ),
    "doctor": (
        "what is wrong with a study, and mend it",
        arguments.doctor,
        ("tmsearch.cli.commands.doctor", "doctor"),
        "tmsearch doctor large_v3 --repair",
    ),
    "show": (
        "all about one configuration",
        arguments.show,
        ("tmsearch.cli.commands.show", "show"),
        "tmsearch show large_v3 7",
    ),
    "best": (
        "the best configuration so far",
        arguments.study_json,
        ("tmsearch.cli.commands.show", "show_best"),
        "tmsearch best large_v3",
    ),
    "import": (
        "take hand-run trainings into a study",
        arguments.import_,
        ("tmsearch.cli.commands.import_", "import_logs"),
        "tmsearch import large_v3 hand-runs/*/results.yaml",
    ),
    "confirm": (
        "train the leaders again: is the winner real?",
        arguments.confirm,
        ("tmsearch.cli.commands.confirm", "confirm"),
        "tmsearch confirm large_v3 --top 3 --seeds 3",
        "tmsearch confirm large_v3 --test                                 # then once on the locked test split",
    ),
    "export": (
        "write a configuration as a recipe to train",
        arguments.export,
        ("tmsearch.cli.commands.train", "export"),
        "tmsearch export large_v3 -o best.yaml",
        "tmsearch export large_v3 --trial 7 --format hf",
    ),
    "train": (
        "the final training run: a Hugging Face model folder",
        arguments.train,
        ("tmsearch.cli.commands.train", "train"),
        "tmsearch train best.yaml -o my-whisper",
        "tmsearch train best.yaml --average 3 --soup large_v3",
    ),
    "report": (
        "a study as one page to look at and listen to",
        arguments.report,
        ("tmsearch.cli.commands.report", "report"),
        "tmsearch report large_v3 -o report.html",
    ),
    "dashboard": (
        "optuna-dashboard on the storage",
        arguments.dashboard,
        ("tmsearch.cli.commands.serve", "dashboard"),
        "tmsearch dashboard",
    ),
    "tensorboard": (
        "TensorBoard on a study's trials",
        arguments.tensorboard,
        ("tmsearch.cli.commands.serve", "tensorboard"),
        "tmsearch tensorboard large_v3",
    ),
    "init": (
        "write a space file for a dataset after looking at it",
        arguments.init,
        ("tmsearch.cli.commands.init", "init"),
        "tmsearch init recordings/ --language en",
        "tmsearch init me/throat --model openai/whisper-large-v3 --gpu 80 -o spaces/throat.yaml",
    ),
    "completion": (
        "print what makes a shell complete tmsearch's words",
        arguments.completion,
        ("tmsearch.cli.completion", "completion"),
        'eval "$(tmsearch completion bash)"     # in ~/.bashrc; the same for zsh in ~/.zshrc, after compinit',
        "tmsearch completion fish > ~/.config/fish/completions/tmsearch.fish",
    ),
    "help": ("help on a command", arguments.help_, ("tmsearch.cli.parser", "help_"), "tmsearch help run"),
    "data": (
        "describe a dataset before spending GPU time on it",
        arguments.data,
        ("tmsearch.cli.commands.data", "data"),
        "tmsearch data recordings/",
    ),
}


WITHOUT_STORAGE = ("data", "init", "completion", "help")
# What a person is about to do -> the commands for it.
GROUPS = {
    "prepare": ("data", "init"),
    "search": ("run", "resume", "worker", "add", "import", "retry", "stop"),
    "look": ("status", "show", "best", "report", "dashboard", "tensorboard"),
    "decide": ("confirm", "export", "train"),
    "keep house": ("list", "doctor", "delete", "completion", "help"),
}


def _parser() -> _Program:
    parser = _Program(
        prog="tmsearch",
        description="Hyperparameter search for fine-tuning Whisper on throat-microphone speech.",
        epilog="first steps:\n  tmsearch run --space spaces/demo.yaml --trials 8\n  tmsearch status demo\n"
        "  tmsearch export demo -o best.yaml\n  tmsearch train best.yaml\n\n"
        "`tmsearch COMMAND --help` has each command's options and an example; --version says which tmsearch this is\n"
        "exit codes: 0 done, 1 the run failed, 2 bad input, 130 interrupted with everything kept",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"tmsearch {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", dest="name", required=True, parser_class=_Parser)
    for name, (what, add_arguments, (module, function), *examples) in COMMANDS.items():
        one = commands.add_parser(
            name,
            help=what,
            description=f"{what[0].upper()}{what[1:]}.",
            epilog="\n  ".join([f"example{'s' if len(examples) > 1 else ''}:", *examples]),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        add_arguments(one)
        if name not in WITHOUT_STORAGE:
            one.add_argument(
                "--storage",
                metavar="URL",
                help="database of the studies; else TMSEARCH_STORAGE, else sqlite:///studies/tmsearch.db",
            )
        one.set_defaults(command=_lazy(module, function))
    return parser


def parse(argv: Sequence[str]) -> Any:
    """The arguments, with the command's function under `command`; raises UserError.

    Where a shell asks for completions (argcomplete's protocol) it answers them and leaves.
    """
    parser = _parser()
    if "_ARGCOMPLETE" in os.environ:
        from tmsearch.cli.completion import complete

        complete(parser)
    return parser.parse_args(_with_interval(argv))


def _with_interval(argv: Sequence[str]) -> list[str]:
    """`--watch demo` means the study: an option that may have a value takes whatever follows it."""
    words = list(argv)
    for place, word in enumerate(words[:-1]):
        if word == "--watch" and words[0] == "status" and not re.fullmatch(r"[\d.]+[smhd]?", words[place + 1]):
            words[place] = "--watch=2s"
    return words


def help_(arguments: argparse.Namespace) -> int:
    """What `--help` prints, of the program or of a command."""
    # argparse ends the process once it has printed help.
    parser = _parser()
    parser.parse_args([*([arguments.about] if arguments.about else []), "--help"])
    return 0
