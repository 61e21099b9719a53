"""What a fine-tune will take: memory and arithmetic, from a model's settings alone."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tmsearch.config import TrainConfig
from tmsearch.model.whisper import POSITIONS_PER_SECOND, ModelInfo

if TYPE_CHECKING:
    import torch

LABEL_TOKENS = 24  # of a typical clip: prompt, some dozen words, end
FLOAT_BYTES, BF16_BYTES = 4, 2
# Numbers a layer keeps for its backward pass, in units of d_model a position: layer norms, projections, attention
# (its matrix is not kept: SDPA), the two halves of the feed-forward block. After Korthikanti et al. 2022, section 4.
ENCODER_KEPT = 17
DECODER_KEPT = 25
BACKWARD = 2  # times the forward pass: one product for the inputs, one for the weights
# What an update cannot avoid moving, in copies of the trained weights: weights read forward, backward and by AdamW
# and written; gradients written and read; two moments read and written.
UPDATE_MOVES = 10


@dataclass(frozen=True)
class Estimate:
    """Of one optimiser step; within a fifth for the arithmetic, rougher for memory and for what is moved."""

    memory_bytes: int
    flops_per_step: int
    bytes_per_step: int  # read and written, caches as large as need be: what no program could avoid


def estimate(
    facts: ModelInfo, config: TrainConfig, label_tokens: float = LABEL_TOKENS, seconds: float | None = None
) -> Estimate:
    """What training `config` on the model of `facts` takes, without loading it.

    `label_tokens` a clip, heard for `seconds` on average; None: for as long as the config or the model says.
    """
    seconds = min(seconds or config.context_seconds or facts.context_seconds, facts.context_seconds)
    positions = round(seconds * POSITIONS_PER_SECOND)
    encoder, decoder = _forward_flops(facts, positions, label_tokens)
    trained_encoder = encoder * _trained_share(facts, config)
    flops = encoder + decoder + BACKWARD * (trained_encoder + decoder)
    size = BF16_BYTES if config.low_memory else FLOAT_BYTES
    states, trained = _states(facts, config)
    kept = _kept(facts, config, positions, label_tokens)
    clips = min(config.micro_batch_size or config.batch_size, config.batch_size)
    return Estimate(
        memory_bytes=round(size * (states + clips * kept)),
        flops_per_step=round(flops * config.batch_size),
        bytes_per_step=round(size * (UPDATE_MOVES * trained + 2 * config.batch_size * kept)),
    )


def matmul_rate(threads: int, seconds: float = 0.1, bf16: bool = False) -> float:
    """Floating-point operations a second of a matrix product here, float32 or bfloat16, measured for `seconds`."""
    import torch

    from tmsearch import devices

    place = devices.configure_device(threads)
    size = 8192 if place.type == "cuda" and bf16 else 2048 if place.type == "cuda" else 512
    # Random, since a GPU multiplies zeros and ones faster than numbers.
    left = torch.randn(size, size, device=place, dtype=torch.bfloat16 if bf16 else torch.float32)
    return 2 * size**3 * _rounds_a_second(lambda: left @ left, seconds)


def copy_rate(threads: int, seconds: float = 0.1) -> float:
    """Bytes a second, read and written, of a copy of 256 MB here, measured for about `seconds`."""
    import torch

    from tmsearch import devices

    source = torch.ones(64 << 20, device=devices.configure_device(threads))
    target = torch.empty_like(source)
    return 2 * source.numel() * FLOAT_BYTES * _rounds_a_second(lambda: target.copy_(source), seconds)


def _rounds_a_second(work: Callable[[], torch.Tensor], seconds: float) -> float:
    def finished(result: torch.Tensor) -> None:
        float(result.flatten()[0])  # reading a number waits for the device

    finished(work())
    rounds, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds or rounds < 3:
        finished(work())
        rounds += 1
    return rounds / elapsed


def _forward_flops(facts: ModelInfo, positions: int, tokens: float) -> tuple[float, float]:
    """Of encoder and decoder for one clip; a multiply and an add are two."""
    width = facts.d_model
    convolutions = 2 * 3 * positions * width * (2 * facts.n_mels + width)
    attention = 8 * width**2 + 4 * positions * width  # four projections, two products with the others' positions
    encoder = facts.encoder_layers * positions * (attention + 4 * width * facts.encoder_ffn_dim)
    own = 8 * width**2 + 4 * tokens * width
    across = 4 * width**2 + 4 * positions * width
    keys = 4 * width**2 * positions  # keys and values of the encoder's output, once a layer
    decoder = facts.decoder_layers * (tokens * (own + across + 4 * width * facts.decoder_ffn_dim) + keys)
    return convolutions + encoder, decoder + 2 * tokens * width * facts.vocab_size


def _trained_share(facts: ModelInfo, config: TrainConfig) -> float:
    """The part of the encoder that the backward pass goes through."""
    if config.freeze_encoder:
        return 0.0
    return 1 - min(config.freeze_encoder_layers, facts.encoder_layers) / max(1, facts.encoder_layers)


def _states(facts: ModelInfo, config: TrainConfig) -> tuple[int, int]:
    """Numbers that stay: weights, gradients, two moments; and how many of the weights are trained."""
    if config.lora_r:
        modules = len(config.lora_targets.split(","))
        trained = 2 * config.lora_r * facts.d_model * modules * (facts.encoder_layers + 2 * facts.decoder_layers)
    else:
        layer = 4 * facts.d_model**2 + 2 * facts.d_model * facts.encoder_ffn_dim
        trained = facts.parameters - round((1 - _trained_share(facts, config)) * facts.encoder_layers * layer)
    return facts.parameters + 3 * trained, trained


def _kept(facts: ModelInfo, config: TrainConfig, positions: int, tokens: float) -> float:
    """Numbers that a clip's forward pass keeps for the backward pass."""
    kept = _trained_share(facts, config) * facts.encoder_layers * positions * ENCODER_KEPT
    kept += facts.decoder_layers * (tokens * DECODER_KEPT + 2 * positions)
    return kept * facts.d_model + tokens * facts.vocab_size  # the logits become their own gradient
