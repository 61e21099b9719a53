"""What a fine-tune will take, from a model's settings alone: on a CPU its memory and arithmetic, on a GPU its time too.

The formulas for a GPU count what must be: products, weights, gradients, moments. What a layer keeps for its backward
pass, and what it moves besides its products, are figures fitted to the played GPU of tests/bench (`gpu_model.py costs`
prints them beside these), which counts both on this project's own step. Nothing of that was measured on a GPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from tmsearch.config import TrainConfig
from tmsearch.model.context import POSITIONS_PER_SECOND

if TYPE_CHECKING:
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
GIGA = 1e9
TERA = 1e12
SHARE_OF_PRODUCTS = 0.76  # that a step's products reach, of the rate of a product of large square matrices
SAFE_SHARE = 0.85  # of a card's memory: the rest is for fragments, CUDA itself, and an evaluation
AVERAGE_UPDATES = 16  # of the averaged weights, at least, in the steps that they are averaged over
CHECKPOINT_SHARE = 0.05  # of a training, that its checkpoints may cost

# Bytes that a layer keeps for its backward pass, for each number of its states [rows, d_model].
ENCODER_KEPT = 31.1  # a row being a position
DECODER_KEPT = 40.6  # a row being a token
CROSS_KEPT = 4.5  # of the decoder, a row being a position that it attends to
# Bytes that a layer moves in both passes besides its products and its weights, for each such number.
ENCODER_MOVED = 266.0
EVALUATED_MOVED = 135.0  # by its modules, in an evaluation
CROSS_MOVED = 30.0  # of a decoder layer, a row being a position that it attends to
# Of a decoder layer in both passes of a micro-batch: with so few tokens its kernels are the shortest there are.
DECODER_SECONDS = 1.65e-4
# Of an adapted linear layer: bytes kept and moved for each number of a position's states, and seconds for a token's.
ADAPTED_KEPT = 2.8
ADAPTED_MOVED = 95.0
ADAPTED_SECONDS = 6e-5
LOGITS_KEPT = 6  # bytes a logit: bfloat16, and the float32 copy that its gradient is made in
LOGITS_MOVED = 40
EIGHT_BIT_BYTES = 1 + 4 / 256  # a moment in 8 bits, and a float32 scale for each 256 (torchao)
# Bytes moved a trained parameter by clipping and AdamW: torch's; with stochastic rounding; the kernel that reads
# bfloat16 gradients and writes casts (training/optim/mixed_precision.py).
ADAMW_MOVED = 40
ROUNDING_MOVED = 24
MIXED_MOVED = 30
# Bytes moved a parameter by a micro-batch: weights cast to bfloat16 and their gradients cast back and added.
CASTS_MOVED = 12
# Where casts are kept, by each micro-batch after the first: its gradients are added to the others', in float32.
KEPT_SUMS_MOVED = 16
AVERAGE_MOVED = 12  # by an update of the averaged weights: the average read and written, the weight read
SUMS_MOVED = 6  # of bfloat16 weights, which are not cast: their gradients are added
TOKEN_LAYER_SECONDS = 8.4e-5  # of a decoder layer for the next token of a batch
DECODED_TOKENS = 40  # until the last clip of a batch has ended
BATCH_SECONDS = 0.0163  # of a batch of clips that are decoded: its prompt, and the capture of its graph


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
    numbers = states + clips * activations(model, config, positions, label_tokens)
    return Estimate(
        memory_bytes=round(number_bytes * numbers + average_bytes(model, config)),
        flops_per_step=round(flops * config.batch_size),
    )


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
    return BF16_BYTES if config.low_memory else FLOAT_BYTES


def average_bytes(model: Model, config: TrainConfig) -> float:
    """Of the averaged weights, float32 whatever the weights are in; 0 where they are not averaged."""
    return float(FLOAT_BYTES * trained_parameters(model, config)) if config.average_share else 0.0


def average_updates(config: TrainConfig) -> float:
    """How often a training updates its averaged weights: each step at first, then ever less often."""
    if not config.average_share:
        return 0.0
    every_step = 2 * AVERAGE_UPDATES / config.average_share
    if config.max_steps <= every_step:
        return float(config.max_steps)
    return every_step + every_step / 2 * math.log2(config.max_steps / every_step)


def checkpoint_bytes(model: Model, config: TrainConfig) -> float:
    """Of the trained weights, both moments and the average, in their formats."""
    trained = trained_parameters(model, config)
    weight = BF16_BYTES if config.low_memory else FLOAT_BYTES
    moment = moment_bytes(config)
    if not config.exact_checkpoints:
        moment = min(moment, BF16_BYTES)
    return float(trained * (weight + 2 * moment)) + average_bytes(model, config)


def memory_bytes(model: Model, config: TrainConfig, clips: Clips, micro_batch: int) -> float:
    """Peak of a step with `micro_batch` clips a forward pass, of the bytes that tensors take."""
    trained = trained_parameters(model, config)
    number = BF16_BYTES if config.low_memory else FLOAT_BYTES
    weights = model.parameters * number + average_bytes(model, config)
    moments = 2 * trained * moment_bytes(config)
    passes = math.ceil(config.batch_size / micro_batch)
    # Kept beside their casts, gradients are float32 from the second micro-batch on, when its own forward pass is over.
    gradients = trained * (BF16_BYTES if keeps_casts(config) and passes <= 2 else number)
    casts = 0 if config.low_memory else BF16_BYTES * model.parameters  # autocast keeps them for the backward pass
    kept = _kept_bytes(model, config, clips, micro_batch)
    logits = LOGITS_KEPT * micro_batch * clips.label_tokens * model.vocab_size
    # Autocast's casts of layers that are computed again go as the forward pass ends.
    are_dropped = config.gradient_checkpointing and not keeps_casts(config)
    forward = max(casts, kept) + logits if are_dropped else casts + kept + logits
    if micro_batch < config.batch_size:  # the gradients of the micro-batches before are there
        return float(weights + moments + gradients + forward)
    # The gradients grow as what was kept for them goes: the peak is before, or after.
    after = gradients + logits + (casts if keeps_casts(config) else 0)
    return float(weights + moments + max(forward, after))


def _kept_bytes(model: Model, config: TrainConfig, clips: Clips, micro_batch: int) -> float:
    """What the layers keep of one micro-batch for its backward pass."""
    positions = micro_batch * clips.context_seconds * POSITIONS_PER_SECOND * model.d_model
    tokens = micro_batch * clips.label_tokens * model.d_model
    encoder = positions * ENCODER_KEPT
    decoder = tokens * DECODER_KEPT + positions * CROSS_KEPT
    trained_encoder = model.encoder_layers * trained_share(model, config)
    if config.gradient_checkpointing:  # what each layer is given, and all of the one that is computed again
        given = (model.decoder_layers * tokens + trained_encoder * positions) * FLOAT_BYTES
        return given + max(encoder, decoder)
    adapted = _adapted_layers(model, config)[0] * positions * ADAPTED_KEPT
    return trained_encoder * encoder + model.decoder_layers * decoder + adapted


def step_seconds(model: Model, config: TrainConfig, clips: Clips, card: Card, micro_batch: int) -> float:
    """Of the device, for one optimizer step."""
    batch = config.batch_size
    passes = math.ceil(batch / micro_batch)
    arithmetic = step_flops(model, config, clips.context_seconds * POSITIONS_PER_SECOND, clips.label_tokens)
    moved = batch * _moved_bytes(model, config, clips)
    trained = trained_parameters(model, config)
    moved += optimizer_moved(config, passes) * trained
    moved += trained * AVERAGE_MOVED * average_updates(config) / config.max_steps
    if not keeps_casts(config):
        moved += passes * (SUMS_MOVED * trained if config.low_memory else CASTS_MOVED * model.parameters)
    over_positions, over_tokens = _adapted_layers(model, config)
    positions = batch * clips.context_seconds * POSITIONS_PER_SECOND * model.d_model
    moved += over_positions * positions * ADAPTED_MOVED
    launching = passes * (model.decoder_layers * DECODER_SECONDS + over_tokens * ADAPTED_SECONDS)
    return batch * arithmetic / (card.products * TERA) + moved / (card.memory * TERA) + launching


def _adapted_layers(model: Model, config: TrainConfig) -> tuple[float, float]:
    """Linear layers with an adapter that take positions and that take tokens; of cross-attention half take each."""
    if not config.lora_r:
        return 0.0, 0.0
    targets = len(config.lora_targets.split(","))
    encoder = trained_share(model, config) * model.encoder_layers
    return targets * (encoder + model.decoder_layers / 2), targets * 1.5 * model.decoder_layers


def keeps_casts(config: TrainConfig) -> bool:
    """Whether a GPU that can compile keeps casts of weights and bfloat16 gradients (devices.uses_fused_kernels)."""
    if config.low_memory or config.optimizer != "adamw":
        return False
    return config.precision != "float32" and config.compile is not False


def optimizer_moved(config: TrainConfig, passes: int) -> float:
    """Bytes moved a trained parameter by clipping and AdamW, and where casts are kept by the sums of gradients."""
    if config.low_memory:
        return ROUNDING_MOVED
    if not keeps_casts(config):
        return ADAMW_MOVED
    if passes == 1:
        return MIXED_MOVED
    return MIXED_MOVED + 2 * (FLOAT_BYTES - BF16_BYTES) + (passes - 1) * KEPT_SUMS_MOVED


def _moved_bytes(model: Model, config: TrainConfig, clips: Clips) -> float:
    """Of one clip in all passes, besides its products."""
    positions = clips.context_seconds * POSITIONS_PER_SECOND * model.d_model
    encoder = model.encoder_layers * positions * ENCODER_MOVED
    encoder *= (1 + BACKWARD * trained_share(model, config)) / (1 + BACKWARD)
    decoder = model.decoder_layers * positions * CROSS_MOVED
    logits = clips.label_tokens * model.vocab_size * LOGITS_MOVED
    again = 1 + 1 / (1 + BACKWARD) if config.gradient_checkpointing else 1.0
    return again * (encoder + decoder) + logits


def evaluation_seconds(model: Model, config: TrainConfig, clips: Clips, card: Card) -> float:
    """Of transcribing the validation clips once."""
    batches = math.ceil(clips.validation / config.eval_batch_size)
    positions = clips.context_seconds * POSITIONS_PER_SECOND
    arithmetic = encoder_flops(model, positions)
    moved = model.encoder_layers * positions * model.d_model * EVALUATED_MOVED
    encoding = clips.validation * (arithmetic / (card.products * TERA) + moved / (card.memory * TERA))
    weights = BF16_BYTES * (model.decoder_layers * 14 * model.d_model**2) / (card.memory * TERA)
    token = max(model.decoder_layers * TOKEN_LAYER_SECONDS, weights)
    return encoding + batches * (BATCH_SECONDS + DECODED_TOKENS * token)
