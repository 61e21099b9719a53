"""The final training run: a recipe trained in full, merged where that helps, tested once, as a Hugging Face folder."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tmsearch import devices
from tmsearch.data import corpus as clips
from tmsearch.data import splits
from tmsearch.errors import InputError
from tmsearch.evaluation import evaluate
from tmsearch.evaluation.scores import Scores, write_scores
from tmsearch.export import soups
from tmsearch.export import weights as confirmed
from tmsearch.export.finalize import METRICS, PrintLine, finish, rates
from tmsearch.export.soups import Ingredient, SoupCandidate
from tmsearch.features.dataset import Speech
from tmsearch.model.whisper import Whisper
from tmsearch.recipe import Recipe, recipe_text, split_facts, write_atomically
from tmsearch.training import checkpoints, micro_batch
from tmsearch.training import train as training
from tmsearch.training.tensorboard import TrialLog
from tmsearch.training.warm import ModelCache

RECIPE, OPTIONS = "recipe.yaml", "options.json"
FAILED, INTERRUPTED = 1, 130
# The last checkpoints are averaged over this share of the training: late enough to be near each other.
AVERAGED_SHARE = 0.25


@dataclass(frozen=True)
class FinalRunOptions:
    """How the final run ends: `average` so many last checkpoints, `soup` files of weights by name, train on all clips.

    Averages and soups are kept only where the validation split says so; `on_all` leaves it nothing to say.
    """

    dtype: str = "float32"
    average: int = 0
    soup: Mapping[str, str] = dataclasses.field(default_factory=dict)
    on_all: bool = False


def train(
    recipe: Recipe, options: FinalRunOptions, folder: Path, cache: Path, stop: Callable[[], bool], say: PrintLine
) -> int:
    """Train `recipe`, score it on the locked test split, and write the model into `folder`; the exit code.

    Killed or interrupted, the same call goes on from the last checkpoint; called again after its end it does
    nothing. Raises InputError where the folder holds another training or the data is not the recipe's.
    """
    done = _known(folder, recipe, options)
    if done is not None:
        say(f"{folder}: already trained, validation WER {done['validation']['wer']:.3f}; see {METRICS}")
        return 0
    speech = _speech(recipe, options, cache)
    write_atomically(folder / OPTIONS, _options_text(options))
    write_atomically(folder / RECIPE, recipe_text(recipe))
    say(f"{recipe.train.model}: {recipe.train.max_steps} steps on {len(speech.split.train)} clips, into {folder}")
    try:
        result, last = _trained(recipe, options, speech, folder, stop, say)
    except training.TrainingStoppedError as stopped:
        say(f"interrupted at step {stopped.step}, everything is kept; the same command goes on")
        return INTERRUPTED
    except training.DivergenceError as diverged:
        say(f"failed: {diverged}; a lower train.learning_rate may hold")
        return FAILED
    except (RuntimeError, MemoryError) as error:
        if not micro_batch.is_out_of_memory(error):
            raise
        say("failed: out of memory; lower train.micro_batch_size in the recipe, or set train.low_memory")
        return FAILED
    seen = ", which it was trained on" if options.on_all else ""
    say(f"validation WER {result.wer:.3f} (raw {result.wer_raw:.3f}, CER {result.cer:.3f}){seen}")
    chosen, tried = _chosen(recipe, options, speech, folder, last, result, say)
    metrics: dict[str, Any] = {
        "validation": {**rates(chosen.scores), **({"trained_on": True} if options.on_all else {})},
        **({"kept": chosen.name, "tried": tried} if tried else {}),
        "train_seconds": result.train_seconds,
    }
    whisper = confirmed.whisper(recipe.train, chosen.weights)
    finish(recipe, speech, folder, options.dtype, whisper, metrics, say)
    shutil.rmtree(folder / "training", ignore_errors=True)
    return 0


def _known(folder: Path, recipe: Recipe, options: FinalRunOptions) -> dict[str, Any] | None:
    """The metrics of a finished training of this recipe; None where there is none yet."""
    kept, how = folder / RECIPE, folder / OPTIONS
    if kept.is_file() and kept.read_text(encoding="utf-8") != recipe_text(recipe):
        raise InputError(f"{folder}: holds the training of another recipe; name another folder with -o")
    if how.is_file() and how.read_text(encoding="utf-8") != _options_text(options):
        raise InputError(f"{folder}: holds a training with other options ({OPTIONS}); name another folder with -o")
    if not how.is_file() and folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"{folder}: is not empty; name another folder with -o")
    if not (folder / METRICS).is_file():
        return None
    found: dict[str, Any] = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    return found


def _options_text(options: FinalRunOptions) -> str:
    return json.dumps(dataclasses.asdict(options), indent=2) + "\n"


def _speech(recipe: Recipe, options: FinalRunOptions, cache: Path) -> Speech:
    """The recipe's clips, divided as the search divided them; raises InputError where either is no longer the same."""
    corpus = clips.load(recipe.data)
    if recipe.fingerprint is not None and corpus.fingerprint != recipe.fingerprint:
        raise InputError(
            f"data.dataset: {recipe.data.dataset} is not what the recipe was found on; pin data.revision or put "
            "the old files back, or delete `fingerprint` from the recipe to train on what there is now"
        )
    found = splits.split(corpus, recipe.data)
    here = split_facts(found.train, found.validation, found.test)["sha256"]
    if recipe.fingerprint and recipe.split.get("sha256", here) != here:
        raise InputError(
            "data: the split does not come out as the search's; put data.validation, data.test and data.split_seed back"
        )
    if options.on_all:
        found = dataclasses.replace(found, train=tuple(sorted((*found.train, *found.validation))))
    return Speech(corpus, found, recipe.data.language, recipe.data.task, cache)


def _points(steps: int, average: int) -> list[int]:
    """The steps whose weights are averaged, evenly over the training's end; the last one is the end."""
    gap = max(1, round(steps * AVERAGED_SHARE / max(1, average - 1)))
    return sorted({max(1, steps - place * gap) for place in range(max(1, average))})


def _trained(
    recipe: Recipe, options: FinalRunOptions, speech: Speech, folder: Path, stop: Callable[[], bool], say: PrintLine
) -> tuple[training.Result, dict[int, Path]]:
    """Point for point to the end; the last result, and the weights that were kept on the way, by step."""
    config, saved = recipe.train, folder / "training"
    points, warm = _points(config.max_steps, options.average), ModelCache()
    kept = {step: saved / f"weights-{step:06d}" for step in points}
    found = checkpoints.latest(saved, at_most=config.max_steps)
    begun = checkpoints.step_of(found) if found else 0
    if begun:
        say(f"goes on from step {begun}")
    result = None
    with TrialLog(folder / "runs", begun, dataclasses.asdict(config)) as logbook:

        def report(progress: training.StepMetrics) -> None:
            logbook.progress(progress)
            say(f"step {progress.step} of {config.max_steps}  loss {progress.loss:.3f}", passing=True)

        for step in points:
            if step != points[-1] and (kept[step] / confirmed.WEIGHTS).is_file():
                continue
            stretch = training.Stretch(
                first_step=0,
                last_step=step,
                threads=recipe.threads,
                micro_batch=config.micro_batch_size or config.batch_size,
                checkpoint=checkpoints.latest(saved, at_most=step),
                save_to=saved,
                save_seconds=training.SAVE_SECONDS,
            )
            result = training.train(config, speech, stretch, report, stop=stop, warm=warm)
            rates = {"wer": result.wer, "wer_raw": result.wer_raw, "cer": result.cer}
            logbook.rung(result.step, rates, result.scores)
            confirmed.keep(result.checkpoint, kept[step])
            checkpoints.keep_only(saved, [step])
    assert result is not None
    write_scores(folder, result.step, result.scores)
    return result, kept


def _chosen(
    recipe: Recipe,
    options: FinalRunOptions,
    speech: Speech,
    folder: Path,
    kept: Mapping[int, Path],
    result: training.Result,
    say: PrintLine,
) -> tuple[SoupCandidate, dict[str, float]]:
    """The last weights, or an average or soup that the validation split likes better; and all that were tried."""
    points = [Ingredient(f"step {step}", confirmed.read(kept[step] / confirmed.WEIGHTS)) for step in sorted(kept)]
    last = points[-1].weights
    candidates = [SoupCandidate("the last weights", last, _as_scores(result))]
    if options.on_all or (len(points) == 1 and not options.soup):
        return candidates[0], {}
    score = _scorer(recipe, speech)
    if len(points) > 1:
        averaged = soups.mean([one.weights for one in points])
        candidates.append(SoupCandidate(f"average of the last {len(points)} checkpoints", averaged, score(averaged)))
    if options.soup:
        read = [Ingredient(name, confirmed.read(Path(file))) for name, file in options.soup.items()]
        mixed = soups.fitting([Ingredient("this run", last), *read], last)
        if len(mixed) > 1:
            candidates += [soups.uniform(mixed, score), soups.greedy(mixed, score)]
        say(f"soup: {len(mixed) - 1} of {len(read)} models of the confirmation train the same parameters")
    best = soups.best(candidates)
    for one in candidates:
        say(f"{one.name}: validation WER {one.scores.wer:.3f}{', kept' if one is best else ''}")
    write_scores(folder, result.step, best.scores.clips)
    return best, {one.name: one.scores.wer for one in candidates}


def _as_scores(result: training.Result) -> Scores:
    return Scores(result.wer, result.wer_raw, result.cer, result.scores, result.loops)


def _scorer(recipe: Recipe, speech: Speech) -> Callable[[Mapping[str, torch.Tensor]], Scores]:
    """Weights -> their scores on the validation split; the model is loaded once."""
    loaded: list[Whisper] = []

    def score(weights: Mapping[str, torch.Tensor]) -> Scores:
        if not loaded:
            loaded.append(confirmed.whisper(recipe.train, weights))
            devices.move(loaded[0].model, devices.device())
        confirmed.put(loaded[0], weights)
        return evaluate.evaluate(loaded[0], speech, speech.split.validation, recipe.train)[0]

    return score
