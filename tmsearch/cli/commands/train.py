"""The commands export, train and export-model."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from search import study
from search.errors import UserError
from search.exit_codes import DONE, FAILED, INTERRUPTED
from search.paths import trial_folder
from search.storage import ownership
from search.storage.database import open_storage
from tmsearch.cli.services import recipes
from tmsearch.cli.view import terminal
from tmsearch.errors import InputError
from tmsearch.export import trainer_arguments
from tmsearch.export.conversion import targets
from tmsearch.recipe import Recipe, recipe_text
from tmsearch.tracking import choice

if TYPE_CHECKING:
    from tmsearch.export.final_run import FinalRunOptions

if TYPE_CHECKING:
    from tmsearch.features.dataset import Speech


def export(arguments: argparse.Namespace) -> int:
    """Write a configuration as a recipe, or as arguments of Hugging Face's trainer."""
    exported = recipes.export_recipe(open_storage(arguments.storage), arguments.study, arguments.trial)
    text = _trainer_text(exported.recipe) if arguments.format == "hf" else recipe_text(exported.recipe)
    if arguments.output is None or arguments.output == "-":
        terminal.print_file(text)
        return DONE
    file = Path(arguments.output)
    recipes.write_recipe(file, text)
    next_step = f"next: tmsearch train {shlex.quote(str(file))}"
    if arguments.format == "hf":
        next_step = "for a script of your own"
    is_searched = exported.number != recipes.NOT_SEARCHED
    subject = f"trial {exported.number} of study" if is_searched else "a recipe for study"
    print(f"{file}: {subject} {arguments.study}, {exported.reason}; {next_step}")
    return DONE


def _trainer_text(recipe: Recipe) -> str:
    for knob, value in trainer_arguments.left_out(recipe.train).items():
        print(f"not among Seq2SeqTrainingArguments: {knob}={value}", file=sys.stderr)
    return trainer_arguments.text(recipe.train)


def _check_options(arguments: argparse.Namespace) -> None:
    """Raise UserError for options that do not go together."""
    if arguments.on_all and (arguments.average or arguments.soup):
        raise UserError("--on-all: leaves no clips to judge an average or a soup by; leave --average and --soup out")
    if arguments.public and not arguments.push_to_hub:
        raise UserError("--public: says who sees what --push-to-hub uploads; give that too, or leave it out")


def train(arguments: argparse.Namespace) -> int:
    """The final training run."""
    recipe, remarks = recipes.read_recipe(arguments.recipe)
    path = Path(arguments.recipe)
    folder = Path(arguments.output) if arguments.output else path.with_suffix("")
    if folder == path or (folder.exists() and not folder.is_dir()):
        raise UserError(f"{folder}: not a folder; name one with -o")
    _check_options(arguments)
    trackers = choice.choose(arguments.track, folder)
    if arguments.push_to_hub:
        from tmsearch.export import push_to_hub

        # before an hour of training, not after
        push_to_hub.check(arguments.push_to_hub, private=not arguments.public)
    if arguments.track and (folder / choice.FOLDER).is_dir():
        choice.remember(trackers, folder)
    for remark in remarks:
        _print_line(remark)
    options = _options(arguments)
    from tmsearch.cli.services.run_study import cache_folder
    from tmsearch.export import final_run

    stop = _StopSignal()
    with _tracked(trackers, recipe, folder, stop):
        outcome = final_run.train(recipe, options, folder, cache_folder(), stop, _print_line)
    if outcome == "done" and arguments.push_to_hub:
        from tmsearch.export import push_to_hub

        push_to_hub.push(folder, arguments.push_to_hub, private=not arguments.public, say=_print_line)
    return {"done": DONE, "failed": FAILED, "interrupted": INTERRUPTED}[outcome]


def _options(arguments: argparse.Namespace) -> FinalRunOptions:
    """How the final run ends; imports torch, after its environment is set."""
    soup = _soup(arguments)
    from tmsearch.cli.services.run_study import torch_environment

    for name, value in torch_environment().items():
        os.environ.setdefault(name, value)  # before torch is imported, which reads it once
    from tmsearch.export.final_run import FinalRunOptions

    return FinalRunOptions(
        arguments.dtype,
        arguments.average or 0,
        soup,
        arguments.on_all,
        arguments.card_transcripts,
        not arguments.no_runtimes,
    )


@contextlib.contextmanager
def _tracked(names: tuple[str, ...], recipe: Recipe, folder: Path, stop: Callable[[], bool]) -> Iterator[None]:
    """Trackers follow the training within the block, and get the model at its end."""
    from tmsearch.cli.services.tracking.final_training import EVERY_SECONDS, FinalTraining
    from tmsearch.cli.services.tracking.follower import Following, followed

    training = FinalTraining(recipe, folder, names)
    for name in names:
        _print_line(choice.where(name, folder, training.project))
    with followed(names, Following(folder, training, _print_line, stop, EVERY_SECONDS)):
        yield


def export_model(arguments: argparse.Namespace) -> int:
    """A model folder for another runtime, heard there beside our own decoding."""
    folder = Path(arguments.folder)
    named = folder if folder.name not in ("", "..") else folder.resolve()
    output = Path(arguments.out) if arguments.out else named.with_name(f"{named.name}-{arguments.to}")
    dtype = targets.check(folder, arguments.to, output, arguments.dtype)
    target = targets.TARGETS[arguments.to]
    from tmsearch.cli.services.run_study import torch_environment

    for name, value in torch_environment().items():
        os.environ.setdefault(name, value)  # before torch is imported, which reads it once
    from tmsearch.export.conversion import agreement, convert
    from tmsearch.export.conversion.transcripts import RuntimeFailedError

    missing = target.missing_runtime() if arguments.clips else "--clips 0"
    speech = None
    if missing is None:
        try:
            speech, normalization = _speech_to_hear(folder, arguments.data)
        except (UserError, InputError) as error:
            if arguments.data:
                raise
            missing = str(error)
    convert.convert(folder, arguments.to, output, dtype)
    megabytes = sum(file.stat().st_size for file in output.iterdir()) / 1e6
    _print_line(f"{output}: for {target.runtime}, {dtype}, {megabytes:,.0f} MB")
    if speech is None:
        _print_line(f"not heard: {missing}")
        return DONE
    try:
        result = agreement.measure(
            folder, arguments.to, output, speech, most=arguments.clips, normalization=normalization, say=_print_line
        )
    except RuntimeFailedError as error:
        print(f"tmsearch: {output}: {target.runtime} does not hear with it: {error}", file=sys.stderr)
        return FAILED
    _print_line(result.sentence())
    return DONE


def _speech_to_hear(folder: Path, dataset: str | None) -> tuple[Speech, str]:
    """Clips to hear, as validation clips, and what they are brought to: of `dataset`, else of the model's own recipe.

    Raises:
        UserError, InputError: there are none, or they can't be read.
    """
    from tmsearch.cli.services.run_study import cache_folder
    from tmsearch.config import DataConfig
    from tmsearch.export.conversion import agreement
    from tmsearch.export.final_run import RECIPE

    file = folder / RECIPE
    recipe = recipes.read_recipe(str(file))[0] if file.is_file() else None
    normalization = recipe.train.normalization if recipe else "none"
    if dataset is not None:
        language, task = (recipe.data.language, recipe.data.task) if recipe else targets.language_and_task(folder)
        data = DataConfig(dataset=dataset, language=language, task=task)
        return agreement.all_clips(data, cache_folder()), normalization
    if recipe is None:
        raise InputError(f"{file}: not there, so there are no validation clips; name some with --data")
    return agreement.validation_clips(recipe.data, cache_folder()), normalization


class _StopSignal:
    """Whether Ctrl-C or SIGTERM asked the training to finish its step, save and exit; a second one ends it at once."""

    def __init__(self) -> None:
        self._received = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._receive)

    def _receive(self, number: int, frame: object) -> None:
        if self._received:
            os._exit(INTERRUPTED)
        self._received = True

    def __call__(self) -> bool:
        return self._received


def _soup(arguments: argparse.Namespace) -> dict[str, str]:
    """The saved weights of a confirmation's trainings on the study's own split: files by name."""
    if arguments.soup is None:
        return {}
    name = arguments.soup
    storage = open_storage(arguments.storage)
    confirmed = recipes.finished_confirmation(storage, study.summarize(study.open_study(storage, name)))
    if confirmed is None:
        raise UserError(f"{name}: --soup: has no finished confirmation; `tmsearch confirm {name}` first")
    folder = ownership.checked_folder(study.open_study(storage, confirmed.record.name))
    weights = {}
    for trial in confirmed.history:
        file = trial_folder(folder, trial.number) / "weights.safetensors"
        # A training of another fold has seen clips that are to judge the soup.
        on_own_split = not (trial.params or {}).get("fold")
        if trial.state == "finished" and on_own_split and file.is_file():
            weights[f"{confirmed.record.name} trial {trial.number}"] = str(file.resolve())
    if not weights:
        raise UserError(f"{name}: --soup: its confirmation kept no model of the study's own split")
    return weights


def _print_line(line: str, passing: bool = False) -> None:
    """Print a line; on a terminal the next line overwrites a `passing` one (a step's loss), a pipe leaves it out."""
    is_terminal = sys.stdout.isatty()
    if passing and not is_terminal:
        return
    start = "\r\033[K" if is_terminal else ""
    print(f"{start}{line}", end="" if passing else "\n", flush=True)
