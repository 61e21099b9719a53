"""The final training run: a recipe trained in full, tested once, and written as a Hugging Face folder."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from tmsearch import checkpoints, clips, devices, evaluation, export, fitting, splits, training
from tmsearch.errors import InputError
from tmsearch.evaluation import Scores
from tmsearch.logbook import Logbook, write_scores
from tmsearch.recipe import Recipe, recipe_text, write_atomically
from tmsearch.speech import Speech

METRICS = "metrics.json"
RECIPE = "recipe.yaml"
FAILED, INTERRUPTED = 1, 130


class Say(Protocol):
    """Prints one line; a passing one may be overwritten by the next."""

    def __call__(self, line: str, passing: bool = False) -> None: ...


def train(recipe: Recipe, folder: Path, dtype: str, cache: Path, stop: Callable[[], bool], say: Say) -> int:
    """Train `recipe`, score it on the locked test split, and write the model into `folder`; the exit code.

    Killed or interrupted, the same call goes on from the last checkpoint; called again after its end it does
    nothing. Raises InputError where the folder holds another training or the data is not the recipe's.
    """
    text = recipe_text(recipe)
    done = _known(folder, text)
    if done is not None:
        say(f"{folder}: already trained, validation WER {done['validation']['wer']:.3f}; see {METRICS}")
        return 0
    speech = _speech(recipe, cache)
    write_atomically(folder / RECIPE, text)
    say(f"{recipe.train.model}: {recipe.train.max_steps} steps on {len(speech.split.train)} clips, into {folder}")
    try:
        result = _trained(recipe, speech, folder, stop, say)
    except training.Stopped as stopped:
        say(f"interrupted at step {stopped.step}, everything is kept; the same command goes on")
        return INTERRUPTED
    except training.Diverged as diverged:
        say(f"failed: {diverged}; a lower train.learning_rate may hold")
        return FAILED
    except (RuntimeError, MemoryError) as error:
        if not fitting.ran_out(error):
            raise
        say("failed: out of memory; lower train.micro_batch_size in the recipe, or set train.low_memory")
        return FAILED
    say(f"validation WER {result.wer:.3f} (raw {result.wer_raw:.3f}, CER {result.cer:.3f})")
    _finish(recipe, speech, folder, dtype, result, say)
    return 0


def _known(folder: Path, text: str) -> dict[str, Any] | None:
    """The metrics of a finished training of this recipe; None where there is none yet."""
    kept = folder / RECIPE
    if kept.is_file() and kept.read_text(encoding="utf-8") != text:
        raise InputError(f"{folder}: holds the training of another recipe; name another folder with -o")
    if not kept.is_file() and folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"{folder}: is not empty; name another folder with -o")
    if not (folder / METRICS).is_file():
        return None
    found: dict[str, Any] = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    return found


def _speech(recipe: Recipe, cache: Path) -> Speech:
    corpus = clips.load(recipe.data)
    if recipe.fingerprint is not None and corpus.fingerprint != recipe.fingerprint:
        raise InputError(
            f"data.dataset: {recipe.data.dataset} is not what the recipe was found on; pin data.revision or put "
            "the old files back, or delete `fingerprint` from the recipe to train on what there is now"
        )
    return Speech(corpus, splits.split(corpus, recipe.data), recipe.data.language, recipe.data.task, cache)


def _trained(recipe: Recipe, speech: Speech, folder: Path, stop: Callable[[], bool], say: Say) -> training.Result:
    config, saved = recipe.train, folder / "training"
    found = checkpoints.latest(saved, at_most=config.max_steps)
    stretch = training.Stretch(
        first_step=0,
        last_step=config.max_steps,
        threads=recipe.threads,
        micro_batch=config.micro_batch_size or config.batch_size,
        checkpoint=found,
        save_to=saved,
        save_seconds=training.SAVE_SECONDS,
    )
    begun = checkpoints.step_of(found) if found else 0
    if begun:
        say(f"goes on from step {begun}")
    with Logbook(folder / "runs", begun, dataclasses.asdict(config)) as logbook:

        def report(progress: training.Progress) -> None:
            logbook.progress(progress)
            say(f"step {progress.step} of {config.max_steps}  loss {progress.loss:.3f}", passing=True)

        result = training.train(config, speech, stretch, report, stop=stop)
        logbook.rung(result.step, {"wer": result.wer, "wer_raw": result.wer_raw, "cer": result.cer})
    write_scores(folder, result.step, result.scores)
    return result


def _finish(
    recipe: Recipe, speech: Speech, folder: Path, dtype: str, result: training.Result, say: Say
) -> None:
    """Score the test split, write the model, and last of all the metrics: they say that it is complete."""
    whisper = export.load_weights(recipe.train, result.checkpoint)
    metrics: dict[str, Any] = {
        "validation": {"wer": result.wer, "wer_raw": result.wer_raw, "cer": result.cer, "clips": len(result.scores)}
    }
    if speech.split.test:
        devices.move(whisper.model, devices.device())
        full, _ = evaluation.evaluate(whisper, speech, speech.split.test, recipe.train, context="full")
        metrics["test"] = _rates(full)
        say(f"test WER {full.wer:.3f} (raw {full.wer_raw:.3f}, CER {full.cer:.3f}) on {len(full.clips)} locked clips")
        trimmed, _ = evaluation.evaluate(whisper, speech, speech.split.test, recipe.train, context="study")
        longest = speech.contexts(whisper, recipe.train).seconds
        metrics["test_trimmed"] = {**_rates(trimmed), "context_seconds": longest}
        say(f"test WER {trimmed.wer:.3f} at the study's own context, up to {longest:g} s a clip")
    export.export(whisper, folder, dtype, language=speech.language, task=speech.task)
    metrics["train_seconds"] = result.train_seconds
    write_atomically(folder / METRICS, json.dumps(metrics, indent=2) + "\n")
    shutil.rmtree(folder / "training", ignore_errors=True)
    say(f"{folder}: the model, its metrics in {METRICS}")


def _rates(scores: Scores) -> dict[str, Any]:
    return {"wer": scores.wer, "wer_raw": scores.wer_raw, "cer": scores.cer, "clips": len(scores.clips)}

