"""Jobs of the training process: a segment of one trial, and the locked test of a finished one."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search.execution.launchers import GPU_WORKERS_VARIABLE
from search.execution.messages import (
    Alive,
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
from tmsearch.errors import CheckpointError, InputError
from tmsearch.evaluation.scores import LONG_OBJECTIVES
from tmsearch.recipe import save_recipe, trial_recipe
from tmsearch.trial.facts import (
    Baseline,
    StudyFacts,
    TestScores,
    baseline_key,
    eval_batch_key,
    keep_key,
    micro_batch_key,
    words_key,
)
from tmsearch.trial.settings import TrialSettings
from tmsearch.trial.workbench import Workbench

if TYPE_CHECKING:
    from tmsearch.evaluation.long_form import LongScores
    from tmsearch.evaluation.scores import ClipScore
    from tmsearch.training.micro_batch import BatchLimits
    from tmsearch.training.state import StepMetrics
    from tmsearch.training.train import Result, Stretch

Report = Callable[[Event], None]


class _Trial:
    """What a job's trial trains on, with what, and where its files are."""

    def __init__(self, workbench: Workbench, job: SegmentJob | TestJob) -> None:
        self.settings = TrialSettings.from_json(job.settings)
        self.facts = StudyFacts.from_json(job.facts)
        self.recipe = trial_recipe(
            self.facts.known_data.normalized(self.settings.data),
            job.params,
            seed=job.seed,
            max_steps=self.settings.max_steps,
            threads=self.settings.threads,
            fingerprint=self.facts.known_data.fingerprint,
            supplement=self.facts.known_data.supplement,
        )
        self.config = self.recipe.train
        self.fold = self.recipe.data.fold
        self.folder = Path(job.folder)
        self.checkpoints = self.folder / "checkpoints"
        self.cache = Path(self.settings.cache)
        self.speech = workbench.speech(self.recipe.data, self.facts.known_data, self.cache)


def run_segment(workbench: Workbench, job: SegmentJob, report: Report, stop: Callable[[], bool]) -> SegmentResult:
    """Train one trial from one step to another and score it on the validation split.

    `report` gets progress and what the study keeps for all its trials; `stop` says whether to stop after this step.
    Raises InputError, DivergenceError and TrainingStoppedError.
    """
    from tmsearch import devices
    from tmsearch.evaluation.scores import scores_file, write_scores
    from tmsearch.training.tensorboard import TrialLog, has_events

    trial = _Trial(workbench, job)
    objective = trial.settings.objective
    save_recipe(trial.folder / "config.yaml", trial.recipe)
    devices.configure_device(trial.settings.threads)
    # Compiled graphs outlive the process that compiled them.
    beat = _heartbeat(report, stop)
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(trial.cache / "compiled"))
    _report_baseline(workbench, trial, report, beat)
    _report_kept(workbench, trial, report, beat)
    start = _start_step(workbench, trial, job)
    events = Path(trial.settings.tensorboard) / trial.folder.name
    # What is trained again is in the log already, and so are the results of the rungs before.
    logged = max(start, job.first_step) if has_events(events) else start
    with TrialLog(events, logged, job.params, trial.settings.choices) as trial_log:

        def add_step(step: StepMetrics) -> None:
            if step.step > logged:
                trial_log.add_step(step)
            report(ProgressEvent(**dataclasses.asdict(step)))

        result, clips_at_once = _train(workbench, trial, job, add_step, report, beat)
        rates = _rates(result, objective) | _kept_rates(workbench, trial, result, beat)
        # A segment that ended before its result was committed is repeated from its last checkpoint: its events exist.
        if start < result.step or not scores_file(trial.folder, result.step).is_file():
            trial_log.add_evaluation(result.step, rates, result.scores)
    _keep(workbench, trial, job, result)
    write_scores(trial.folder, result.step, result.scores)
    if trial.fold not in trial.facts.words:
        report(Fact(words_key(trial.fold), _lengths(result.scores, result.long, objective)))
    return SegmentResult(rates[objective], {**rates, **_metrics(result, clips_at_once, objective)})


def _kept_rates(workbench: Workbench, trial: _Trial, result: Result, stop: Callable[[], bool]) -> dict[str, float]:
    """The WER on data.keep at the end of a full training; nothing where there is no such data."""
    from tmsearch.evaluation import evaluate, kept
    from tmsearch.training.train import TrainingStoppedError

    if trial.recipe.data.keep is None or result.step < trial.config.max_steps:
        return {}
    speech = workbench.kept_speech(trial.recipe.data, trial.cache)
    try:
        with workbench.model_cache.trained() as whisper:
            return {} if whisper is None else {"wer_keep": kept.wer(whisper, speech, trial.config, stop)}
    except evaluate.EvaluationInterruptedError:
        raise TrainingStoppedError(result.step, result.saved) from None


def _report_kept(workbench: Workbench, trial: _Trial, report: Report, stop: Callable[[], bool]) -> None:
    """The WER of the untouched model on data.keep, once for a model and study."""
    from tmsearch import devices
    from tmsearch.evaluation import evaluate, kept
    from tmsearch.training.train import TrainingStoppedError

    config = trial.config
    if trial.recipe.data.keep is None or config.model in trial.facts.kept:
        return
    untrained = _untrained(config)
    speech = workbench.kept_speech(trial.recipe.data, trial.cache)
    whisper = workbench.model_cache.whisper(untrained)
    devices.move(whisper.model, devices.device())
    try:
        report(Fact(keep_key(config.model), kept.wer(whisper, speech, untrained, stop)))
    except evaluate.EvaluationInterruptedError:
        raise TrainingStoppedError(0, None) from None


def _untrained(config: TrainConfig) -> TrainConfig:
    """What an untouched model is scored with."""
    return TrainConfig(model=config.model, model_revision=config.model_revision, eval_batch_size=config.eval_batch_size)


def _keep(workbench: Workbench, trial: _Trial, job: SegmentJob, result: Result) -> None:
    """Keep what the trial goes on from, and a finished one's weights where they are wanted; nothing else."""
    from tmsearch.export import weights
    from tmsearch.training import checkpoints

    cache = workbench.model_cache
    if trial.settings.keep_weights and result.step == trial.config.max_steps:
        weights.keep_trained(cache.trained_weights(), trial.folder)
    # On a GPU the newest checkpoint may still be being written, while the next segment trains.
    cache.writer().then(lambda: checkpoints.keep_only_newest(trial.checkpoints, job.token, result.saved))
    if trial.settings.shares_checkpoints:
        cache.writer().wait()


def _heartbeat(report: Report, stop: Callable[[], bool]) -> Callable[[], bool]:
    """`stop`, which is asked after every step and between batches, and a sign of life each time."""

    def beat() -> bool:
        report(Alive())
        return stop()

    return beat


def _rates(result: Result, objective: str) -> dict[str, Any]:
    """Everything that was measured at a segment's end, by its name; raises InputError without what is minimised."""
    rates: dict[str, Any] = {name: getattr(result, name) for name in ("wer", "wer_raw", "cer", "loops")}
    if result.long is not None:
        rates |= {**result.long.rates(), "mean": (result.wer + result.long.wer) / 2}
    if objective not in rates:
        raise InputError(f"budget.objective: {objective}: the model knows no times; take wer, or another model")
    return rates


def _errors(clips: Sequence[ClipScore], long_scores: LongScores | None, objective: str) -> tuple[int, ...]:
    """By clip: edits of words, of characters where CER is minimised; of both ways of hearing where their mean is."""
    if objective == "cer":
        return tuple(clip.character_edits or 0 for clip in clips)
    single = tuple(clip.edits for clip in clips)
    if objective in LONG_OBJECTIVES and long_scores is not None:
        return _with_long(single, long_scores.errors, objective)
    return single


def _lengths(clips: Sequence[ClipScore], long_scores: LongScores | None, objective: str) -> tuple[int, ...]:
    """Reference words, or characters where CER is minimised, so that errors over them are what is minimised."""
    if objective == "cer":
        return tuple(clip.characters or 0 for clip in clips)
    single = tuple(clip.words for clip in clips)
    if objective in LONG_OBJECTIVES and long_scores is not None:
        return _with_long(single, long_scores.clip_words, objective)
    return single


def _with_long(single: tuple[int, ...], long: tuple[int, ...], objective: str) -> tuple[int, ...]:
    if objective == "wer_long":
        return long
    return tuple(first + second for first, second in zip(single, long, strict=True))


def _metrics(result: Result, clips_at_once: int, objective: str) -> dict[str, Any]:
    """Costs of a segment, and its errors by clip in the split's order, for paired comparisons of trials."""
    return {
        "train_seconds": result.train_seconds,
        "repeated_seconds": result.repeated_seconds,
        "saved_step": result.saved_step,
        "eval_seconds": result.eval_seconds,
        "micro_batch": clips_at_once,
        "clips": len(result.scores),
        "errors": _errors(result.scores, result.long, objective),
    }


def run_test(workbench: Workbench, job: TestJob) -> Tested:
    """Score the kept model of a finished trial on the locked test split. Raises InputError and CheckpointError."""
    from tmsearch import devices
    from tmsearch.export import weights

    trial = _Trial(workbench, job)
    devices.configure_device(trial.settings.threads)
    scores = weights.score_on_test(trial.config, trial.folder, trial.speech)
    test_scores = TestScores(
        errors=_errors(scores.clips, None, trial.settings.objective),
        words=_lengths(scores.clips, None, trial.settings.objective),
        wer_raw=scores.wer_raw,
    )
    return Tested(test_scores.to_json())


def _train(
    workbench: Workbench,
    trial: _Trial,
    job: SegmentJob,
    add_step: Callable[[StepMetrics], None],
    report: Report,
    stop: Callable[[], bool],
) -> tuple[Result, int]:
    """The segment's training with as many clips a forward pass as memory allows, and that number."""
    from tmsearch import devices
    from tmsearch.evaluation.evaluate import EvaluationMemoryError
    from tmsearch.training import micro_batch, train

    cache = workbench.model_cache
    key = micro_batch_key(trial.config, micro_batch.device_name())
    limits = _limits(workbench, trial, report)
    clips = limits.micro_batch
    unusable: set[Path] = set()  # checkpoints, found out as they were loaded
    while True:
        checkpoint = _start_checkpoint(workbench, trial, job, unusable)
        stretch = _stretch(trial, job, dataclasses.replace(limits, micro_batch=clips), checkpoint)
        try:
            result = train.train(trial.config, trial.speech, stretch, add_step, stop=stop, model_cache=cache)
            _report_eval_batch(trial, limits.eval_batch, result.eval_batch, report)
            return result, clips
        except CheckpointError as error:
            if checkpoint is None:
                raise
            print(f"passed by: {error}", file=sys.stderr)
            unusable.add(checkpoint)
            continue
        except EvaluationMemoryError:
            raise
        except (RuntimeError, MemoryError) as error:
            if clips == 1 or not devices.is_out_of_memory(error):
                raise
        # Outside the except block, whose error holds references to the tensors that filled the memory.
        cache.clear()
        devices.free_memory()
        clips = devices.halve(clips)
        report(Limit(key, clips))


def _start_step(workbench: Workbench, trial: _Trial, job: SegmentJob) -> int:
    """The step that training resumes from: that of a checkpoint or of what is still in memory; 0 for neither."""
    from tmsearch.training import checkpoints

    if workbench.model_cache.holds(trial.config, trial.speech, job.first_step):
        return job.first_step
    checkpoint = _start_checkpoint(workbench, trial, job)
    return checkpoints.step_of(checkpoint) if checkpoint else 0


def _start_checkpoint(
    workbench: Workbench, trial: _Trial, job: SegmentJob, unusable: Collection[Path] = ()
) -> Path | None:
    """The checkpoint to resume from; None where training starts anew, or goes on from what is still in memory."""
    from tmsearch.training import checkpoints
    from tmsearch.training.state import identity

    cache = workbench.model_cache
    if cache.holds(trial.config, trial.speech, job.first_step):
        return None
    cache.writer().wait_for(trial.checkpoints)
    return checkpoints.latest_of_claims(
        trial.checkpoints, job.last_step, identity(trial.config, trial.speech), unusable, cache.verified
    )


def _limits(workbench: Workbench, trial: _Trial, report: Report) -> BatchLimits:
    """Clips that go through the model at once: as the study remembers them, else measured and reported."""
    from tmsearch.training import micro_batch

    key = micro_batch_key(trial.config, micro_batch.device_name())
    eval_batch = _known_eval_batch(trial)
    clips = trial.facts.micro_batches.get(key)
    if clips is not None:
        return micro_batch.BatchLimits(clips, eval_batch)
    workers = int(os.environ.get(GPU_WORKERS_VARIABLE) or 1)
    limits = micro_batch.find(trial.config, trial.speech, workbench.model_cache, workers)
    report(Limit(key, limits.micro_batch))
    _report_eval_batch(trial, eval_batch, limits.eval_batch, report)
    return dataclasses.replace(limits, eval_batch=min(eval_batch, limits.eval_batch))


def _known_eval_batch(trial: _Trial, *, full_context: bool = False) -> int:
    """Clips that the trial's evaluations decode together: as configured, or what the study found to be its limit."""
    from tmsearch.training import micro_batch

    key = eval_batch_key(trial.config, micro_batch.device_name(), full_context=full_context)
    return min(trial.config.eval_batch_size, trial.facts.eval_batches.get(key, trial.config.eval_batch_size))


def _report_eval_batch(
    trial: _Trial, allowed: int, fitting: int, report: Report, *, full_context: bool = False
) -> None:
    """Lets the study remember that fewer clips than were allowed fit into an evaluation."""
    from tmsearch.training import micro_batch

    if fitting < allowed:
        report(Limit(eval_batch_key(trial.config, micro_batch.device_name(), full_context=full_context), fitting))


def _stretch(trial: _Trial, job: SegmentJob, limits: BatchLimits, checkpoint: Path | None) -> Stretch:
    """What `train` needs to know of a segment."""
    from tmsearch.training import checkpoints, train
    from tmsearch.training.saving import SAVE_SECONDS

    return train.Stretch(
        first_step=job.first_step,
        last_step=job.last_step,
        threads=trial.settings.threads,
        micro_batch=limits.micro_batch,
        eval_batch=limits.eval_batch,
        checkpoint=checkpoint,
        save_to=checkpoints.claim_folder(trial.checkpoints, job.token),
        save_seconds=SAVE_SECONDS,
        is_thrifty=True,
        with_long=trial.settings.objective in LONG_OBJECTIVES or job.last_step == trial.config.max_steps,
    )


def _report_baseline(workbench: Workbench, trial: _Trial, report: Report, stop: Callable[[], bool]) -> None:
    """The zero-shot baseline of the trial's model at its full context, once for a model and study."""
    from tmsearch.evaluation import evaluate, long_form
    from tmsearch.evaluation.scores import baseline_folder, write_scores
    from tmsearch.training.train import TrainingStoppedError

    config = trial.config
    if config.model in trial.facts.baselines:
        return
    untrained = _untrained(config)
    objective = trial.settings.objective
    long_scores = None
    try:
        allowed = _known_eval_batch(trial, full_context=True)
        whisper = workbench.model_cache.whisper(untrained)
        scores = evaluate.zero_shot(untrained, trial.speech, whisper, stop, allowed)
        _report_eval_batch(trial, allowed, scores.eval_batch, report, full_context=True)
        if objective in LONG_OBJECTIVES:
            long_scores, _ = long_form.score(whisper, trial.speech, trial.speech.split.validation, untrained, stop=stop)
    except evaluate.EvaluationInterruptedError:
        raise TrainingStoppedError(0, None) from None
    study_folder = trial.folder.parents[1]
    write_scores(baseline_folder(study_folder, config.model), 0, scores.clips)
    baseline = Baseline(
        wer=scores.wer,
        wer_raw=scores.wer_raw,
        cer=scores.cer,
        clips=len(scores.clips),
        errors=_errors(scores.clips, long_scores, objective),
        wer_long=long_scores.wer if long_scores else None,
    )
    report(Fact(baseline_key(config.model), baseline.to_json()))
