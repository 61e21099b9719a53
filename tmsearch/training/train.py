"""train(config, speech, stretch, report) -> Result: one stretch of a fine-tune, in plain PyTorch."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
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
from tmsearch.model.kernels.trained_layers import KeptLayers
from tmsearch.model.whisper import Whisper
from tmsearch.training import checkpoint_writer, saving
from tmsearch.training.checkpoint_writer import CheckpointWriter, CopyLane
from tmsearch.training.checkpoints import VerifiedCheckpoints, step_of
from tmsearch.training.kept_models import KeptModels, ModelKey, untouched_copy
from tmsearch.training.state import StepMetrics, TrainState, identity


@dataclass(frozen=True)
class Stretch:
    """Which steps to train, and what their result depends on to the bit: threads, micro-batch, checkpoint.

    Training resumes from the step of `checkpoint`, or starts where that is None, and ends at `last_step`;
    `first_step` is where this stretch was meant to start. A checkpoint is saved in the folder `save_to` at
    `last_step` and, if `save_seconds` is not 0, whenever that much training could be lost; of the latter only the
    newest is kept. With `with_long` the validation clips are also scored as long recordings.

    `is_thrifty`: a checkpoint is saved only where going back to it is cheaper than training again, and none at the end
    of the whole training. On a GPU it may still be being written when `train` returns.
    """

    first_step: int
    last_step: int
    threads: int
    micro_batch: int  # clips a forward pass
    checkpoint: Path | None
    save_to: Path
    save_seconds: float = 0.0
    is_thrifty: bool = False
    eval_batch: int | None = None  # clips decoded together; None: as the config says
    with_long: bool = False


@dataclass(frozen=True)
class Result:
    """The validation scores at `step`, and what they cost.

    `train_seconds` counts this stretch only, interrupted parts included; `repeated_seconds` are those of steps before
    it, which were trained again for want of a checkpoint.
    """

    step: int
    wer: float
    wer_raw: float
    cer: float
    loops: int  # clips whose hypothesis repeated itself without end
    train_seconds: float
    repeated_seconds: float
    eval_seconds: float
    saved: Path | None  # the newest checkpoint of the training; it may be of an earlier step
    scores: tuple[ClipScore, ...]
    eval_batch: int  # clips decoded together: fewer than asked for where memory ran out
    long: LongScores | None = None  # where they were asked for, and the model knows times

    @property
    def saved_step(self) -> int:
        """The step of `saved`; 0 without one."""
        return step_of(self.saved) if self.saved is not None else 0

    @property
    def checkpoint(self) -> Path:
        """The checkpoint of `step` itself, of a stretch that is not thrifty; raises ValueError where it has none."""
        if self.saved is None or step_of(self.saved) != self.step:
            raise ValueError(f"step {self.step} was not saved")
        return self.saved


class TrainingStoppedError(TmsearchError):
    """The caller's `stop` became true: `step` was finished. `saved` is the newest checkpoint, perhaps of an earlier."""

    def __init__(self, step: int, saved: Path | None) -> None:
        super().__init__(f"stopped at step {step}")
        self.step = step
        self.saved = saved


class ModelCache:
    """What a process keeps from one call of `train` to the next: the last model with an untouched copy of its weights,
    those before it as far as memory allows, the state that it was trained to, and what writes its checkpoints.

    No training depends on an earlier one: results are bit-equal with and without the cache.
    """

    def __init__(self, lane: CopyLane | None = None) -> None:
        self.verified = VerifiedCheckpoints()
        self._lane = lane
        self._writer: CheckpointWriter | None = None
        self._kept = KeptModels()
        self.layers = KeptLayers()  # of the last model
        self.clear()

    def clear(self) -> None:
        """Drops models and states, as when memory ran out."""
        self._kept.clear()
        self._drop_current()

    def _drop_current(self) -> None:
        self._loaded: ModelKey | None = None
        self._whisper: Whisper | None = None
        self._untouched: dict[str, torch.Tensor] = {}
        self._state: TrainState | None = None
        self.layers.clear()

    def writer(self) -> CheckpointWriter:
        """What writes the checkpoints of this process, one at a time."""
        if self._writer is None:
            lane = self._lane or checkpoint_writer.lane_for(devices.device())
            self._writer = CheckpointWriter(lane, self.verified)
        return self._writer

    def whisper(self, config: TrainConfig) -> Whisper:
        """`config.model` as it was loaded, on whatever device it is now. Invalidates the model returned before."""
        self._state = None
        if self._writer is not None:
            self._writer.before_update()
        wanted = (config.model, config.model_revision)
        if self._whisper is None or wanted != self._loaded:
            self._whisper = self._changed_to(config, wanted)
            self._loaded = wanted
            return self._whisper
        self._whisper.model.zero_grad(set_to_none=True)  # of a probe, or of a step that was abandoned
        trainable.remove_adapters(self._whisper)
        devices.move(self._whisper.model, self._whisper.model.device, torch.float32)
        self._whisper.model.load_state_dict(self._untouched)
        return self._whisper

    def _changed_to(self, config: TrainConfig, wanted: ModelKey) -> Whisper:
        """Another model than the last, kept or read from its files."""
        if self._whisper is not None and self._loaded is not None:
            self._kept.put(self._loaded, self._whisper, self._untouched)
        self._drop_current()  # before the next model needs the memory
        kept = self._kept.take(wanted, devices.device())
        if kept is not None:
            self._untouched = kept[1]
            return kept[0]
        whisper = model.load(config)
        self._kept.make_room()
        self._untouched = untouched_copy(whisper)
        return whisper

    def holds(self, config: TrainConfig, speech: Speech, step: int) -> bool:
        """Whether the last training was this one and has just come to `step`: it goes on without a checkpoint."""
        state = self._state
        return state is not None and step > 0 and state.step == step and state.identity == identity(config, speech)

    def state(self, config: TrainConfig, speech: Speech, device: torch.device, stretch: Stretch) -> TrainState:
        """The state of `config` at the stretch's first step or checkpoint, or before the first step: kept, loaded, new.

        Raises CheckpointError for a checkpoint that is damaged or of another training.
        """
        if self.holds(config, speech, stretch.first_step):
            state = self._taken()
            state.begin(stretch.first_step)
            state.restore_random_state()
            return state
        self._state = None  # its memory is needed for the next one
        state = TrainState(config, speech, self.whisper(config), device, self.layers)
        state.begin(stretch.first_step)
        if stretch.checkpoint is not None:
            state.load(stretch.checkpoint, self.verified)
        return state

    @contextlib.contextmanager
    def trained(self) -> Iterator[Whisper | None]:
        """The model of the last training that came to its end, as it was scored; None if another was loaded since."""
        state = self._state
        if state is None:
            yield None
            return
        with state.stepper.scored_weights():
            yield state.whisper

    def _taken(self) -> TrainState:
        """The kept state, which is no longer kept: training may fail in the midst of a step."""
        state = self._state
        self._state = None
        assert state is not None
        return state

    def trained_weights(self) -> dict[str, torch.Tensor]:
        """What the last training changed, as it was scored, on the CPU."""
        assert self._state is not None
        return {name: weight.detach().cpu() for name, weight in self._state.scored_weights.items()}

    def keep(self, state: TrainState) -> None:
        """Lets the next call resume from `state`."""
        self._state = state


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
        TrainingStoppedError: `stop` was true; a checkpoint of the step reached is on the disk, or not worth it.
        InputError: the model or the clips do not fit the configuration.
        CheckpointError: the checkpoint is damaged or of another training.
        OSError: a checkpoint cannot be written.
    """
    device = devices.configure_device(stretch.threads)
    model_cache = model_cache or ModelCache()
    writer = model_cache.writer()
    try:
        state = model_cache.state(config, speech, device, stretch)
        state.stepper.before_update = writer.before_update
        saver = _Saver(state, stretch, writer, config)
        _advance(state, stretch, saver, report, stop)
        state.finish_prefetching()
        # The checkpoint is written meanwhile.
        scores, long_scores, seconds = _scored(state, speech, stretch, stop)
        if not (stretch.is_thrifty and writer.is_beside):
            writer.wait()
    except evaluate.EvaluationInterruptedError:
        saver.save_for_stop()
        raise TrainingStoppedError(stretch.last_step, state.saved) from None
    except BaseException:
        writer.settle()
        raise
    finally:
        if device.type == "cuda":
            torch.cuda.empty_cache()
    model_cache.keep(state)
    return _result(state, scores, long_scores, seconds)


def _scored(
    state: TrainState, speech: Speech, stretch: Stretch, stop: Callable[[], bool]
) -> tuple[Scores, LongScores | None, float]:
    """The scores of the validation clips, and as long recordings where those are asked for; and the seconds of both."""
    names = speech.split.validation
    whisper = state.whisper
    config = state.config
    with state.stepper.scored_weights():
        scores, seconds = evaluate.evaluate(whisper, speech, names, config, eval_batch=stretch.eval_batch, stop=stop)
        if not stretch.with_long:
            return scores, None, seconds
        long_scores, long_seconds = long_form.score(whisper, speech, names, config, stop=stop)
    return scores, long_scores, seconds + long_seconds


def _result(state: TrainState, scores: Scores, long_scores: LongScores | None, eval_seconds: float) -> Result:
    return Result(
        step=state.step,
        wer=scores.wer,
        wer_raw=scores.wer_raw,
        cer=scores.cer,
        loops=scores.loops,
        train_seconds=state.seconds,
        repeated_seconds=state.repeated_seconds,
        eval_seconds=eval_seconds,
        saved=state.saved,
        scores=scores.clips,
        eval_batch=scores.eval_batch,
        long=long_scores,
    )


class _Saver:
    """Saves the checkpoints of one stretch: which of them, its `is_thrifty` decides by what this machine measured."""

    def __init__(self, state: TrainState, stretch: Stretch, writer: CheckpointWriter, config: TrainConfig) -> None:
        self._state = state
        self._stretch = stretch
        self._writer = writer
        self._is_last = stretch.last_step == config.max_steps
        self._first_step = state.step
        self._seconds_before = state.seconds + state.repeated_seconds
        self._on_the_way: int | None = None  # step of the last checkpoint that this call wrote
        self._saved_at = time.monotonic()

    def is_due(self) -> bool:
        """Whether too much would be lost by a kill."""
        interval = self._stretch.save_seconds
        elapsed = time.monotonic() - self._saved_at
        if not interval or elapsed < interval:
            return False
        return saving.is_due(elapsed, interval, self._size, self._writer.rates)

    @functools.cached_property
    def _size(self) -> int:
        """Bytes of a checkpoint, first asked for after a step; adding them up takes milliseconds for large-v3."""
        return self._state.checkpoint_bytes

    def save(self) -> None:
        """Saves the state, which must be synchronized, in place of the last one on the way."""
        state = self._state
        state.saved = self._writer.write(self._stretch.save_to, state.checkpoint(), instead_of=self._on_the_way)
        self._on_the_way = state.step
        self._saved_at = time.monotonic()

    def save_at_rung(self) -> None:
        """Saves where the stretch has ended, unless that is not worth it."""
        if self._state.unsaved_steps and (not self._stretch.is_thrifty or self._is_worthwhile()):
            self.save()

    def save_for_stop(self) -> None:
        """Saves where training was stopped, unless it is sooner trained again; returns when that is on the disk."""
        state = self._state
        is_cheaper = saving.is_cheaper(state.unsaved_steps, self._step_seconds(), self._size, self._writer.rates)
        if state.unsaved_steps and (not self._stretch.is_thrifty or is_cheaper):
            self.save()
        self._writer.wait()

    def _is_worthwhile(self) -> bool:
        steps = self._state.unsaved_steps
        return not self._is_last and saving.is_worthwhile(steps, self._step_seconds(), self._size, self._writer.rates)

    def _step_seconds(self) -> float:
        """The mean of this call's steps."""
        state = self._state
        seconds = state.seconds + state.repeated_seconds - self._seconds_before
        return seconds / max(1, state.step - self._first_step)


def _advance(
    state: TrainState,
    stretch: Stretch,
    saver: _Saver,
    report: Callable[[StepMetrics], None],
    stop: Callable[[], bool],
) -> None:
    """Trains and saves until the stretch's last step."""
    if state.step > stretch.last_step:
        raise ValueError(f"{stretch.checkpoint}: is past step {stretch.last_step}, where the stretch ends")
    while state.step < stretch.last_step:
        for metrics in state.update(stretch.micro_batch):
            report(metrics)
        stopping = stop()
        is_at_rung = state.step == stretch.last_step
        is_due = saver.is_due()
        if stopping or is_at_rung or is_due:
            for metrics in state.synchronize():
                report(metrics)
            state.keep_random_state()
        if stopping:
            saver.save_for_stop()
            raise TrainingStoppedError(state.step, state.saved)
        if is_at_rung:
            saver.save_at_rung()
        elif is_due:
            saver.save()
