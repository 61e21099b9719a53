"""What a fine-tune takes on a GPU: memory, seconds and disk, from a model's dimensions and what the card reaches.

The formulas count what must be: products, weights, gradients, moments. What a layer keeps for its backward pass, and
what it moves besides its products, are figures fitted to the played GPU of tests/bench (`gpu_model.py costs` prints
them beside these), which counts both on this project's own step. Nothing here was measured on a GPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from tmsearch.config import TrainConfig
from tmsearch.model import cost
from tmsearch.model.context import POSITIONS_PER_SECOND

GIGA = 1e9
TERA = 1e12
SHARE_OF_PRODUCTS = 0.76  # that a step's products reach, of the rate of a product of large square matrices
SAFE_SHARE = 0.85  # of a card's memory: the rest is for fragments, CUDA itself, and an evaluation
CHECKPOINT_SHARE = 0.05  # of a training, that its checkpoints may cost

# Bytes that a layer keeps for its backward pass, for each number of its states [rows, d_model].
ENCODER_KEPT = 38.6  # a row being a position
DECODER_KEPT = 16.3  # a row being a token
CROSS_KEPT = 8.0  # of the decoder, a row being a position that it attends to
# Bytes that a layer moves in both passes besides its products and its weights, for each such number.
ENCODER_MOVED = 406.0
CROSS_MOVED = 30.0  # of a decoder layer, a row being a position that it attends to
# Of a decoder layer in both passes of a micro-batch: with so few tokens its kernels are the shortest there are.
DECODER_SECONDS = 2.8e-4
LOGITS_KEPT = 6  # bytes a logit: bfloat16, and the float32 copy that its gradient is made in
LOGITS_MOVED = 40
EIGHT_BIT_BYTES = 1 + 4 / 256  # a moment in 8 bits, and a float32 scale for each 256 (torchao)
# Bytes moved a trained parameter by clipping and AdamW.
ADAMW_MOVED = 40
ROUNDING_MOVED = 20
# Bytes moved a parameter by a micro-batch: weights cast to bfloat16 and their gradients cast back and added.
CASTS_MOVED = 12
TOKEN_LAYER_SECONDS = 1.32e-4  # of a decoder layer for the next token of a batch
DECODED_TOKENS = 40  # until the last clip of a batch has ended
BATCH_SECONDS = 0.018  # of a batch of clips that are decoded: its prompt, and the capture of its graph


class Model(Protocol):
    """The dimensions of a Whisper: whisper.ModelInfo, or model_sizes.Dimensions of a published one."""

    @property
    def parameters(self) -> int: ...
    @property
    def d_model(self) -> int: ...
    @property
    def encoder_layers(self) -> int: ...
    @property
    def decoder_layers(self) -> int: ...
    @property
    def encoder_ffn_dim(self) -> int: ...
    @property
    def decoder_ffn_dim(self) -> int: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def n_mels(self) -> int: ...


@dataclass(frozen=True)
class Card:
    """A GPU: its memory in GB, products of a step's shapes in bf16 in TFLOP/s, elementwise kernels in TB/s."""

    name: str
    gigabytes: float
    products: float
    memory: float


# The last two as tests/bench/gpu_player/rates.py assumes them; the others have the same shares of their makers' figures
# (dense bf16 products that are summed in float32; memory): .57 of the first, .82 of the second.
CARDS = (
    Card("an RTX 4080", 16, 55, 0.59),
    Card("an RTX 4090", 24, 94, 0.83),
    Card("an A100 of 40 GB", 40, 178, 1.27),
    Card("an H100", 80, 560, 2.75),
    Card("an H200", 141, 600, 3.8),
)


@dataclass(frozen=True)
class Clips:
    """What is trained on and scored: mean context of a clip in seconds, thinned silence included, and counts."""

    context_seconds: float
    label_tokens: float
    validation: int


@dataclass(frozen=True)
class TrialCost:
    """One trial, trained in full."""

    micro_batch: int  # clips a forward pass
    memory_bytes: float
    fits: bool  # in SAFE_SHARE of the card
    step_seconds: float
    evaluation_seconds: float
    seconds: float  # steps, evaluations, and what checkpoints may cost
    checkpoint_bytes: float


def card_of(gigabytes: float) -> Card:
    """The listed card with so much memory: the smallest that has it, with the memory that was given."""
    listed = next((card for card in CARDS if card.gigabytes >= 0.97 * gigabytes), CARDS[-1])
    return Card(listed.name, gigabytes, listed.products, listed.memory)


def trial_cost(model: Model, config: TrainConfig, clips: Clips, card: Card, evaluations: int) -> TrialCost:
    """What training `config` in full takes on `card`, with the largest micro-batch that fits, as fitting halves it."""
    limit = SAFE_SHARE * GIGA * card.gigabytes
    micro_batch = min(config.micro_batch_size or config.batch_size, config.batch_size)
    while micro_batch > 1 and memory_bytes(model, config, clips, micro_batch) > limit:
        micro_batch = math.ceil(micro_batch / 2)
    memory = memory_bytes(model, config, clips, micro_batch)
    step = step_seconds(model, config, clips, card, micro_batch)
    evaluation = evaluation_seconds(model, config, clips, card)
    training = config.max_steps * step * (1 + CHECKPOINT_SHARE)
    return TrialCost(
        micro_batch=micro_batch,
        memory_bytes=memory,
        fits=memory <= limit,
        step_seconds=step,
        evaluation_seconds=evaluation,
        seconds=training + evaluations * evaluation,
        checkpoint_bytes=checkpoint_bytes(model, config),
    )


def moment_bytes(config: TrainConfig) -> float:
    """Of one of AdamW's two moments, a trained parameter."""
    if config.optimizer == "adamw_8bit":
        return EIGHT_BIT_BYTES
    return cost.BF16_BYTES if config.low_memory else cost.FLOAT_BYTES


def checkpoint_bytes(model: Model, config: TrainConfig) -> float:
    """Of the trained weights and both moments, in their formats."""
    trained = cost.trained_parameters(model, config)
    weight = cost.BF16_BYTES if config.low_memory else cost.FLOAT_BYTES
    moment = moment_bytes(config)
    if not config.exact_checkpoints:
        moment = min(moment, cost.BF16_BYTES)
    return float(trained * (weight + 2 * moment))


def memory_bytes(model: Model, config: TrainConfig, clips: Clips, micro_batch: int) -> float:
    """Peak of a step with `micro_batch` clips a forward pass, of the bytes that tensors take."""
    trained = cost.trained_parameters(model, config)
    number = cost.BF16_BYTES if config.low_memory else cost.FLOAT_BYTES
    weights = model.parameters * number
    moments = 2 * trained * moment_bytes(config)
    gradients = trained * number
    casts = 0 if config.low_memory else cost.BF16_BYTES * model.parameters  # autocast keeps them for the backward pass
    kept = _kept_bytes(model, config, clips, micro_batch)
    logits = LOGITS_KEPT * micro_batch * clips.label_tokens * model.vocab_size
    # Layers that are computed again keep no cast weights: the casts go as the forward pass ends.
    forward = max(casts, kept) + logits if config.gradient_checkpointing else casts + kept + logits
    if micro_batch < config.batch_size:  # the gradients of the micro-batches before are there
        return float(weights + moments + gradients + forward)
    # The gradients grow as what was kept for them goes: the peak is before, or after.
    return float(weights + moments + max(forward, gradients + logits))


def _kept_bytes(model: Model, config: TrainConfig, clips: Clips, micro_batch: int) -> float:
    """What the layers keep of one micro-batch for its backward pass."""
    positions = micro_batch * clips.context_seconds * POSITIONS_PER_SECOND * model.d_model
    tokens = micro_batch * clips.label_tokens * model.d_model
    encoder = positions * ENCODER_KEPT
    decoder = tokens * DECODER_KEPT + positions * CROSS_KEPT
    trained_encoder = model.encoder_layers * cost.trained_share(model, config)
    if config.gradient_checkpointing:  # what each layer is given, and all of the one that is computed again
        given = (model.decoder_layers * tokens + trained_encoder * positions) * cost.FLOAT_BYTES
        return given + max(encoder, decoder)
    return trained_encoder * encoder + model.decoder_layers * decoder


def step_seconds(model: Model, config: TrainConfig, clips: Clips, card: Card, micro_batch: int) -> float:
    """Of the device, for one optimizer step."""
    batch = config.batch_size
    passes = math.ceil(batch / micro_batch)
    arithmetic = cost.step_flops(model, config, clips.context_seconds * POSITIONS_PER_SECOND, clips.label_tokens)
    moved = batch * _moved_bytes(model, config, clips)
    trained = cost.trained_parameters(model, config)
    moved += trained * (ROUNDING_MOVED if config.low_memory else ADAMW_MOVED)
    moved += passes * CASTS_MOVED * (trained if config.low_memory else model.parameters)
    launching = passes * model.decoder_layers * DECODER_SECONDS
    return batch * arithmetic / (card.products * TERA) + moved / (card.memory * TERA) + launching


def _moved_bytes(model: Model, config: TrainConfig, clips: Clips) -> float:
    """Of one clip in all passes, besides its products."""
    positions = clips.context_seconds * POSITIONS_PER_SECOND * model.d_model
    encoder = model.encoder_layers * positions * ENCODER_MOVED
    encoder *= (1 + cost.BACKWARD * cost.trained_share(model, config)) / (1 + cost.BACKWARD)
    decoder = model.decoder_layers * positions * CROSS_MOVED
    logits = clips.label_tokens * model.vocab_size * LOGITS_MOVED
    again = 1 + 1 / (1 + cost.BACKWARD) if config.gradient_checkpointing else 1.0
    return again * (encoder + decoder) + logits


def evaluation_seconds(model: Model, config: TrainConfig, clips: Clips, card: Card) -> float:
    """Of transcribing the validation clips once."""
    batches = math.ceil(clips.validation / config.eval_batch_size)
    positions = clips.context_seconds * POSITIONS_PER_SECOND
    arithmetic = cost.encoder_flops(model, positions)
    moved = model.encoder_layers * positions * model.d_model * ENCODER_MOVED / (1 + cost.BACKWARD)
    encoding = clips.validation * (arithmetic / (card.products * TERA) + moved / (card.memory * TERA))
    weights = cost.BF16_BYTES * (model.decoder_layers * 14 * model.d_model**2) / (card.memory * TERA)
    token = max(model.decoder_layers * TOKEN_LAYER_SECONDS, weights)
    return encoding + batches * (BATCH_SECONDS + DECODED_TOKENS * token)
