"""The commands export and train."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from search import study
from search.errors import UserError
from search.paths import study_folder, trial_folder
from search.storage.database import open_storage
from tmsearch.cli.services import recipes
from tmsearch.cli.view.output_file import write_output
from tmsearch.export import trainer_arguments
from tmsearch.recipe import recipe_text


def export(arguments: argparse.Namespace) -> int:
    """Write a configuration as a recipe, or as arguments of Hugging Face's trainer."""
    storage = open_storage(arguments.storage)
    summary = study.summarize(study.open_study(storage, arguments.study))
    confirmed = recipes.confirmation(storage, summary)
    one, why = recipes.chosen(summary, confirmed, arguments.trial)
    recipe = recipes.recipe(summary, confirmed, one)
    if arguments.format == "hf":
        for knob, value in trainer_arguments.left_out(recipe.train).items():
            print(f"not among Seq2SeqTrainingArguments: {knob}={value}", file=sys.stderr)
    text = trainer_arguments.text(recipe.train) if arguments.format == "hf" else recipe_text(recipe)
    if arguments.output is None or arguments.output == "-":
        print(text, end="")
        return 0
    file = Path(arguments.output)
    if file.is_dir() or not file.absolute().parent.is_dir():
        raise UserError(f"{file}: no file can be written there; name one in a folder that exists")
    write_output(file, text)
    onward = "for a script of your own" if arguments.format == "hf" else f"next: tmsearch train {file}"
    print(f"{file}: trial {one.number} of study {summary.record.name}, {why}; {onward}")
    return 0


class _Stop:
    """Ctrl-C and SIGTERM: finish the step, save, leave."""

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._signal)

    def _signal(self, number: int, frame: object) -> None:
        if self.asked:
            os._exit(130)
        self.asked = True

    def __call__(self) -> bool:
        return self.asked


def train(arguments: argparse.Namespace) -> int:
    """The final training run."""
    recipe, remarks = recipes.read_recipe(arguments.recipe)
    path = Path(arguments.recipe)
    folder = Path(arguments.output) if arguments.output else path.with_suffix("")
    if folder == path or (folder.exists() and not folder.is_dir()):
        raise UserError(f"{folder}: not a folder; name one with -o")
    if arguments.on_all and (arguments.average or arguments.soup):
        raise UserError("--on-all: leaves no clips to judge an average or a soup by; leave --average and --soup out")
    if arguments.push_to_hub:
        from tmsearch.export import push_to_hub

        push_to_hub.check(arguments.push_to_hub)  # before an hour of training, not after
    for remark in remarks:
        _say(remark)
    soup = _soup(arguments)
    from tmsearch.cli.services.run_study import THREADS_THAT_SLEEP_SOON, cache_folder

    for name, value in THREADS_THAT_SLEEP_SOON.items():
        os.environ.setdefault(name, value)  # before torch is imported, which reads it once
    from tmsearch.export import final_run

    options = final_run.FinalRunOptions(arguments.dtype, arguments.average or 0, soup, arguments.on_all)
    code = final_run.train(recipe, options, folder, cache_folder(), _Stop(), _say)
    if code == 0 and arguments.push_to_hub:
        from tmsearch.export import push_to_hub

        push_to_hub.push(folder, arguments.push_to_hub, private=not arguments.public, say=_say)
    return code


def _soup(arguments: argparse.Namespace) -> dict[str, str]:
    """The kept weights of a confirmation's trainings on the study's own split, by name."""
    if arguments.soup is None:
        return {}
    storage = open_storage(arguments.storage)
    confirmed = recipes.confirmation(storage, study.summarize(study.open_study(storage, arguments.soup)))
    if confirmed is None:
        name = arguments.soup
        raise UserError(f"{name}: --soup: has no finished confirmation; `tmsearch confirm {name}` first")
    folder = study_folder(storage.folder, confirmed.record.name)
    found = {}
    for one in confirmed.history:
        file = trial_folder(folder, one.number) / "weights.safetensors"
        # Of another fold, it has been trained on clips that are to judge the soup.
        if one.state == "finished" and not (one.params or {}).get("fold") and file.is_file():
            found[f"{confirmed.record.name} trial {one.number}"] = str(file.resolve())
    if not found:
        raise UserError(f"{arguments.soup}: --soup: its confirmation kept no model of the study's own split")
    return found


def _say(line: str, passing: bool = False) -> None:
    """One line; a passing one (a step's loss) is overwritten by the next on a terminal and left out of a pipe."""
    if not passing:
        print(f"\r\033[K{line}" if sys.stdout.isatty() else line, flush=True)
    elif sys.stdout.isatty():
        print(f"\r\033[K{line}", end="", flush=True)
