"""An evaluation on the played GPU: encoding, cache, prompt, tokens."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch

from tests.bench.gpu_player import fake_cuda, workload
from tests.bench.gpu_player.kernels import MICRO
from tests.bench.gpu_player.meter import Meter, Total
from tests.bench.gpu_player.rates import Rates
from tests.bench.gpu_player.shapes import Shapes
from tests.bench.gpu_player.workload import PROMPT
from tmsearch import devices
from tmsearch.config import TrainConfig
from tmsearch.model import forward
from tmsearch.model.decoding import Decoder
from tmsearch.model.kernels import fused

CAP = 68  # tokens that a hypothesis may have: 1.5 times 40, and 8
SPOKEN = 0.6  # of those, until the last clip of a batch has ended
CAPTURE_SECONDS = 0.015  # to make a graph of a token's launches, besides launching them twice


@dataclass(frozen=True)
class BatchPlayed:
    """One batch of an evaluation."""

    clips: int
    groups: int
    encoding: Total
    prompt: Total  # with the cache, and the first token
    token: Total
    is_captured: bool  # a graph was made for it
    waits: Counter[str]  # of the host, in a token
    seconds: float
    peak_bytes: int
    table: str  # of a token's operators


@dataclass(frozen=True)
class EvaluationPlayed:
    """Seconds of a whole evaluation as the device and the capture of graphs take them, and of its audio."""

    batches: tuple[BatchPlayed, ...]
    weights: Total  # casting them
    seconds: float
    audio_seconds: float


class _Graph:
    """Stands for a CUDA graph that was captured."""


def evaluation(
    shapes: Shapes, config: TrainConfig, rates: Rates, seconds: str = "mix", clips: int = 124, rows: int = 14
) -> EvaluationPlayed:
    """Plays an evaluation of `clips` clips in batches of `config.eval_batch_size`, as evaluate.py makes them."""
    lengths = sorted(workload.clip_seconds(seconds, clips, 0))
    rule = workload.context_rule(lengths, config.context_silence)
    meter = Meter(rates)
    batches = []
    with fake_cuda.fake_tensors(), meter, torch.no_grad():
        whisper = workload.whisper(shapes, config)
        whisper.model.train(False)
        with devices.autocast(config, fake_cuda.DEVICE, shapes.d_model):
            meter.reset()
            decoder = Decoder(whisper, fused.layers_for(config, fake_cuda.DEVICE, shapes.d_model))
            weights = meter.total
            for first in reversed(range(0, clips, config.eval_batch_size)):
                batch = lengths[first : first + config.eval_batch_size]
                groups = []
                for frames, indices in rule.length_groups(batch):
                    groups.append(torch.zeros(len(indices), shapes.n_mels, frames, device=fake_cuda.DEVICE))
                batches.append(_batch(decoder, groups, config, meter, rows))
    total = weights.seconds + sum(batch.seconds for batch in batches)
    return EvaluationPlayed(tuple(batches), weights, total, sum(lengths))


def _batch(decoder: Decoder, groups: list[torch.Tensor], config: TrainConfig, meter: Meter, rows: int) -> BatchPlayed:
    """One batch: encoding, prompt, and the token that a graph holds."""
    meter.reset()
    encoded = forward.encode(decoder.model, groups, config.context_silence, decoder.layers)
    encoding = meter.total
    peak = meter.peak_bytes
    with torch.autocast("cuda", enabled=False):
        meter.reset()
        captured = decoder._captured_batch(encoded, PROMPT, CAP)
        is_captured = captured._graph is None
        captured.prepare(encoded)
        prompt = meter.total
        peak = max(peak, meter.peak_bytes)
        del encoded
        captured._graph = captured._graph or _Graph()  # type: ignore[assignment]
        meter.reset()
        captured._batch.decode_next()
        token = meter.total
    launching = meter.rates.launch * MICRO
    seconds = encoding.seconds + max(prompt.seconds, prompt.launches * launching)
    if is_captured:  # launched once to warm up, once to capture
        seconds += 2 * token.launches * launching + CAPTURE_SECONDS
    seconds += SPOKEN * CAP * token.seconds
    return BatchPlayed(
        clips=sum(len(group) for group in groups),
        groups=len(groups),
        encoding=encoding,
        prompt=prompt,
        token=token,
        is_captured=is_captured,
        waits=meter.waits,
        seconds=seconds,
        peak_bytes=max(peak, meter.peak_bytes),
        table=meter.table(rows),
    )
