"""The final training run: a recipe trained in full, merged where that helps, tested once, as a Hugging Face folder."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tmsearch import devices
from tmsearch.data import corpus as clips
from tmsearch.data import splits
from tmsearch.data.augmentation.supplement import load_supplement
from tmsearch.errors import InputError
from tmsearch.evaluation import evaluate, long_form
from tmsearch.evaluation.scores import LONG_OBJECTIVES, Scores, measure_name, write_scores
from tmsearch.export import soups
from tmsearch.export import weights as weight_files
from tmsearch.export.finalize import METRICS, PrintLine, finish, rates, renew_card
from tmsearch.export.soups import Ingredient, SoupCandidate, Weights
from tmsearch.features.dataset import Speech
from tmsearch.files import write_atomically
from tmsearch.model import trainable
from tmsearch.model.whisper import Whisper
from tmsearch.recipe import Recipe, recipe_text, split_facts
from tmsearch.training import checkpoints
from tmsearch.training import train as training
from tmsearch.training.optim import optimizer
from tmsearch.training.saving import SAVE_SECONDS
from tmsearch.training.state import DivergenceError, StepMetrics
from tmsearch.training.tensorboard import TrialLog

RECIPE = "recipe.yaml"
OPTIONS = "options.json"
FinalRunOutcome = Literal["done", "failed", "interrupted"]
# The last checkpoints are averaged over this share of the training: late enough to be near each other.
AVERAGED_SHARE = 0.25
LAST_WEIGHTS = "the last weights"
AVERAGED_WEIGHTS = "the averaged weights"  # of a recipe with average_share


@dataclass(frozen=True)
class FinalRunOptions:
    """How the final run ends. Averages and soups are kept only where the validation split prefers them."""

    dtype: str = "float32"  # of the exported weights
    average: int = 0  # how many of the last checkpoints are averaged
    soup: Mapping[str, str] = dataclasses.field(default_factory=dict)  # name -> file of weights
    on_all: bool = False  # also train on the validation clips, which then choose nothing
    card_transcripts: bool = False  # of the worst test clips; concerns the card alone and may change afterwards
    in_runtimes: bool = True  # whether the folder is measured in transformers' pipeline and faster-whisper


def train(
    recipe: Recipe, options: FinalRunOptions, folder: Path, cache: Path, stop: Callable[[], bool], say: PrintLine
) -> FinalRunOutcome:
    """Trains `recipe`, scores it on the locked test split, and writes the model into `folder`; returns the outcome.

    Killed or interrupted, the same call resumes from the last checkpoint; called again after its end it does nothing.

    Args:
        cache: the folder of the log-mels.
        stop: asked after every step.

    Raises:
        InputError: the folder holds another training, or the data is not the recipe's.
    """
    metrics = _finished_metrics(folder, recipe, options)
    if metrics is not None:
        say(f"{folder}: already trained, validation WER {metrics['validation']['wer']:.3f}; see {METRICS}")
        renew_card(recipe, folder, say, card_transcripts=options.card_transcripts)
        return "done"
    optimizer.check_installed(recipe.train)
    speech = _speech(recipe, options, cache)
    write_atomically(folder / OPTIONS, _options_text(options))
    write_atomically(folder / RECIPE, recipe_text(recipe))
    say(f"{recipe.train.model}: {recipe.train.max_steps} steps on {len(speech.split.train)} clips, into {folder}")
    try:
        result, weights = _trained(recipe, options, speech, folder, stop, say)
    except training.TrainingStoppedError as stopped:
        say(f"interrupted at step {stopped.step}, everything is kept; the same command resumes")
        return "interrupted"
    except DivergenceError as error:
        say(f"failed: {error}; a lower train.learning_rate may help")
        return "failed"
    except (RuntimeError, MemoryError) as error:
        if not devices.is_out_of_memory(error):
            raise
        say(f"failed: out of memory; in the recipe, {devices.MEMORY_ADVICE}")
        return "failed"
    _export(recipe, options, speech, folder, weights, result, say)
    shutil.rmtree(folder / "training", ignore_errors=True)
    return "done"


def _export(
    recipe: Recipe,
    options: FinalRunOptions,
    speech: Speech,
    folder: Path,
    weights: Mapping[int, Path],
    result: training.Result,
    say: PrintLine,
) -> None:
    """Chooses the final weights by the validation split, and writes the model folder."""
    trained_on = ", which it was trained on" if options.on_all else ""
    say(f"validation WER {result.wer:.3f} (raw {result.wer_raw:.3f}, CER {result.cer:.3f}){trained_on}")
    chosen, tried = _chosen(recipe, options, speech, folder, weights, result, say)
    metrics: dict[str, Any] = {"validation": rates(chosen.scores)}
    if options.on_all:
        metrics["validation"]["trained_on"] = True
    if tried:
        metrics |= {"kept": chosen.name, "tried": tried}
    metrics["train_seconds"] = result.train_seconds
    whisper = weight_files.trained_model(recipe.train, chosen.weights)
    long_scores = result.long
    if chosen.name not in (LAST_WEIGHTS, AVERAGED_WEIGHTS) and long_scores is not None:
        devices.move(whisper.model, devices.device())
        long_scores, _ = long_form.score(whisper, speech, speech.split.validation, recipe.train)
    if long_scores is not None:
        metrics["validation_long"] = long_scores.rates()
        say(f"validation clips as long recordings: WER {long_scores.wer:.3f}")
    finish(
        recipe,
        speech,
        folder,
        options.dtype,
        whisper,
        metrics,
        say,
        card_transcripts=options.card_transcripts,
        in_runtimes=options.in_runtimes,
    )


def _finished_metrics(folder: Path, recipe: Recipe, options: FinalRunOptions) -> dict[str, Any] | None:
    """The metrics of a finished training of this recipe; None where there is none yet."""
    recipe_file = folder / RECIPE
    options_file = folder / OPTIONS
    if recipe_file.is_file() and recipe_file.read_text(encoding="utf-8") != recipe_text(recipe):
        raise InputError(f"{folder}: holds the training of another recipe; name another folder with -o")
    if options_file.is_file() and options_file.read_text(encoding="utf-8") != _options_text(options):
        raise InputError(f"{folder}: holds a training with other options ({OPTIONS}); name another folder with -o")
    if not options_file.is_file() and folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"{folder}: is not empty; name another folder with -o")
    if not (folder / METRICS).is_file():
        return None
    metrics: dict[str, Any] = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    return metrics


def _options_text(options: FinalRunOptions) -> str:
    """The options that change the weights, as options.json has them."""
    fields = dataclasses.asdict(options)
    for name in ("card_transcripts", "in_runtimes"):
        del fields[name]
    return json.dumps(fields, indent=2) + "\n"


def _speech(recipe: Recipe, options: FinalRunOptions, cache: Path) -> Speech:
    """The recipe's clips, split as the search split them; raises InputError where either is no longer the same."""
    corpus = clips.load(recipe.data)
    if recipe.fingerprint is not None and corpus.fingerprint != recipe.fingerprint:
        raise InputError(
            f"data.dataset: {recipe.data.dataset} is not what the recipe was found on; pin data.revision or put "
            "the old files back, or delete `fingerprint` from the recipe to train on what there is now"
        )
    split = splits.split(corpus, recipe.data)
    digest = split_facts(split.train, split.validation, split.test)["sha256"]
    if recipe.fingerprint and recipe.split.get("sha256", digest) != digest:
        raise InputError(
            "data: the split does not come out as the search's; put data.validation, data.test and data.split_seed back"
        )
    supplement = load_supplement(recipe.data, corpus, split, clips.load, with_copies=recipe.data.fold > 0)
    supplement.check(recipe.train)
    if recipe.supplement is not None and supplement.fingerprint != recipe.supplement:
        raise InputError(
            "data.extra: what is trained on beside the dataset is not what the recipe was found with; put the old "
            "files back, or delete `supplement` from the recipe to train with what there is now"
        )
    if options.on_all:
        split = dataclasses.replace(split, train=tuple(sorted((*split.train, *split.validation))))
    data = recipe.data
    return Speech(corpus, split, data.language, data.task, cache, data.normalizer, supplement)


def _averaged_steps(steps: int, average: int) -> list[int]:
    """The steps whose weights are averaged, evenly over the training's end; the last of them is the last step."""
    gap = max(1, round(steps * AVERAGED_SHARE / max(1, average - 1)))
    return sorted({max(1, steps - index * gap) for index in range(max(1, average))})


def _trained(
    recipe: Recipe, options: FinalRunOptions, speech: Speech, folder: Path, stop: Callable[[], bool], say: PrintLine
) -> tuple[training.Result, dict[int, Path]]:
    """Trains to the end; the last result, and the folders of the weights kept on the way, by step."""
    config = recipe.train
    save_to = folder / "training"
    steps = _averaged_steps(config.max_steps, options.average)
    weights = {step: save_to / f"weights-{step:06d}" for step in steps}
    checkpoint = checkpoints.latest(save_to, at_most=config.max_steps)
    first_step = checkpoints.step_of(checkpoint) if checkpoint else 0
    if first_step:
        say(f"resumes from step {first_step}")
    model_cache = training.ModelCache()
    result = None
    with TrialLog(folder / "runs", first_step, dataclasses.asdict(config)) as log:

        def report(metrics: StepMetrics) -> None:
            log.add_step(metrics)
            say(f"step {metrics.step} of {config.max_steps}  loss {metrics.loss:.3f}", passing=True)

        for step in steps:
            if step != steps[-1] and (weights[step] / weight_files.WEIGHTS).is_file():
                continue
            stretch = training.Stretch(
                first_step=0,
                last_step=step,
                threads=recipe.threads,
                micro_batch=config.micro_batch_size or config.batch_size,
                checkpoint=checkpoints.latest(save_to, at_most=step),
                save_to=save_to,
                save_seconds=SAVE_SECONDS,
                with_long=step == steps[-1],
            )
            result = training.train(config, speech, stretch, report, stop=stop, model_cache=model_cache)
            logged = {"wer": result.wer, "wer_raw": result.wer_raw, "cer": result.cer}
            log.add_evaluation(result.step, logged, result.scores)
            weight_files.keep(result.checkpoint, weights[step])
            checkpoints.keep_only(save_to, [step])
    assert result is not None
    write_scores(folder, result.step, result.scores)
    return result, weights


def _chosen(
    recipe: Recipe,
    options: FinalRunOptions,
    speech: Speech,
    folder: Path,
    weights: Mapping[int, Path],
    result: training.Result,
    say: PrintLine,
) -> tuple[SoupCandidate, dict[str, float]]:
    """The run's own weights, or an average or soup of a lower rate on the validation split; and the rates of all.

    Rates are of what the search minimised.
    """
    points = []
    for step in sorted(weights):
        points.append(Ingredient(f"step {step}", weight_files.read(weights[step] / weight_files.WEIGHTS)))
    last = points[-1].weights
    long_wer = result.long.wer if result.long else None
    last_scores = Scores(result.wer, result.wer_raw, result.cer, result.scores, result.loops, wer_long=long_wer)
    objective = str(recipe.evidence.get("objective", "wer"))
    name = AVERAGED_WEIGHTS if recipe.train.average_share else LAST_WEIGHTS
    candidates = [SoupCandidate(name, last, last_scores)]
    if options.on_all or (len(points) == 1 and not options.soup):
        return candidates[0], {}
    score = _scorer(recipe, speech, with_long=objective in LONG_OBJECTIVES)
    if len(points) > 1:
        averaged = soups.mean([point.weights for point in points])
        candidates.append(SoupCandidate(f"average of the last {len(points)} checkpoints", averaged, score(averaged)))
    if options.soup:
        others = [Ingredient(name, weight_files.read(Path(file))) for name, file in options.soup.items()]
        ingredients = soups.fitting([Ingredient("this run", last), *others], last)
        if len(ingredients) > 1:
            candidates += [soups.uniform(ingredients, score), soups.greedy(ingredients, score, objective)]
        say(f"soup: {len(ingredients) - 1} of {len(others)} models of the confirmation train the same parameters")
    best = soups.best(candidates, objective)
    measure = measure_name(objective)
    for candidate in candidates:
        rate = candidate.scores.rate(objective)
        say(f"{candidate.name}: validation {measure} {rate:.3f}{', kept' if candidate is best else ''}")
    write_scores(folder, result.step, best.scores.clips)
    return best, {candidate.name: candidate.scores.rate(objective) for candidate in candidates}


def _scorer(recipe: Recipe, speech: Speech, *, with_long: bool) -> Callable[[Weights], Scores]:
    """A function of weights that scores them on the validation split, also as long recordings; loads the model once."""
    loaded: list[Whisper] = []

    def score(weights: Weights) -> Scores:
        if not loaded:
            loaded.append(weight_files.trained_model(recipe.train, weights))
            devices.move(loaded[0].model, devices.device())
        trainable.set_weights(loaded[0], weights)
        scores = evaluate.evaluate(loaded[0], speech, speech.split.validation, recipe.train)[0]
        if not with_long:
            return scores
        long_scores, _ = long_form.score(loaded[0], speech, speech.split.validation, recipe.train)
        return dataclasses.replace(scores, wer_long=long_scores.wer if long_scores else None)

    return score
