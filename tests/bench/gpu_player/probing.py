"""The memory probe on a played GPU of a given size, and whether what it promises is kept."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from tests.bench import made_speech
from tests.bench.gpu_player import fake_cuda, training
from tests.bench.gpu_player.meter import Meter
from tests.bench.gpu_player.rates import Rates
from tests.bench.gpu_player.shapes import Shapes
from tmsearch import devices
from tmsearch.config import TrainConfig
from tmsearch.model.decoding import Hypothesis, _CapturedBatch
from tmsearch.model.forward import Encoded
from tmsearch.model.whisper import Whisper
from tmsearch.training import micro_batch
from tmsearch.training.micro_batch import BatchLimits, Probe
from tmsearch.training.train import ModelCache

MIXES = 2  # batches that are trained with what the probe found


class Card(Meter):
    """A GPU with so many bytes: asking for more raises what torch's allocator raises."""

    size = math.inf

    def _hold(self, tensor: torch.Tensor) -> None:
        super()._hold(tensor)
        if self.live_bytes > self.size:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate more than a played GPU has")

    def reset_peak(self, *device: Any) -> None:
        self.peak_bytes = self.live_bytes


@dataclass(frozen=True)
class Promise:
    """What the probe found for a card, and what the training then takes of it, in bytes."""

    limits: BatchLimits
    probed_step: int  # at the micro-batch found
    probed_evaluation: int
    step: int  # the most of several batches of 2 to 11 s, their longest clips together in one pass
    evaluation: int
    kept: int  # of an evaluation, when it is over


class _OneModel(ModelCache):
    """The played model, as train()'s cache hands it on."""

    def __init__(self, whisper: Whisper) -> None:
        super().__init__()
        self._made = whisper

    def whisper(self, config: TrainConfig) -> Whisper:
        self._made.model.zero_grad(set_to_none=True)
        return self._made


def promise(shapes: Shapes, config: TrainConfig, rates: Rates, gigabytes: float) -> Promise:
    """Finds the limits on a card of so many GB and then trains and scores with them, clips of 2 to 11 s.

    Raises:
        torch.OutOfMemoryError: the promise is not kept.
    """
    card = Card(rates)
    _install(card)
    with fake_cuda.fake_tensors(), card:
        dtype = torch.bfloat16 if config.low_memory else torch.float32
        made = made_speech.Shapes(shapes.d_model, shapes.encoder_layers, shapes.heads, shapes.n_mels, shapes.vocabulary)
        model = made_speech.made_model(made, fake_cuda.DEVICE, dtype)
        cache = _OneModel(made_speech.made_whisper(model, made))
        train = made_speech.clip_seconds("mix", 4 * config.batch_size, 0)
        speech = made_speech.made_speech(
            made, [*train, 11.0], made_speech.clip_seconds("mix", config.eval_batch_size, 1)
        )
        card.size = 1e9 * gigabytes
        limits = micro_batch.find(config, speech, cache)
        probe = Probe(config, speech, cache, fake_cuda.DEVICE)
        probed_step = probe.step_peak(limits.micro_batch)
        probed_evaluation = probe.evaluation_peak(limits.eval_batch)
        stepper = probe._state.stepper
        most = 0
        before = card.live_bytes
        for number in range(1, 1 + MIXES):
            parts = list(training._micro_batches(shapes, config, "mix", limits.micro_batch, number))
            card.reset_peak()
            stepper.launch(number, parts)
            most = max(most, card.peak_bytes)
        evaluation = probe.evaluation_peak(limits.eval_batch)
        del parts
        kept = card.live_bytes - before
    return Promise(limits, probed_step, probed_evaluation, most, evaluation, kept)


def _install(card: Card) -> None:
    """What CUDA is asked of memory, answered by the card."""
    cuda: Any = torch.cuda
    cuda.mem_get_info = lambda *device: (int(card.size) - card.live_bytes, int(card.size))
    cuda.memory_reserved = lambda *device: card.live_bytes
    cuda.max_memory_allocated = lambda *device: card.peak_bytes
    cuda.reset_peak_memory_stats = card.reset_peak
    devices.move = lambda *arguments: None  # it was made there, and fake tensors cannot be swapped
    _CapturedBatch.run = _decode_two  # type: ignore[method-assign]


def _decode_two(captured: _CapturedBatch, encoded: Encoded) -> list[Hypothesis]:
    """As many tokens as differ in what they take: a graph repeats the second."""
    captured.prepare(encoded)
    captured._batch.decode_next()
    return captured._batch.hypotheses
