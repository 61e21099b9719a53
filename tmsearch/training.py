"""train(config, speech, stretch, report) -> Result: one stretch of a fine-tune, in plain PyTorch."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tmsearch import adapters, checkpoints, devices, evaluation, model, optimiser
from tmsearch.batches import Batches
from tmsearch.checkpoints import Broken, Checkpoint
from tmsearch.config import TrainConfig
from tmsearch.evaluation import ClipScore
from tmsearch.loss import Diverged, Losses, cross_entropy
from tmsearch.model import Whisper
from tmsearch.speech import Speech

__all__ = ["Diverged", "Progress", "Result", "Speech", "Stopped", "Stretch", "fingerprint", "train"]


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
class Progress:
    """One update: mean loss in nats a token, rate at the output layer, gradient norm before clipping, its own time."""

    step: int
    loss: float
    learning_rate: float
    grad_norm: float
    seconds: float


@dataclass(frozen=True)
class Result:
    """The validation scores at `step`. `train_seconds` counts this stretch only, interrupted parts included."""

    step: int
    wer: float
    wer_raw: float
    cer: float
    train_seconds: float
    eval_seconds: float
    checkpoint: Path
    scores: tuple[ClipScore, ...]


class Stopped(Exception):
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
    report: Callable[[Progress], None],
    *,
    stop: Callable[[], bool] = never,
    whisper: Whisper | None = None,
) -> Result:
    """Trains up to `stretch.last_step`, saves a checkpoint there, and scores it on the validation split.

    The schedule spans `config.max_steps` whatever `last_step` is. On a CPU a training stopped anywhere and resumed
    equals the unbroken one to the bit, at equal threads and micro-batch. `whisper`, if given, is the freshly loaded
    `config.model`, which this call uses up. Raises Diverged, Stopped, InputError, and checkpoints.Broken.
    """
    place = devices.settle(stretch.threads)
    try:
        run = _Run(config, speech, whisper or model.load(config), place)
        if stretch.checkpoint is not None:
            run.load(stretch.checkpoint, stretch)
        saved = _advance(run, stretch, report, stop)
        scores, seconds = evaluation.evaluate(run.whisper, speech, speech.split.validation, config, stop=stop)
    except evaluation.Interrupted:
        raise Stopped(stretch.last_step, saved) from None
    finally:
        if place.type == "cuda":
            torch.cuda.empty_cache()
    return Result(run.step, scores.wer, scores.wer_raw, scores.cer, run.seconds, seconds, saved, scores.clips)


def fingerprint(config: TrainConfig) -> str:
    """A hash of every knob; 1 and 1.0 are one value, as YAML and JSON mix them up."""
    knobs = {
        name: float(value) if isinstance(value, int) and not isinstance(value, bool) else value
        for name, value in dataclasses.asdict(config).items()
    }
    return hashlib.sha256(json.dumps(knobs, sort_keys=True).encode()).hexdigest()


def _advance(run: _Run, stretch: Stretch, report: Callable[[Progress], None], stop: Callable[[], bool]) -> Path:
    """Updates and saves until the stretch's last step; returns the checkpoint there."""
    saved = stretch.checkpoint
    own: int | None = None  # step of the last checkpoint that this call wrote on the way
    kept, took = time.monotonic(), 0.0
    while run.step < stretch.last_step:
        report(run.update(stretch.micro_batch))
        stopping = stop()
        due = stretch.save_seconds and time.monotonic() - kept >= max(stretch.save_seconds, took / SAVE_SHARE)
        if stopping or due or run.step == stretch.last_step:
            began = time.monotonic()
            saved = run.save(stretch)
            if own is not None:
                checkpoints.discard(stretch.save_to, own)
            own, kept = run.step, time.monotonic()
            took = kept - began
        if stopping:
            assert saved is not None
            raise Stopped(run.step, saved)
    if saved is None or run.step != stretch.last_step:
        raise ValueError(f"{saved}: step {run.step} is not within a stretch that ends at {stretch.last_step}")
    return saved


class _Run:
    """A fine-tune between two updates: all that a checkpoint holds."""

    def __init__(self, config: TrainConfig, speech: Speech, whisper: Whisper, place: torch.device) -> None:
        self.config, self.whisper, self.place = config, whisper, place
        self.identity = {"config": fingerprint(config), "corpus": speech.corpus.fingerprint}
        torch.manual_seed(config.seed)  # of adapters, dropout and skipped layers; batches and masks have their own
        adapters.prepare(whisper, config)
        devices.move(whisper.model, place)
        self.weights = adapters.trainable(whisper)
        self.optimiser = optimiser.adamw(whisper, config)
        self.batches = Batches(whisper, speech, config)
        # Scored later, refused now: nothing is trained in vain.
        speech.check_heard(speech.split.validation, whisper.context_seconds)
        speech.label_ids(speech.split.validation, whisper)
        self.losses = Losses(whisper.model.config.vocab_size)
        self.step = 0
        self.seconds = 0.0  # trained since the stretch began

    def update(self, micro_batch: int) -> Progress:
        """One optimiser step over one batch; raises Diverged."""
        started = time.perf_counter()
        step = self.step + 1
        self.whisper.model.train()
        rate = optimiser.set_rates(self.optimiser, self.config, step)
        loss = self._backward(step, micro_batch)
        norm = nn.utils.clip_grad_norm_(self.weights.values(), self.config.max_grad_norm or math.inf)
        loss_value, norm_value = torch.stack([loss, norm]).tolist()  # the one wait for the device in a step
        self.losses.add(step, loss_value, norm_value)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.step = step
        seconds = time.perf_counter() - started
        self.seconds += seconds
        return Progress(step, loss_value, rate, norm_value, seconds)

    def _backward(self, step: int, micro_batch: int) -> torch.Tensor:
        """Gradients of the batch of `step`, summed over its micro-batches; its loss."""
        total = torch.zeros((), device=self.place)
        for batch in self.batches.of(step, micro_batch):
            with devices.autocast(self.config, self.place, self.whisper.model.config.d_model):
                logits = self.whisper.model(
                    input_features=batch.mels.to(self.place),
                    decoder_input_ids=batch.inputs.to(self.place),
                    use_cache=False,
                ).logits
            labels = batch.labels.to(self.place)
            loss = cross_entropy(logits, labels, batch.tokens, self.config.label_smoothing)
            if loss.requires_grad:  # not when every adapted layer happened to be skipped
                loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total

    def save(self, stretch: Stretch) -> Path:
        """Writes the checkpoint of the last update."""
        random = {"cpu": torch.get_rng_state()}
        if self.place.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self.place)
        state: dict[str, Any] = {
            **self.identity,
            "losses": self.losses.to_json(),
            "clips_seen": self.step * self.config.batch_size,
            "stretch": {"first_step": stretch.first_step, "seconds": self.seconds},
        }
        weights = {name: weight.detach() for name, weight in self.weights.items()}
        moments = optimiser.moments(self.optimiser, self.weights)
        tensors = {"weights": weights, "moments": moments, "random": random}
        return checkpoints.save(stretch.save_to, Checkpoint(self.step, tensors, state))

    def load(self, folder: Path, stretch: Stretch) -> None:
        """Becomes what `save` wrote; raises Broken for a damaged checkpoint or one of another training."""
        saved = checkpoints.load(folder)
        for key, value in self.identity.items():
            if saved.state.get(key) != value:
                raise Broken(f"{folder}: made with another {key}")
        if saved.state["clips_seen"] != saved.step * self.config.batch_size:
            raise Broken(f"{folder}: {saved.state['clips_seen']} clips seen by step {saved.step}")
        adapters.set_weights(self.whisper, saved.tensors["weights"])
        optimiser.set_moments(self.optimiser, self.weights, saved.tensors["moments"])
        self.losses.set_json(saved.state["losses"])
        torch.set_rng_state(saved.tensors["random"]["cpu"])
        if self.place.type == "cuda" and "cuda" in saved.tensors["random"]:
            torch.cuda.set_rng_state(saved.tensors["random"]["cuda"], self.place)
        self.step = saved.step
        before = saved.state["stretch"]
        self.seconds = before["seconds"] if before["first_step"] == stretch.first_step else 0.0
