"""A fine-tune between two updates: model, optimiser, batches, and what a checkpoint of it holds."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tmsearch import devices
from tmsearch.config import TrainConfig
from tmsearch.features import augment
from tmsearch.features.batches import Batches
from tmsearch.features.dataset import Speech
from tmsearch.model import trainable
from tmsearch.model.forward import MicroBatch
from tmsearch.model.whisper import Whisper
from tmsearch.training import checkpoints, optimizer
from tmsearch.training.checkpoints import Checkpoint, CheckpointError
from tmsearch.training.loss import DivergenceMonitor
from tmsearch.training.update import PendingStep, Stepper


@dataclass(frozen=True)
class StepMetrics:
    """One update: mean loss in nats a token, rate at the output layer, gradient norm before clipping, its own time."""

    step: int
    loss: float
    learning_rate: float
    grad_norm: float
    seconds: float


def fingerprint(config: TrainConfig) -> str:
    """A hash of every knob; 1 and 1.0 are one value, as YAML and JSON mix them up."""
    knobs = {
        name: float(value) if isinstance(value, int) and not isinstance(value, bool) else value
        for name, value in dataclasses.asdict(config).items()
    }
    return hashlib.sha256(json.dumps(knobs, sort_keys=True).encode()).hexdigest()


class TrainState:
    """Seeds torch's global generators, and takes `whisper`, which must be as it was loaded, for its own."""

    def __init__(self, config: TrainConfig, speech: Speech, whisper: Whisper, device: torch.device) -> None:
        self.config, self.whisper, self.device = config, whisper, device
        self.identity = {"config": fingerprint(config), "corpus": speech.corpus.fingerprint}
        torch.manual_seed(config.seed)  # of adapters, dropout and skipped layers; batches and masks have their own
        trainable.prepare(whisper, config)
        devices.move(whisper.model, device, torch.bfloat16 if config.low_memory else None)
        self.batches = Batches(whisper, speech, config, device)
        self.stepper = Stepper(whisper, config, device)
        # Scored later, refused now: nothing is trained in vain.
        speech.check_lengths(speech.split.validation, self.batches.context_rule.seconds)
        speech.label_ids(speech.split.validation, whisper)
        self.losses = DivergenceMonitor(whisper.model.config.vocab_size)
        self.random = self._random()
        self.step = 0
        self.seconds = 0.0  # trained since the stretch began
        self._mark = 0.0
        self._launched: list[PendingStep] = []
        waits = device.type == "cuda" and augment.changes_waveform(config)
        self._ahead = ThreadPoolExecutor(1, thread_name_prefix="batches") if waits else None
        self._prepared: dict[tuple[int, int], Future[list[MicroBatch]]] = {}

    def update(self, micro_batch: int) -> list[StepMetrics]:
        """One optimiser step over one batch; what is now known of it or of the one before. Raises Diverged.

        On a GPU that is the one before: to read a loss is to wait for the device, which would idle meanwhile.
        """
        if not self._launched:
            self._mark = time.perf_counter()
        self._launched.append(self.stepper.launch(self.step + 1, self._batch(self.step + 1, micro_batch)))
        self.step += 1
        return self.synchronize(but=1 if self.device.type == "cuda" else 0)

    def _batch(self, step: int, micro_batch: int) -> Iterable[MicroBatch]:
        """The batch of `step`; where a GPU would wait for changed waveforms, the next one is begun beside it."""
        if self._ahead is None:
            return self.batches.micro_batches(step, micro_batch)
        ready = self._prepared.pop((step, micro_batch), None)
        self._prepared = {
            (step + 1, micro_batch): self._ahead.submit(lambda: list(self.batches.micro_batches(step + 1, micro_batch)))
        }
        return ready.result() if ready is not None else self.batches.micro_batches(step, micro_batch)

    def synchronize(self, but: int = 0) -> list[StepMetrics]:
        """Waits for the updates that were launched, `but` for the last few."""
        known = []
        while len(self._launched) > but:
            launched = self._launched.pop(0)
            loss, norm = launched.measured.tolist()
            self.losses.add(launched.step, loss, norm)
            now = time.perf_counter()
            known.append(StepMetrics(launched.step, loss, launched.learning_rate, norm, now - self._mark))
            self.seconds += now - self._mark
            self._mark = now
        return known

    def checkpoint(self, first_step: int) -> Checkpoint:
        """All of the last update, which must be settled; `first_step` is where its stretch began."""
        state: dict[str, Any] = {
            **self.identity,
            "losses": self.losses.to_json(),
            "clips_seen": self.step * self.config.batch_size,
            "stretch": {"first_step": first_step, "seconds": self.seconds},
        }
        weights = self.stepper.weights
        moments = optimizer.moments(self.stepper.optimizer, weights, exact=self.config.exact_checkpoints)
        self.random = self._random()
        return Checkpoint(self.step, {"weights": weights, "moments": moments, "random": self.random}, state)

    def _random(self) -> dict[str, torch.Tensor]:
        """The states of torch's generators, by device."""
        states = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self.device)
        return states

    def restore_random_state(self) -> None:
        """Draws random numbers from where the last checkpoint was made or read, whatever was drawn since."""
        torch.set_rng_state(self.random["cpu"])
        if self.device.type == "cuda" and "cuda" in self.random:
            torch.cuda.set_rng_state(self.random["cuda"], self.device)

    def load(self, folder: Path, first_step: int) -> None:
        """Becomes what `checkpoint` gave; raises Broken for a damaged checkpoint or one of another training."""
        saved = checkpoints.load(folder)
        for key, value in self.identity.items():
            if saved.state.get(key) != value:
                raise CheckpointError(f"{folder}: made with another {key}")
        if saved.state["clips_seen"] != saved.step * self.config.batch_size:
            raise CheckpointError(f"{folder}: {saved.state['clips_seen']} clips seen by step {saved.step}")
        trainable.set_weights(self.whisper, saved.tensors["weights"])
        optimizer.set_moments(self.stepper.optimizer, self.stepper.weights, saved.tensors["moments"])
        self.losses.set_json(saved.state["losses"])
        self.random = dict(saved.tensors["random"])
        self.restore_random_state()
        self.step = saved.step
        before = saved.state["stretch"]
        self.seconds = before["seconds"] if before["first_step"] == first_step else 0.0
