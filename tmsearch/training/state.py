"""A fine-tune between two optimizer steps: model, optimizer, batches, losses, and what a checkpoint holds of them.

`TrainState` is the whole; it has a `Stepper` (step.py), which does the arithmetic of one optimizer step, and a
`DivergenceMonitor`, which looks at the losses.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tmsearch import devices
from tmsearch.config import TrainConfig, knob_values
from tmsearch.errors import CheckpointError, TmsearchError
from tmsearch.features import augment
from tmsearch.features.batches import Batches
from tmsearch.features.dataset import Speech
from tmsearch.model import trainable
from tmsearch.model.forward import MicroBatch
from tmsearch.model.kernels.trained_layers import KeptLayers
from tmsearch.model.whisper import Whisper
from tmsearch.training import checkpoints
from tmsearch.training.checkpoints import Checkpoint, VerifiedCheckpoints
from tmsearch.training.optim import optimizer
from tmsearch.training.step import PendingStep, Stepper

# A training has diverged when the mean of its last losses is above both of these: three times the first loss, and
# the loss of guessing every token alike. One bad batch, or a rate that is merely too high, passes neither.
DIVERGED_MEAN_OF = 10
DIVERGED_TIMES = 3.0


class DivergenceError(TmsearchError):
    """A loss or gradient norm that is not finite, or a loss that has run away: the step and the value."""


@dataclass(frozen=True)
class StepMetrics:
    """What one optimizer step measured."""

    step: int
    loss: float  # mean over the batch, nats a token
    learning_rate: float  # of the layers at the output
    grad_norm: float  # before clipping
    seconds: float  # of this step alone


def fingerprint(config: TrainConfig) -> str:
    """A sha256 of every knob; 1 and 1.0 count as the same value, since YAML and JSON mix them up."""
    knobs = knob_values(config)
    for name, value in knobs.items():
        if isinstance(value, int) and not isinstance(value, bool):
            knobs[name] = float(value)
    return hashlib.sha256(json.dumps(knobs, sort_keys=True).encode()).hexdigest()


def identity(config: TrainConfig, speech: Speech) -> dict[str, str]:
    """What makes a training that training: its checkpoints say it."""
    return identity_on(config, speech.fingerprint)


def identity_on(config: TrainConfig, corpus_fingerprint: str) -> dict[str, str]:
    """The identity of a training on the corpus with this fingerprint, and on what is beside it."""
    return {"config": fingerprint(config), "corpus": corpus_fingerprint}


class DivergenceMonitor:
    """Keeps the first loss of a training and its last few, and raises when they run away."""

    def __init__(self, vocabulary: int) -> None:
        self.guessing = math.log(vocabulary)  # nats a token, all tokens alike
        self.first: float | None = None
        self.last: list[float] = []

    def add(self, step: int, loss: float, grad_norm: float) -> None:
        """Takes the loss and gradient norm of optimizer step `step`; raises DivergenceError."""
        if not math.isfinite(loss):
            raise DivergenceError(f"step {step}: the loss is {loss}")
        if not math.isfinite(grad_norm):
            raise DivergenceError(f"step {step}: the gradient's norm is {grad_norm} at loss {loss:.3g}")
        if self.first is None:
            self.first = loss
        self.last = [*self.last[1 - DIVERGED_MEAN_OF :], loss]
        mean = sum(self.last) / len(self.last)
        limit = max(DIVERGED_TIMES * self.first, self.guessing)
        if len(self.last) == DIVERGED_MEAN_OF and mean > limit:
            raise DivergenceError(f"step {step}: the loss diverged, from {self.first:.3g} to a mean of {mean:.3g}")

    def to_json(self) -> dict[str, Any]:
        return {"first": self.first, "last": self.last}

    def set_json(self, saved: Mapping[str, Any]) -> None:
        self.first = saved["first"]
        self.last = list(saved["last"])


class TrainState:
    """Everything that an optimizer step changes, ready for the next one.

    Making one seeds torch's global generators and takes over `whisper`, which must be as it was loaded. Raises
    InputError for clips that the model cannot take, whether to train on or to score.
    """

    def __init__(
        self,
        config: TrainConfig,
        speech: Speech,
        whisper: Whisper,
        device: torch.device,
        kept_layers: KeptLayers | None = None,
    ) -> None:
        self.config = config
        self.whisper = whisper
        self.device = device
        self.identity = identity(config, speech)
        torch.manual_seed(config.seed)  # adapters, dropout, skipped layers; batches and masks seed their own
        trainable.prepare(whisper, config)
        devices.move(whisper.model, device, torch.bfloat16 if config.low_memory else None)
        self.batches = Batches(whisper, speech, config, device)
        self.stepper = Stepper(whisper, config, device, kept_layers)
        # Validation clips are scored after training, but refused now: nothing is trained in vain.
        speech.check_lengths(speech.split.validation, self.batches.clip_rule.seconds)
        speech.label_ids(speech.split.validation, whisper)
        self.monitor = DivergenceMonitor(whisper.model.config.vocab_size)
        self.random = self._random_states()
        self.step = 0
        self.saved: Path | None = None  # the last checkpoint that was made of this training, or that it was read from
        self.first_step = 0  # of the stretch
        self.seconds = 0.0  # of training since the stretch began
        self.repeated_seconds = 0.0  # of training up to where the stretch began, which an earlier one did already
        self._mark = 0.0  # perf_counter() up to which `seconds` counts
        self._pending: list[PendingStep] = []
        makes_waveforms = augment.changes_waveform(config) or config.window_share > 0 or config.noise_db is not None
        prefetches = device.type == "cuda" and makes_waveforms
        self._prefetcher = ThreadPoolExecutor(1, thread_name_prefix="batches") if prefetches else None
        self._prefetched: dict[tuple[int, int], Future[list[MicroBatch]]] = {}
        if self.stepper.captured is not None:
            self.stepper.captured.before_capture = _calling(weakref.WeakMethod(self.finish_prefetching))

    def update(self, micro_batch: int) -> list[StepMetrics]:
        """Does one optimizer step over one batch, `micro_batch` clips a forward pass. Raises DivergenceError.

        Returns the metrics that are known by now. On a GPU those are the metrics of the step before: reading a loss
        waits for the device, which would be idle until the next launch.
        """
        if not self._pending:
            self._mark = time.perf_counter()
        self._pending.append(self.stepper.launch(self.step + 1, self._batch(self.step + 1, micro_batch)))
        self.step += 1
        return self.synchronize(leave=1 if self.device.type == "cuda" else 0)

    def _batch(self, step: int, micro_batch: int) -> Iterable[MicroBatch]:
        """The batch of `step`; where waveforms are augmented for a GPU, the next one is prepared in a thread."""
        if self._prefetcher is None:
            return self.batches.micro_batches(step, micro_batch)
        ready = self._prefetched.pop((step, micro_batch), None)
        next_batch = self._prefetcher.submit(lambda: list(self.batches.micro_batches(step + 1, micro_batch)))
        self._prefetched = {(step + 1, micro_batch): next_batch}
        return ready.result() if ready is not None else self.batches.micro_batches(step, micro_batch)

    def finish_prefetching(self) -> None:
        """Waits until no thread prepares a batch: it would take memory from a GPU whose work is being captured."""
        for next_batch in self._prefetched.values():
            wait([next_batch])

    def synchronize(self, leave: int = 0) -> list[StepMetrics]:
        """Waits for all launched steps but the last `leave`, and returns their metrics. Raises DivergenceError."""
        metrics = []
        while len(self._pending) > leave:
            pending = self._pending.pop(0)
            loss, norm = pending.measured.tolist()
            self.monitor.add(pending.step, loss, norm)
            now = time.perf_counter()
            metrics.append(StepMetrics(pending.step, loss, pending.learning_rate, norm, now - self._mark))
            if pending.step > self.first_step:
                self.seconds += now - self._mark
            else:
                self.repeated_seconds += now - self._mark
            self._mark = now
        return metrics

    @property
    def unsaved_steps(self) -> int:
        """Steps that are trained again if the process ends now."""
        if self.saved is None or not self.saved.is_dir():
            return self.step
        return self.step - checkpoints.step_of(self.saved)

    @property
    def checkpoint_bytes(self) -> int:
        """What a checkpoint takes; 0 before the first step, when there are no moments yet."""
        moments = 0
        for values in self.stepper.optimizer.state.values():
            for value in values.values():
                width = value.element_size() if self.config.exact_checkpoints else torch.bfloat16.itemsize
                moments += value.numel() * width
        if not moments:
            return 0
        weights: list[torch.Tensor] = [*self.stepper.weights.values()]
        if self.stepper.average is not None:
            weights += self.stepper.average.values.values()
        return moments + sum(weight.numel() * weight.element_size() for weight in weights)

    def begin(self, first_step: int) -> None:
        """Starts to count the seconds of a stretch."""
        self.first_step = first_step
        self.seconds = 0.0
        self.repeated_seconds = 0.0

    def checkpoint(self) -> Checkpoint:
        """The state after the last step, which must be synchronized; its tensors are those that training changes."""
        state: dict[str, Any] = {
            **self.identity,
            "losses": self.monitor.to_json(),
            "clips_seen": self.step * self.config.batch_size,
            "stretch": {
                "first_step": self.first_step,
                "seconds": self.seconds,
                "repeated_seconds": self.repeated_seconds,
            },
        }
        weights = self.stepper.weights
        moments = optimizer.moments(self.stepper.optimizer, weights, exact=self.config.exact_checkpoints)
        self.keep_random_state()
        tensors: dict[str, Mapping[str, torch.Tensor]] = {"weights": weights, "moments": moments, "random": self.random}
        if self.stepper.average is not None:
            tensors[checkpoints.AVERAGE] = self.stepper.average.values
        return Checkpoint(self.step, tensors, state)

    @property
    def scored_weights(self) -> Mapping[str, torch.Tensor]:
        """What training changed, as it is scored and exported: the averaged weights, where they are averaged."""
        average = self.stepper.average
        return average.values if average is not None and average.values else self.stepper.weights

    def keep_random_state(self) -> None:
        """Notes where torch's generators are, for `restore_random_state`."""
        self.random = self._random_states()

    def _random_states(self) -> dict[str, torch.Tensor]:
        """The states of torch's generators, by device."""
        states = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self.device)
        elif self.device.type == "mps":
            states["mps"] = torch.mps.get_rng_state()
        return states

    def restore_random_state(self) -> None:
        """Sets torch's generators to where they were when they were noted, whatever was drawn since."""
        torch.set_rng_state(self.random["cpu"])
        if self.device.type == "cuda" and "cuda" in self.random:
            torch.cuda.set_rng_state(self.random["cuda"], self.device)
        elif self.device.type == "mps" and "mps" in self.random:
            torch.mps.set_rng_state(self.random["mps"])

    def load(self, folder: Path, verified: VerifiedCheckpoints) -> None:
        """Restores what `checkpoint` gave, in the stretch that was begun.

        Raises CheckpointError for a damaged one or one of another training.
        """
        saved = checkpoints.load(folder, verified)
        for key, value in self.identity.items():
            if saved.state.get(key) != value:
                raise CheckpointError(f"{folder}: made with another {key}")
        try:
            self._restore(saved)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(f"{folder}: of another version ({error!r:.120})") from error
        self.saved = folder

    def _restore(self, saved: Checkpoint) -> None:
        """Raises CheckpointError, or KeyError and the like where something is not as this version writes it."""
        clips_seen = saved.state["clips_seen"]
        if clips_seen != saved.step * self.config.batch_size:
            raise CheckpointError(f"{self.config.model}: {clips_seen} clips seen by step {saved.step}")
        trainable.set_weights(self.whisper, saved.tensors["weights"])
        optimizer.set_moments(self.stepper.optimizer, self.stepper.weights, saved.tensors["moments"])
        if self.stepper.average is not None:
            self.stepper.average.restore(saved.tensors[checkpoints.AVERAGE])
        self.monitor.set_json(saved.state["losses"])
        self.random = dict(saved.tensors["random"])
        self.restore_random_state()
        self.step = saved.step
        stretch = saved.state["stretch"]
        if stretch["first_step"] == self.first_step:
            self.seconds = stretch["seconds"]
            self.repeated_seconds = stretch.get("repeated_seconds", 0.0)  # earlier checkpoints have none


def _calling(method: weakref.WeakMethod[Callable[[], None]]) -> Callable[[], None]:
    """Calls `method` of an object that may be gone: what is kept for the next training does not keep this one."""

    def call() -> None:
        alive = method()
        if alive is not None:
            alive()

    return call
