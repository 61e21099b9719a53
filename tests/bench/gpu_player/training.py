"""A training step on the played GPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from tests.bench.gpu_player import fake_cuda, workload
from tests.bench.gpu_player.meter import Meter, Total
from tests.bench.gpu_player.rates import Rates
from tests.bench.gpu_player.shapes import Shapes
from tmsearch.config import TrainConfig
from tmsearch.model.context import dealt
from tmsearch.model.forward import MicroBatch
from tmsearch.training.step import Stepper

_FIRST = 2  # whose lengths all steps have where the last is to be replayed


@dataclass(frozen=True)
class StepPlayed:
    """The last of a few training steps."""

    total: Total
    gradients: Total  # of which forward and backward
    weights_bytes: int
    peak_bytes: int
    live_bytes: int  # between two steps
    groups: tuple[int, ...]  # of clips of equal length, by micro-batch
    waits: Counter[str]
    attention: Counter[str]  # kernels
    table: str


def step(
    shapes: Shapes,
    config: TrainConfig,
    rates: Rates,
    seconds: str = "mix",
    micro_batch: int = 0,
    steps: int = 2,
    rows: int = 20,
    is_captured: bool = False,
) -> StepPlayed:
    """Plays training steps of `config.batch_size` clips, and tells of the last.

    Args:
        seconds: `mix`, or the length of every clip.
        micro_batch: Clips a forward pass; 0: the whole batch.
        steps: The first one makes AdamW's moments, and what is kept from step to step.
        rows: Of the table of operators.
        is_captured: Whether the last one is replayed from graphs, which the one before it records.
    """
    fake_cuda.PlayedRecorder.has_memory = is_captured
    steps += is_captured
    size = micro_batch or config.batch_size
    meter = Meter(rates)
    with fake_cuda.fake_tensors(), meter:
        whisper = workload.whisper(shapes, config)
        stepper = Stepper(whisper, config, fake_cuda.DEVICE)
        weights_bytes = meter.live_bytes
        gradients = _watch(stepper, meter)
        groups: tuple[int, ...] = ()
        for number in range(1, steps + 1):
            parts = list(_micro_batches(shapes, config, seconds, size, _FIRST if is_captured else number))
            groups = tuple(len(part.mels) for part in parts)
            meter.reset()
            gradients.clear()
            fake_cuda.chosen.clear()
            stepper.launch(number, parts)
            del parts
    return StepPlayed(
        total=meter.total,
        gradients=gradients[-1],
        weights_bytes=weights_bytes,
        peak_bytes=meter.peak_bytes,
        live_bytes=meter.live_bytes,
        groups=groups,
        waits=meter.waits,
        attention=fake_cuda.chosen.copy(),
        table=meter.table(rows),
    )


def _micro_batches(shapes: Shapes, config: TrainConfig, seconds: str, size: int, number: int) -> Iterator[MicroBatch]:
    """The batch of step `number`."""
    lengths = workload.clip_seconds(seconds, config.batch_size, number)
    rule = workload.context_rule(lengths, config.context_silence)
    for part in dealt([rule.positions(length) for length in lengths], size):
        yield workload.micro_batch(shapes, [lengths[index] for index in part], rule, config.batch_size)


def _watch(stepper: Stepper, meter: Meter) -> list[Total]:
    """What the meter stands at after each backward pass of `stepper`, to come."""
    totals: list[Total] = []
    backward = stepper.backward

    def watched(part: MicroBatch) -> torch.Tensor:
        loss = backward(part)
        totals.append(meter.total.copy())
        return loss

    stepper.backward = watched  # type: ignore[method-assign]
    return totals
