"""Whisper's forward pass over clips of differing lengths without padding, and the token table's hand-written loss.

The weights and modules are transformers' own, adapters among them. What is not: an encoder that takes 30 s or nothing,
and a decoder that cannot be told where a clip's encoded positions end. Here all positions of a batch stand in one
row, which passes each linear layer once; only attention is computed by group, a group being clips of equal length.

Whisper was trained with silence up to 30 s behind every clip, and relies on it: with it cut off, an untuned tiny.en
loses .23 nats a token. So the silence is encoded, but thinned (context.thinned): one position stands for several, and
its share of the attention is raised accordingly. Two dozen positions for 1,300 recover all but .01 of those nats.

Dimension words in shape comments: clips, frames (mel, 10 ms), positions (encoder, 20 ms), rows (all positions of a
batch, clip after clip), tokens (decoder), labels (tokens with a label, all clips), heads, vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional
from transformers import WhisperForConditionalGeneration
from transformers.models.whisper.modeling_whisper import (
    WhisperAttention,
    WhisperDecoderLayer,
    WhisperEncoder,
    WhisperEncoderLayer,
)

from tmsearch.model.context import FRAMES_PER_POSITION, thinned

# A CPU's fused attention takes 2.0 to 2.3 times as long, forward and backward, as three products at a clip's few
# hundred positions (2 cores with AVX512-BF16, 2026-11-24); above this, what the products keep for the backward pass
# grows too large.
EXPLICIT_POSITIONS = 1024
_SILENT_FRAMES = 4  # behind a group's own, as far as the convolutions of its first silent position reach


@dataclass(frozen=True)
class MicroBatch:
    """Clips of one training forward pass, shorter contexts first."""

    mels: tuple[torch.Tensor, ...]  # groups of clips of equal length, each [clips, n_mels, frames] float32
    decoder_inputs: torch.Tensor  # [clips, tokens] ids
    label_positions: torch.Tensor  # [labels] indices into the flattened decoder inputs
    labels: torch.Tensor  # [labels] ids
    batch_label_count: int  # labels in the whole batch that this is a part of


@dataclass(frozen=True)
class Group:
    """Clips of equal length in an encoded batch, and where they are found in it."""

    clips: slice  # of the batch's clips
    rows: slice  # of Encoded.states
    positions: int  # of each clip
    # [positions], added to the attention's logits: log of how many positions each stands for; None: all for one.
    log_counts: torch.Tensor | None

    def split(self, states: torch.Tensor) -> torch.Tensor:
        """The group's part of `states` [rows, d_model], by clip."""
        clips = self.clips.stop - self.clips.start
        return states[self.rows].view(clips, self.positions, -1)  # [clips, positions, d_model]


@dataclass(frozen=True)
class Encoded:
    """The encoder's output for a batch."""

    states: torch.Tensor  # [rows, d_model]
    groups: tuple[Group, ...]


def encode(model: WhisperForConditionalGeneration, mels: Sequence[torch.Tensor], silence: bool = False) -> Encoded:
    """The encoder on groups of log-mels.

    Equal, up to rounding, to transformers' encoder with its positions cut to each group's own; with `silence` close
    to that encoder on clips padded to all that it takes.

    Args:
        model: The Whisper whose encoder runs, in training or evaluation mode.
        mels: A tensor for each group of clips of equal length, [clips, n_mels, frames]; two frames make a position.
        silence: Whether the silence behind each clip is encoded, thinned.
    """
    encoder = model.model.encoder
    groups: list[Group] = []
    parts = []
    clip = row = 0
    for mel in mels:
        embedded, log_counts = _embed_mels(encoder, mel, silence)
        clips, positions, _ = embedded.shape
        rows = clips * positions
        groups.append(Group(slice(clip, clip + clips), slice(row, row + rows), positions, log_counts))
        parts.append(embedded.flatten(0, 1))  # [rows of the group, d_model]
        clip += clips
        row += rows
    states = _dropout(_concatenate(parts), encoder)  # [rows, d_model]
    for layer in encoder.layers:
        if not _is_skipped(encoder):
            states = _encoder_layer(layer, states, groups)
    return Encoded(encoder.layer_norm(states), tuple(groups))


def _embed_mels(encoder: WhisperEncoder, mel: torch.Tensor, silence: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The first layer's input for one group [clips, positions, d_model], and its log_counts [positions]."""
    table = encoder.embed_positions.weight  # [most positions, d_model]
    own = mel.shape[2] // FRAMES_PER_POSITION
    stretches = thinned(len(table) - own) if silence else ()
    if stretches:
        # The extractor raises silence to 8 (2 after scaling) below the loudest: a clip's lowest value is its silence.
        quiet = mel.amin(dim=(1, 2), keepdim=True).expand(-1, mel.shape[1], _SILENT_FRAMES)
        mel = torch.cat([mel, quiet], dim=2)
    convolved = functional.gelu(encoder.conv1(mel))
    convolved = functional.gelu(encoder.conv2(convolved)).transpose(1, 2)  # [clips, positions, d_model]
    if not stretches:
        return convolved + table[:own], None
    # Before its position is added, silence gives the same states wherever it stands.
    offsets = [own + offset for offset, _ in stretches]
    speech = convolved[:, :own] + table[:own]
    silent = convolved[:, own : own + 1] + table[torch.tensor(offsets, device=mel.device)]
    log_counts = [0.0] * own + [math.log(count) for _, count in stretches]
    return torch.cat([speech, silent], dim=1), torch.tensor(log_counts, device=mel.device)


def decode(model: WhisperForConditionalGeneration, embedded: torch.Tensor, encoded: Encoded) -> torch.Tensor:
    """The decoder's last states, each token attending to itself and those before it.

    Equal to transformers' decoder, up to rounding.

    Args:
        model: The Whisper whose decoder runs.
        embedded: Rows of the token table for the input tokens, [clips, tokens, d_model], clips ordered as in `encoded`.
        encoded: The encoder's output for the same clips.

    Returns:
        States after the final layer norm, [clips, tokens, d_model].
    """
    decoder = model.model.decoder
    # Positions by slicing: the gradient of an indexed lookup is summed by all threads at once on a CPU.
    states = embedded + decoder.embed_positions.weight[: embedded.shape[1]]
    states = _dropout(states, decoder)
    for layer in decoder.layers:
        if not _is_skipped(decoder):
            states = _decoder_layer(layer, states, encoded)
    hidden: torch.Tensor = decoder.layer_norm(states)
    return hidden


def _encoder_layer(layer: WhisperEncoderLayer, states: torch.Tensor, groups: Sequence[Group]) -> torch.Tensor:
    """`states` [rows, d_model] after one layer."""
    attention = layer.self_attn
    normed = layer.self_attn_layer_norm(states)
    query = attention.q_proj(normed)
    key = attention.k_proj(normed)
    value = attention.v_proj(normed)
    attended = []
    for group in groups:
        context = _attend(attention, group.split(query), group.split(key), group.split(value), group.log_counts)
        attended.append(context.flatten(0, 1))
    states = states + _dropout(attention.out_proj(_concatenate(attended)), layer)
    return _feed_forward(layer, states)


def _decoder_layer(layer: WhisperDecoderLayer, states: torch.Tensor, encoded: Encoded) -> torch.Tensor:
    """`states` [clips, tokens, d_model] after one layer."""
    attention = layer.self_attn
    normed = layer.self_attn_layer_norm(states)
    query = attention.q_proj(normed)
    key = attention.k_proj(normed)
    value = attention.v_proj(normed)
    states = states + _dropout(attention.out_proj(_attend(attention, query, key, value, causal=True)), layer)
    cross = layer.encoder_attn
    query = cross.q_proj(layer.encoder_attn_layer_norm(states))
    key = cross.k_proj(encoded.states)  # [rows, d_model]
    value = cross.v_proj(encoded.states)
    attended = []
    for group in encoded.groups:
        attended.append(_attend(cross, query[group.clips], group.split(key), group.split(value), group.log_counts))
    states = states + _dropout(cross.out_proj(_concatenate(attended)), layer)
    return _feed_forward(layer, states)


def _feed_forward(layer: WhisperEncoderLayer | WhisperDecoderLayer, states: torch.Tensor) -> torch.Tensor:
    wide = functional.gelu(layer.fc1(layer.final_layer_norm(states)))  # [..., ffn_dim]
    return states + _dropout(layer.fc2(wide), layer)


def _attend(
    attention: WhisperAttention,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    log_counts: torch.Tensor | None = None,
    causal: bool = False,
) -> torch.Tensor:
    """Attention of query [clips, tokens, d_model] to key and value [clips, positions, d_model]; shaped as the query."""
    query = _split_heads(attention, query)
    key = _split_heads(attention, key)
    value = _split_heads(attention, value)
    dropout = attention.dropout if attention.training else 0.0
    mask = None
    if log_counts is not None:
        mask = log_counts.to(query.dtype).expand(1, 1, query.shape[2], -1)  # [1, 1, tokens, positions]
    if query.device.type == "cpu" and not causal and key.shape[2] <= EXPLICIT_POSITIONS:
        attended = _explicit_attention(query, key, value, mask, dropout)
    else:
        attended = functional.scaled_dot_product_attention(query, key, value, mask, dropout, causal)
    return attended.transpose(1, 2).flatten(2)


def _split_heads(attention: WhisperAttention, states: torch.Tensor) -> torch.Tensor:
    by_head = states.view(*states.shape[:2], attention.num_heads, attention.head_dim)
    return by_head.transpose(1, 2)  # [clips, heads, positions, head_dim]


def _explicit_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, dropout: float
) -> torch.Tensor:
    """The formula of functional.scaled_dot_product_attention, in the format that its inputs have."""
    with torch.autocast(query.device.type, enabled=False):
        logits = (query * query.shape[3] ** -0.5) @ key.transpose(2, 3)  # [clips, heads, tokens, positions]
        if mask is not None:
            logits = logits + mask
        weights = logits.softmax(-1)
        if dropout:
            weights = functional.dropout(weights, dropout)
        attended: torch.Tensor = weights @ value  # [clips, heads, tokens, head_dim]
        return attended


def _concatenate(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def _dropout(states: torch.Tensor, block: nn.Module) -> torch.Tensor:
    return functional.dropout(states, p=float(block.dropout), training=block.training)  # type: ignore[arg-type]


def _is_skipped(stack: nn.Module) -> bool:
    """Stochastic depth (Huang et al. 2016), drawn on the CPU, whose generator every checkpoint saves."""
    rate = float(stack.layerdrop)  # type: ignore[arg-type]
    return stack.training and rate > 0 and bool(torch.rand([]) < rate)


class TokenTable:
    """The decoder's input and output layer, outside of autograd; the two may share one table.

    In Whisper tiny the table is half of all weights. Left to autograd, every update makes and adds two copies of it
    as gradients (80 MB each), one of them zeros but for a hundred rows; here both layers write into one that is
    reused. Call `embed`, then `loss`, then, with the gradient that reached the embedded tokens, `add_gradient`.
    """

    def __init__(self, model: WhisperForConditionalGeneration) -> None:
        self.inputs: torch.Tensor = model.model.decoder.embed_tokens.weight  # [vocabulary, d_model]
        self.outputs: torch.Tensor = model.proj_out.weight  # [vocabulary, d_model]
        self._gradients: dict[int, torch.Tensor] = {}  # by parameter's id; optimizers drop theirs
        self._scratch: dict[str, torch.Tensor] = {}

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """[..., d_model] for ids [...]: a leaf, which collects the gradient for `add_gradient`."""
        embedded = functional.embedding(ids, self.inputs.detach())
        return embedded.requires_grad_(self.inputs.requires_grad)

    @torch.no_grad()
    def loss(
        self, hidden: torch.Tensor, labels: torch.Tensor, label_count: int, smoothing: float = 0.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Cross-entropy with label smoothing, equal to functional.cross_entropy; adds to the output table's gradient.

        Args:
            hidden: Decoder states that predict the labels, [labels, d_model].
            labels: Token ids, [labels].
            label_count: Labels in the whole batch, so that the shares of its micro-batches add up.
            smoothing: Probability mass spread evenly over the vocabulary (Szegedy et al. 2016, section 7).

        Returns:
            The batch loss's share of these labels in nats, [], and its gradient with respect to `hidden`.
        """
        device_type = hidden.device.type
        given_dtype = hidden.dtype
        if torch.is_autocast_enabled(device_type):
            hidden = hidden.to(torch.get_autocast_dtype(device_type))
        table = self.outputs.to(hidden.dtype)
        with torch.autocast(device_type, enabled=False):
            logits = torch.mm(hidden, table.t(), out=self._buffer("logits", len(hidden), len(table), hidden.dtype))
            total, gradient = self._cross_entropy(logits, labels, label_count, smoothing)
            if logits.dtype != gradient.dtype:
                gradient = logits.copy_(gradient)
            if self.outputs.requires_grad:
                self._add_product(self.outputs, gradient.t(), hidden)
            return total, (gradient @ table).to(given_dtype)  # [labels, d_model]

    def _cross_entropy(
        self, logits: torch.Tensor, labels: torch.Tensor, label_count: int, smoothing: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss [] and its gradient by the logits, float32 [labels, vocabulary]; overwrites float32 logits."""
        shares = logits
        if logits.dtype != torch.float32:
            shares = self._buffer("shares", len(logits), logits.shape[1], torch.float32).copy_(logits)
        right = shares.gather(1, labels[:, None])[:, 0]  # [labels]
        mean = shares.mean(-1) if smoothing else right
        highest = shares.amax(-1, keepdim=True)  # [labels, 1]
        sums = shares.sub_(highest).exp_().sum(-1, keepdim=True)
        log_normalizer = (highest + sums.log())[:, 0]
        total = (log_normalizer - (1 - smoothing) * right - smoothing * mean).sum() / label_count
        # Softmax minus target, scaled as the loss is.
        gradient = shares.div_(sums * label_count)
        if smoothing:
            gradient.sub_(smoothing / gradient.shape[1] / label_count)
        target = gradient.new_full((len(labels), 1), (smoothing - 1) / label_count)
        gradient.scatter_add_(1, labels[:, None], target)
        return total, gradient

    @torch.no_grad()
    def add_gradient(self, ids: torch.Tensor, embedded: torch.Tensor) -> None:
        """Adds the gradient that reached `embedded` to the rows of the input table that `ids` name."""
        if embedded.grad is None:
            return
        if self.inputs.grad is None:
            self.inputs.grad = self._gradient_buffer(self.inputs).zero_()
        self.inputs.grad.index_add_(0, ids.flatten(), embedded.grad.flatten(0, -2))

    def _add_product(self, table: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> None:
        """table.grad += rows @ columns, in one pass where the formats are the same."""
        is_first = table.grad is None
        if is_first:
            table.grad = self._gradient_buffer(table)
        assert table.grad is not None
        if rows.dtype != table.grad.dtype:
            product = torch.mm(rows, columns, out=self._buffer("product", len(table), table.shape[1], rows.dtype))
            table.grad.copy_(product) if is_first else table.grad.add_(product)
        elif is_first:
            torch.mm(rows, columns, out=table.grad)
        else:
            table.grad.addmm_(rows, columns)

    def _gradient_buffer(self, table: torch.Tensor) -> torch.Tensor:
        return self._gradients.setdefault(id(table), torch.empty_like(table, requires_grad=False))

    def _buffer(self, name: str, rows: int, columns: int, dtype: torch.dtype) -> torch.Tensor:
        """[rows, columns] in memory reused from update to update: in a CPU's fresh memory each page costs a fault."""
        buffer = self._scratch.get(name)
        if buffer is None or len(buffer) < rows * columns or buffer.dtype != dtype:
            buffer = torch.empty(rows * columns, dtype=dtype, device=self.outputs.device)
            self._scratch[name] = buffer
        return buffer[: rows * columns].view(rows, columns)
