"""Jobs of the training process: a segment of one trial, and the locked test of a finished one."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.execution.messages import (
    Event,
    Fact,
    Limit,
    ProgressEvent,
    SegmentJob,
    SegmentResult,
    Tested,
    TestJob,
)
from tmsearch.config import TrainConfig
from tmsearch.recipe import Recipe, save_recipe, trial_recipe
from tmsearch.trial.facts import Baseline, StudyFacts, baseline_key, micro_batch_key, words_key
from tmsearch.trial.settings import TrialSettings
from tmsearch.trial.workbench import Workbench

if TYPE_CHECKING:
    from tmsearch.features.dataset import Speech
    from tmsearch.training.state import StepMetrics
    from tmsearch.training.train import Result

Report = Callable[[Event], None]


def _recipe(job: SegmentJob | TestJob, settings: TrialSettings, facts: StudyFacts) -> Recipe:
    return trial_recipe(
        settings.data,
        job.params,
        seed=job.seed,
        max_steps=settings.max_steps,
        threads=settings.threads,
        fingerprint=facts.known_data.fingerprint,
    )


def segment(bench: Workbench, job: SegmentJob, report: Report, stop: Callable[[], bool]) -> SegmentResult:
    """Train one stretch of one configuration and score it; the answer for the supervisor."""
    from tmsearch import devices
    from tmsearch.evaluation.scores import scores_file, write_scores
    from tmsearch.export import weights
    from tmsearch.training import checkpoints
    from tmsearch.training.tensorboard import TrialLog

    settings = TrialSettings.from_json(job.settings)
    facts = StudyFacts.from_json(job.facts)
    recipe, folder = _recipe(job, settings, facts), Path(job.folder)
    config = recipe.train
    cache = Path(settings.cache)
    speech = bench.speech(recipe.data, facts.known_data, cache)
    save_recipe(folder / "config.yaml", recipe)
    devices.configure_device(settings.threads)
    # Compiled graphs outlive the process that compiled them.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache / "compiled"))
    _baseline(bench, config, speech, facts, folder.parents[1], report)
    saved = folder / "checkpoints"
    checkpoint = checkpoints.latest_of_claims(saved, job.last_step)
    begun = checkpoints.step_of(checkpoint) if checkpoint else 0
    with TrialLog(Path(settings.tensorboard) / folder.name, begun, job.params, settings.choices) as logbook:

        def log(progress: StepMetrics) -> None:
            logbook.add_step(progress)
            report(ProgressEvent(**dataclasses.asdict(progress)))

        result, clips = _trained(bench, config, speech, job, log, report, stop)
        metrics: dict[str, Any] = {name: getattr(result, name) for name in ("wer", "wer_raw", "cer", "loops")}
        # What ended between this and its commit is done again, from its last checkpoint: its events are there.
        if begun < result.step or not scores_file(folder, result.step).is_file():
            logbook.add_evaluation(result.step, metrics, result.scores)
    checkpoints.keep_only_claimed(saved, job.token, result.step)
    if settings.keep_weights and result.step == config.max_steps:
        weights.keep(result.checkpoint, folder)
    write_scores(folder, result.step, result.scores)
    costs = {"train_seconds": result.train_seconds, "eval_seconds": result.eval_seconds, "micro_batch": clips}
    # By clip, in the split's order: what a paired comparison of two trials reads.
    errors = [score.edits for score in result.scores]
    if recipe.data.fold not in facts.words:
        report(Fact(words_key(recipe.data.fold), [score.words for score in result.scores]))
    metrics |= {**costs, "clips": len(errors), "errors": errors}
    return SegmentResult(result.wer, metrics)


def test(bench: Workbench, job: TestJob) -> Tested:
    """Score the kept model of one finished training on the locked test split."""
    from tmsearch import devices
    from tmsearch.export import weights

    settings = TrialSettings.from_json(job.settings)
    facts = StudyFacts.from_json(job.facts)
    recipe = _recipe(job, settings, facts)
    devices.configure_device(settings.threads)
    speech = bench.speech(recipe.data, facts.known_data, Path(settings.cache))
    scores = weights.score_on_test(recipe.train, Path(job.folder), speech)
    return Tested(
        wer=scores.wer,
        wer_raw=scores.wer_raw,
        errors=tuple(clip.edits for clip in scores.clips),
        words=tuple(clip.words for clip in scores.clips),
    )


def _trained(
    bench: Workbench,
    config: TrainConfig,
    speech: Speech,
    job: SegmentJob,
    log: Callable[[StepMetrics], None],
    report: Report,
    stop: Callable[[], bool],
) -> tuple[Result, int]:
    """The segment's training with as many clips a forward pass as memory takes, and how many: the study remembers."""
    from tmsearch.training import checkpoints, micro_batch, train

    saved = Path(job.folder) / "checkpoints"
    settings = TrialSettings.from_json(job.settings)
    key = micro_batch_key(config, micro_batch.device_name())
    clips = StudyFacts.from_json(job.facts).micro_batches.get(key)
    if clips is None:
        clips = micro_batch.find(config, speech, bench.model_cache)
        report(Limit(key, clips))
    while True:
        stretch = train.Stretch(
            first_step=job.first_step,
            last_step=job.last_step,
            threads=settings.threads,
            micro_batch=clips,
            checkpoint=checkpoints.latest_of_claims(saved, job.last_step),
            save_to=checkpoints.claim_folder(saved, job.token),
            save_seconds=train.SAVE_SECONDS,
        )
        try:
            return train.train(config, speech, stretch, log, stop=stop, model_cache=bench.model_cache), clips
        except (RuntimeError, MemoryError) as error:
            if clips == 1 or not micro_batch.is_out_of_memory(error):
                raise
        # Out of the except block, whose error holds the tensors that there was no more room beside.
        bench.model_cache.clear()
        micro_batch.free_memory()
        clips = micro_batch.halve(clips)
        report(Limit(key, clips))


def _baseline(
    bench: Workbench, config: TrainConfig, speech: Speech, facts: StudyFacts, study_folder: Path, report: Report
) -> None:
    """Zero-shot WER of the untouched checkpoint at its full context, once a model and study."""
    from tmsearch.evaluation import evaluate
    from tmsearch.evaluation.scores import baseline_folder, write_scores

    if config.model in facts.baselines:
        return
    untouched = TrainConfig(
        model=config.model, model_revision=config.model_revision, eval_batch_size=config.eval_batch_size
    )
    scores = evaluate.zero_shot(untouched, speech, bench.model_cache.whisper(untouched))
    write_scores(baseline_folder(study_folder, config.model), 0, scores.clips)
    baseline = Baseline(
        wer=scores.wer,
        wer_raw=scores.wer_raw,
        cer=scores.cer,
        clips=len(scores.clips),
        errors=tuple(clip.edits for clip in scores.clips),
    )
    report(Fact(baseline_key(config.model), baseline.to_json()))
