"""Jobs of the training process: a segment of one trial, and the locked test of a finished one."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tmsearch.config import TrainConfig
from tmsearch.job_server import Say
from tmsearch.recipe import keep_recipe, recipe_of
from tmsearch.trial.workbench import Bench

if TYPE_CHECKING:
    from tmsearch.features.dataset import Speech
    from tmsearch.training.train import Progress, Result


def segment(bench: Bench, job: Mapping[str, Any], say: Say, stop: Callable[[], bool]) -> dict[str, Any]:
    """Train one stretch of one configuration and score it; the answer for the supervisor."""
    from tmsearch import devices
    from tmsearch.evaluation.scores import scores_file, write_scores
    from tmsearch.export import weights
    from tmsearch.training import checkpoints, claims
    from tmsearch.training.tensorboard import Logbook

    recipe, folder = recipe_of(job), Path(job["folder"])
    config, data = recipe.train, recipe.data
    speech = bench.speech(data, job["facts"]["data"], Path(job["cache"]))
    keep_recipe(folder / "config.yaml", recipe)
    devices.settle(job["threads"])
    # Compiled graphs outlive the process that compiled them.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path(job["cache"]) / "compiled"))
    _baseline(bench, config, speech, job["facts"], folder.parents[1], say)
    saved = folder / "checkpoints"
    found = claims.latest(saved, job["last_step"])
    begun = checkpoints.step_of(found) if found else 0
    with Logbook(Path(job["tensorboard"]) / folder.name, begun, job["params"], job.get("choices", {})) as logbook:

        def report(progress: Progress) -> None:
            logbook.progress(progress)
            say({"event": "progress", **dataclasses.asdict(progress)})

        result, clips = _trained(bench, config, speech, job, report, say, stop)
        metrics = {name: getattr(result, name) for name in ("wer", "wer_raw", "cer", "loops")}
        # What ended between this and its commit is done again, from its last checkpoint: its events are there.
        if begun < result.step or not scores_file(folder, result.step).is_file():
            logbook.rung(result.step, metrics, result.scores)
    claims.keep_only(saved, job["token"], result.step)
    if job.get("keep_weights") and result.step == config.max_steps:
        weights.keep(result.checkpoint, folder)
    write_scores(folder, result.step, result.scores)
    costs = {"train_seconds": result.train_seconds, "eval_seconds": result.eval_seconds, "micro_batch": clips}
    # By clip, in the split's order: what a paired comparison of two trials reads.
    errors = [score.edits for score in result.scores]
    words = f"words:{data.fold}"
    if words not in job["facts"]:
        say({"event": "fact", "key": words, "value": [score.words for score in result.scores]})
    metrics |= {**costs, "clips": len(errors), "errors": errors}
    return {"event": "result", "value": result.wer, "metrics": metrics}


def test(bench: Bench, job: Mapping[str, Any]) -> dict[str, Any]:
    """Score the kept model of one finished training on the locked test split."""
    from tmsearch import devices
    from tmsearch.export import weights

    recipe = recipe_of(job)
    devices.settle(job["threads"])
    speech = bench.speech(recipe.data, job["facts"]["data"], Path(job["cache"]))
    return weights.on_test(recipe.train, Path(job["folder"]), speech)


def _trained(
    bench: Bench,
    config: TrainConfig,
    speech: Speech,
    job: Mapping[str, Any],
    report: Callable[[Progress], None],
    say: Say,
    stop: Callable[[], bool],
) -> tuple[Result, int]:
    """The segment's training with as many clips a forward pass as memory takes, and how many: the study remembers."""
    from tmsearch.training import claims, micro_batch, train

    saved, key = Path(job["folder"]) / "checkpoints", micro_batch.key(config)
    clips = job["facts"].get(key)
    if clips is None:
        clips = micro_batch.find(config, speech, bench.warm)
        say({"event": "limit", "key": key, "value": clips})
    while True:
        stretch = train.Stretch(
            first_step=job["first_step"],
            last_step=job["last_step"],
            threads=job["threads"],
            micro_batch=clips,
            checkpoint=claims.latest(saved, job["last_step"]),
            save_to=claims.folder(saved, job["token"]),
            save_seconds=train.SAVE_SECONDS,
        )
        try:
            return train.train(config, speech, stretch, report, stop=stop, warm=bench.warm), clips
        except (RuntimeError, MemoryError) as error:
            if clips == 1 or not micro_batch.ran_out(error):
                raise
        # Out of the except block, whose error holds the tensors that there was no more room beside.
        bench.warm.forget()
        micro_batch.release()
        clips = micro_batch.halved(clips)
        say({"event": "limit", "key": key, "value": clips})


def _baseline(
    bench: Bench, config: TrainConfig, speech: Speech, facts: Mapping[str, Any], study_folder: Path, say: Say
) -> None:
    """Zero-shot WER of the untouched checkpoint at its full context, once a model and study."""
    from tmsearch.evaluation import evaluate
    from tmsearch.evaluation.scores import baseline_folder, write_scores

    key = f"baseline:{config.model}"
    if key in facts:
        return
    untouched = TrainConfig(
        model=config.model, model_revision=config.model_revision, eval_batch_size=config.eval_batch_size
    )
    scores = evaluate.zero_shot(untouched, speech, bench.warm.whisper(untouched))
    write_scores(baseline_folder(study_folder, config.model), 0, scores.clips)
    value = {
        "wer": scores.wer,
        "wer_raw": scores.wer_raw,
        "cer": scores.cer,
        "clips": len(scores.clips),
        "errors": [clip.edits for clip in scores.clips],
    }
    say({"event": "fact", "key": key, "value": value})
