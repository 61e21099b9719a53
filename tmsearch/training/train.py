"""train(config, speech, stretch, report) -> Result: one stretch of a fine-tune, in plain PyTorch."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from tmsearch import devices
from tmsearch.config import TrainConfig
from tmsearch.evaluation import evaluate
from tmsearch.evaluation.scores import ClipScore
from tmsearch.features.dataset import Speech
from tmsearch.training import checkpoints
from tmsearch.training.checkpoints import CheckpointWriter
from tmsearch.training.loss import DivergenceError
from tmsearch.training.state import StepMetrics, TrainState, fingerprint
from tmsearch.training.warm import ModelCache

__all__ = [
    "DivergenceError",
    "Result",
    "Speech",
    "StepMetrics",
    "Stretch",
    "TrainingStoppedError",
    "fingerprint",
    "train",
]


# A kill costs at most a minute of training, unless saving takes so long that it would cost more than this share.
SAVE_SECONDS = 60.0
SAVE_SHARE = 0.05


@dataclass(frozen=True)
class Stretch:
    """Which steps to train, and what their result depends on to the bit: threads, micro-batch, checkpoint.

    Training goes on from the step of `checkpoint`, from nothing where it is None, up to `last_step`; `first_step` is
    where this stretch of the training was to begin. A checkpoint is saved in the folder `save_to` at `last_step`
    and, if `save_seconds` is not 0, whenever that much training would be lost; only the newest on the way is kept.
    """

    first_step: int
    last_step: int
    threads: int
    micro_batch: int  # clips a forward pass
    checkpoint: Path | None
    save_to: Path
    save_seconds: float = 0.0


@dataclass(frozen=True)
class Result:
    """The validation scores at `step`. `train_seconds` counts this stretch only, interrupted parts included."""

    step: int
    wer: float
    wer_raw: float
    cer: float
    loops: int  # clips whose hypothesis repeated itself without end
    train_seconds: float
    eval_seconds: float
    checkpoint: Path
    scores: tuple[ClipScore, ...]


class TrainingStoppedError(Exception):
    """The caller's `stop` became true: `step` was finished, and `checkpoint` saved there."""

    def __init__(self, step: int, checkpoint: Path) -> None:
        super().__init__(f"stopped at step {step}")
        self.step, self.checkpoint = step, checkpoint


def never() -> bool:
    """The `stop` of a training that nobody interrupts."""
    return False


def train(
    config: TrainConfig,
    speech: Speech,
    stretch: Stretch,
    report: Callable[[StepMetrics], None],
    *,
    stop: Callable[[], bool] = never,
    warm: ModelCache | None = None,
) -> Result:
    """Trains up to `stretch.last_step`, saves a checkpoint there, and scores it on the validation split.

    The schedule spans `config.max_steps` whatever `last_step` is. On a CPU a training stopped anywhere and resumed
    equals the unbroken one to the bit, at equal threads and micro-batch. `warm` is what the process keeps from one
    call to the next. Raises DivergenceError, TrainingStoppedError, InputError, and CheckpointError.
    """
    device = devices.configure_device(stretch.threads)
    warm = warm or ModelCache()
    try:
        run = warm.run(config, speech, device, stretch.checkpoint, stretch.first_step)
        with checkpoints.CheckpointWriter(stretch.save_to) as writer:
            _advance(run, stretch, writer, report, stop)
            # The checkpoint is written meanwhile; leaving the block waits for it.
            scores, seconds = evaluate.evaluate(run.whisper, speech, speech.split.validation, config, stop=stop)
    except evaluate.EvaluationInterruptedError:
        raise TrainingStoppedError(
            stretch.last_step, stretch.save_to / checkpoints.folder_name(stretch.last_step)
        ) from None
    finally:
        if device.type == "cuda":
            torch.cuda.empty_cache()
    saved = stretch.save_to / checkpoints.folder_name(run.step)
    warm.keep(run, saved)
    return Result(
        run.step, scores.wer, scores.wer_raw, scores.cer, scores.loops, run.seconds, seconds, saved, scores.clips
    )


def _advance(
    run: TrainState,
    stretch: Stretch,
    writer: CheckpointWriter,
    report: Callable[[StepMetrics], None],
    stop: Callable[[], bool],
) -> None:
    """Updates and saves until the stretch's last step."""
    if run.step > stretch.last_step:
        raise ValueError(f"{stretch.checkpoint}: is past step {stretch.last_step}, where the stretch ends")
    own: int | None = None  # step of the last checkpoint that this call wrote on the way
    kept = time.monotonic()
    while run.step < stretch.last_step:
        for progress in run.update(stretch.micro_batch):
            report(progress)
        stopping = stop()
        due = stretch.save_seconds and time.monotonic() - kept >= max(stretch.save_seconds, writer.took / SAVE_SHARE)
        if stopping or due or run.step == stretch.last_step:
            for progress in run.synchronize():
                report(progress)
            writer.write(run.checkpoint(stretch.first_step), instead_of=own)
            own, kept = run.step, time.monotonic()
        if stopping:
            writer.wait()
            raise TrainingStoppedError(run.step, stretch.save_to / checkpoints.folder_name(run.step))
