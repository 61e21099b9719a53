"""train(config, speech, stretch, report) -> Result: one stretch of a fine-tune, in plain PyTorch."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from tmsearch import devices
from tmsearch.config import TrainConfig
from tmsearch.errors import TmsearchError
from tmsearch.evaluation import evaluate, long_form
from tmsearch.evaluation.long_form import LongScores
from tmsearch.evaluation.scores import ClipScore, Scores
from tmsearch.features.dataset import Speech
from tmsearch.model import trainable
from tmsearch.model import whisper as model
from tmsearch.model.whisper import Whisper
from tmsearch.training import checkpoints
from tmsearch.training.checkpoints import CheckpointWriter
from tmsearch.training.state import StepMetrics, TrainState
from tmsearch.training.state import identity as training_identity

# A kill costs at most a minute of training, unless saving takes so long that it would cost more than this share.
SAVE_SECONDS = 60.0
SAVE_SHARE = 0.05


@dataclass(frozen=True)
class Stretch:
    """Which steps to train, and what their result depends on to the bit: threads, micro-batch, checkpoint.

    Training resumes from the step of `checkpoint`, or starts where that is None, and ends at `last_step`;
    `first_step` is where this stretch was meant to start. A checkpoint is saved in the folder `save_to` at
    `last_step` and, if `save_seconds` is not 0, whenever that much training could be lost; of the latter only the
    newest is kept. With `with_long` the validation clips are also scored as long recordings.
    """

    first_step: int
    last_step: int
    threads: int
    micro_batch: int  # clips a forward pass
    checkpoint: Path | None
    save_to: Path
    save_seconds: float = 0.0
    with_long: bool = False


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
    long: LongScores | None = None  # where they were asked for, and the model knows times


class TrainingStoppedError(TmsearchError):
    """The caller's `stop` became true: `step` was finished, and `checkpoint` saved there."""

    def __init__(self, step: int, checkpoint: Path) -> None:
        super().__init__(f"stopped at step {step}")
        self.step = step
        self.checkpoint = checkpoint


class ModelCache:
    """What a process keeps from one call of `train` to the next: the last model with an untouched copy of its weights,
    and the state that its last checkpoint was made of.

    No training depends on an earlier one: results are bit-equal with and without the cache.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Drops everything, as when memory ran out."""
        self._loaded: tuple[str, str | None] | None = None  # name and revision of the model
        self._whisper: Whisper | None = None
        self._untouched: dict[str, torch.Tensor] = {}
        self._state: TrainState | None = None
        self._checkpoint: Path | None = None

    def whisper(self, config: TrainConfig) -> Whisper:
        """`config.model` as it was loaded, on whatever device it is now. Invalidates the model returned before."""
        self._state = None
        wanted = (config.model, config.model_revision)
        if self._whisper is None or wanted != self._loaded:
            self.clear()  # before the next model needs the memory
            self._whisper = model.load(config)
            self._loaded = wanted
            weights = self._whisper.model.state_dict()
            self._untouched = {name: weight.detach().clone() for name, weight in weights.items()}
            return self._whisper
        trainable.remove_adapters(self._whisper)
        devices.move(self._whisper.model, self._whisper.model.device, torch.float32)
        self._whisper.model.load_state_dict(self._untouched)
        return self._whisper

    def state(
        self, config: TrainConfig, speech: Speech, device: torch.device, checkpoint: Path | None, first_step: int
    ) -> TrainState:
        """The state of `config` at `checkpoint`, or before the first step: kept, loaded or new.

        Raises CheckpointError for a checkpoint that is damaged or of another training.
        """
        state = self._state
        self._state = None
        identity = training_identity(config, speech)
        if (
            state is not None
            and state.identity == identity
            and checkpoint is not None
            and checkpoint == self._checkpoint
        ):
            checkpoints.check(checkpoint)
            state.seconds = 0.0
            state.restore_random_state()
            return state
        del state  # its memory is needed for the next one
        state = TrainState(config, speech, self.whisper(config), device)
        if checkpoint is not None:
            state.load(checkpoint, first_step)
        return state

    @property
    def trained(self) -> Whisper | None:
        """The model of the last training that came to its end, unless another one was loaded since."""
        return self._state.whisper if self._state else None

    def keep(self, state: TrainState, checkpoint: Path) -> None:
        """Lets the next call resume from `state`, which is what `checkpoint` holds."""
        self._state = state
        self._checkpoint = checkpoint


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
    model_cache: ModelCache | None = None,
) -> Result:
    """Trains up to `stretch.last_step`, saves a checkpoint there, and scores it on the validation split.

    The schedule spans `config.max_steps` whatever `last_step` is. Stopped anywhere and resumed on a CPU, a training is
    bit-equal to the unbroken one, at equal threads and micro-batch.

    Args:
        report: called with the metrics of every optimizer step, in order.
        stop: asked after every step and between two batches of the evaluation.

    Raises:
        DivergenceError: the loss or its gradient is not finite, or has run away.
        TrainingStoppedError: `stop` was true; a checkpoint of the step reached is on the disk.
        InputError: the model or the clips do not fit the configuration.
        CheckpointError: the checkpoint is damaged or of another training.
    """
    device = devices.configure_device(stretch.threads)
    model_cache = model_cache or ModelCache()
    checkpoint = stretch.save_to / checkpoints.folder_name(stretch.last_step)
    try:
        state = model_cache.state(config, speech, device, stretch.checkpoint, stretch.first_step)
        with CheckpointWriter(stretch.save_to) as writer:
            _advance(state, stretch, writer, report, stop)
            # The checkpoint is written meanwhile; leaving the block waits for it.
            scores, seconds = evaluate.evaluate(state.whisper, speech, speech.split.validation, config, stop=stop)
        long_scores = None
        if stretch.with_long:
            long_scores, long_seconds = long_form.score(
                state.whisper, speech, speech.split.validation, config, stop=stop
            )
            seconds += long_seconds
    except evaluate.EvaluationInterruptedError:
        raise TrainingStoppedError(stretch.last_step, checkpoint) from None
    finally:
        if device.type == "cuda":
            torch.cuda.empty_cache()
    model_cache.keep(state, checkpoint)
    return _result(state, scores, long_scores, seconds, checkpoint)


def _result(
    state: TrainState, scores: Scores, long_scores: LongScores | None, eval_seconds: float, checkpoint: Path
) -> Result:
    return Result(
        step=state.step,
        wer=scores.wer,
        wer_raw=scores.wer_raw,
        cer=scores.cer,
        loops=scores.loops,
        train_seconds=state.seconds,
        eval_seconds=eval_seconds,
        checkpoint=checkpoint,
        scores=scores.clips,
        long=long_scores,
    )


def _advance(
    state: TrainState,
    stretch: Stretch,
    writer: CheckpointWriter,
    report: Callable[[StepMetrics], None],
    stop: Callable[[], bool],
) -> None:
    """Trains and saves until the stretch's last step."""
    if state.step > stretch.last_step:
        raise ValueError(f"{stretch.checkpoint}: is past step {stretch.last_step}, where the stretch ends")
    saved_step: int | None = None  # of the last checkpoint that this call wrote on the way
    saved_at = time.monotonic()
    while state.step < stretch.last_step:
        for metrics in state.update(stretch.micro_batch):
            report(metrics)
        stopping = stop()
        interval = max(stretch.save_seconds, writer.last_seconds / SAVE_SHARE)
        due = stretch.save_seconds and time.monotonic() - saved_at >= interval
        if stopping or due or state.step == stretch.last_step:
            for metrics in state.synchronize():
                report(metrics)
            writer.write(state.checkpoint(stretch.first_step), instead_of=saved_step)
            saved_step = state.step
            saved_at = time.monotonic()
        if stopping:
            writer.wait()
            raise TrainingStoppedError(state.step, stretch.save_to / checkpoints.folder_name(state.step))
