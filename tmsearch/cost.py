"""What a fine-tune will take: memory and arithmetic, from a model's settings alone."""

from __future__ import annotations

import time
from dataclasses import dataclass

from tmsearch.config import TrainConfig
from tmsearch.model import POSITIONS_PER_SECOND, ModelFacts

LABEL_TOKENS = 24  # of a typical clip: prompt, some dozen words, end
FLOAT_BYTES = 4  # weights, gradients and AdamW's two moments are float32 whatever the precision
# Numbers a layer keeps for its backward pass, in units of d_model a position: layer norms, projections, attention
# (its matrix is not kept: SDPA), the two halves of the feed-forward block. After Korthikanti et al. 2022, section 4.
ENCODER_KEPT = 17
DECODER_KEPT = 25
BACKWARD = 2  # times the forward pass: one product for the inputs, one for the weights


@dataclass(frozen=True)
class Estimate:
    """Of one optimiser step; within a fifth for the arithmetic, rougher for memory."""

    memory_bytes: int
    flops_per_step: int


def estimate(facts: ModelFacts, config: TrainConfig, label_tokens: int = LABEL_TOKENS) -> Estimate:
    """What training `config` on the model of `facts` takes, without loading it; `label_tokens` a clip."""
    seconds = min(config.context_seconds or facts.context_seconds, facts.context_seconds)
    positions = round(seconds * POSITIONS_PER_SECOND)
    encoder, decoder = _forward_flops(facts, positions, label_tokens)
    trained_encoder = encoder * _trained_share(facts, config)
    flops = encoder + decoder + BACKWARD * (trained_encoder + decoder)
    return Estimate(_memory(facts, config, positions, label_tokens), round(flops * config.batch_size))


def matmul_rate(threads: int, seconds: float = 0.1) -> float:
    """Floating-point operations a second of a float32 matrix product here, measured for about `seconds`."""
    import torch

    from tmsearch import devices

    place = devices.settle(threads)
    size = 2048 if place.type == "cuda" else 512
    left = torch.ones(size, size, device=place)
    rounds, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds or rounds < 3:
        float((left @ left)[0, 0])  # reading a number waits for the device
        rounds += 1
    return rounds * 2 * size**3 / elapsed


def _forward_flops(facts: ModelFacts, positions: int, tokens: int) -> tuple[float, float]:
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


def _trained_share(facts: ModelFacts, config: TrainConfig) -> float:
    """The part of the encoder that the backward pass goes through."""
    if config.freeze_encoder:
        return 0.0
    return 1 - min(config.freeze_encoder_layers, facts.encoder_layers) / max(1, facts.encoder_layers)


def _memory(facts: ModelFacts, config: TrainConfig, positions: int, tokens: int) -> int:
    clips = min(config.micro_batch_size or config.batch_size, config.batch_size)
    share = _trained_share(facts, config)
    if config.lora_r:
        modules = len(config.lora_targets.split(","))
        trained = 2 * config.lora_r * facts.d_model * modules * (facts.encoder_layers + 2 * facts.decoder_layers)
    else:
        layer = 4 * facts.d_model**2 + 2 * facts.d_model * facts.encoder_ffn_dim
        trained = facts.parameters - round((1 - share) * facts.encoder_layers * layer)
    states = facts.parameters + 3 * trained  # weights; gradients and two moments
    kept = share * facts.encoder_layers * positions * ENCODER_KEPT
    kept += facts.decoder_layers * (tokens * DECODER_KEPT + 2 * positions)
    logits = 3 * tokens * facts.vocab_size  # with their gradient and the softmax
    return round(FLOAT_BYTES * (states + clips * (kept * facts.d_model + logits)))
