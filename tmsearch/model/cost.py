"""What a fine-tune will take: memory and arithmetic, from a model's settings alone."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tmsearch.config import TrainConfig
from tmsearch.model.context import POSITIONS_PER_SECOND

if TYPE_CHECKING:
    from tmsearch.model.gpu_cost import Model
    from tmsearch.model.whisper import ModelInfo

LABEL_TOKENS = 24  # of a typical clip: prompt, some dozen words, end
FLOAT_BYTES = 4
BF16_BYTES = 2
# Numbers that a layer keeps for its backward pass, in units of d_model a position: layer norms, projections,
# attention (its matrix is not kept: SDPA), the two halves of the feed-forward block. After Korthikanti et al. 2022,
# section 4.
ENCODER_ACTIVATIONS = 17
DECODER_ACTIVATIONS = 25
BACKWARD = 2  # times the forward pass: one product for the inputs, one for the weights


@dataclass(frozen=True)
class Estimate:
    """The cost of one optimizer step; within a fifth for the arithmetic, rougher for memory."""

    memory_bytes: int
    flops_per_step: int


def estimate(
    model: ModelInfo, config: TrainConfig, label_tokens: float = LABEL_TOKENS, seconds: float | None = None
) -> Estimate:
    """What training takes, without loading the model.

    Args:
        model: Its settings.
        config: What is trained: batch, frozen layers, adapters, number format.
        label_tokens: Mean number of labels of a clip.
        seconds: Mean context of a clip; None: as long as the config or the model says.
    """
    seconds = min(seconds or config.context_seconds or model.context_seconds, model.context_seconds)
    positions = round(seconds * POSITIONS_PER_SECOND)
    flops = step_flops(model, config, positions, label_tokens)
    number_bytes = BF16_BYTES if config.low_memory else FLOAT_BYTES
    states = model.parameters + 3 * trained_parameters(model, config)  # weights; gradients, two moments
    clips = min(config.micro_batch_size or config.batch_size, config.batch_size)
    return Estimate(
        memory_bytes=round(number_bytes * (states + clips * activations(model, config, positions, label_tokens))),
        flops_per_step=round(flops * config.batch_size),
    )


def matmul_rate(threads: int, seconds: float = 0.1, bf16: bool = False) -> float:
    """Floating-point operations a second of a matrix product here, float32 or bfloat16, measured for `seconds`."""
    import torch

    from tmsearch import devices

    device = devices.configure_device(threads)
    size = 512
    if device.type == "cuda":
        size = 8192 if bf16 else 2048
    # Random, since a GPU multiplies zeros and ones faster than other numbers.
    matrix = torch.randn(size, size, device=device, dtype=torch.bfloat16 if bf16 else torch.float32)

    def multiply() -> None:
        float((matrix @ matrix)[0, 0])  # reading a number waits for the device

    multiply()
    rounds = 0
    started = time.perf_counter()
    while True:
        elapsed = time.perf_counter() - started
        if elapsed >= seconds and rounds >= 3:
            return 2 * size**3 * (rounds / elapsed)
        multiply()
        rounds += 1


def copy_rate(rounds: int = 20, megabytes: int = 256) -> float:
    """Bytes a second, read and written, of a copy on the device that trains."""
    import torch

    from tmsearch import devices

    source = torch.ones(megabytes * 250_000, device=devices.device())
    target = torch.empty_like(source)
    target.copy_(source)
    float(target[0])  # reading a number waits for the device
    started = time.perf_counter()
    for _ in range(rounds):
        target.copy_(source)
    float(target[0])
    return 2 * FLOAT_BYTES * len(source) * rounds / (time.perf_counter() - started)


def step_flops(model: Model, config: TrainConfig, positions: float, tokens: float) -> float:
    """Of training on one clip, forward and backward; a multiply and an add are two.

    With adapters the backward pass makes no gradients of the weights, which are half of its products; with
    gradient checkpointing the forward pass is made twice.
    """
    encoder = encoder_flops(model, positions)
    decoder, logits = _decoder_flops(model, positions, tokens)
    backward = BACKWARD / 2 if config.lora_r else BACKWARD
    again = 1 if config.gradient_checkpointing else 0
    share = trained_share(model, config)
    return (1 + (backward + again) * share) * encoder + (1 + backward + again) * decoder + (1 + backward) * logits


def encoder_flops(model: Model, positions: float) -> float:
    """Of the encoder's forward pass for one clip."""
    width = model.d_model
    convolutions = 2 * 3 * positions * width * (2 * model.n_mels + width)
    attention = 8 * width**2 + 4 * positions * width  # four projections, two products with the others' positions
    return convolutions + model.encoder_layers * positions * (attention + 4 * width * model.encoder_ffn_dim)


def _decoder_flops(model: Model, positions: float, tokens: float) -> tuple[float, float]:
    """Of the decoder's layers, and of the logits, for one clip's forward pass."""
    width = model.d_model
    self_attention = 8 * width**2 + 4 * tokens * width
    cross_attention = 4 * width**2 + 4 * positions * width
    cross_keys = 4 * width**2 * positions  # keys and values of the encoder's output, once a layer
    token = self_attention + cross_attention + 4 * width * model.decoder_ffn_dim
    decoder = model.decoder_layers * (tokens * token + cross_keys)
    return decoder, 2 * tokens * width * model.vocab_size


def trained_share(model: Model, config: TrainConfig) -> float:
    """The part of the encoder that the backward pass goes through."""
    if config.freeze_encoder:
        return 0.0
    return 1 - min(config.freeze_encoder_layers, model.encoder_layers) / max(1, model.encoder_layers)


def trained_parameters(model: Model, config: TrainConfig) -> int:
    """How many weights are trained, adapters or the model's own."""
    if config.lora_r:
        modules = len(config.lora_targets.split(","))
        return 2 * config.lora_r * model.d_model * modules * (model.encoder_layers + 2 * model.decoder_layers)
    layer = 4 * model.d_model**2 + 2 * model.d_model * model.encoder_ffn_dim
    return model.parameters - round((1 - trained_share(model, config)) * model.encoder_layers * layer)


def activations(model: Model, config: TrainConfig, positions: int, tokens: float) -> float:
    """Numbers that a clip's forward pass keeps for the backward pass."""
    encoder = trained_share(model, config) * model.encoder_layers * positions * ENCODER_ACTIVATIONS
    decoder = model.decoder_layers * (tokens * DECODER_ACTIVATIONS + 2 * positions)
    return (encoder + decoder) * model.d_model + tokens * model.vocab_size  # the logits become their own gradient
