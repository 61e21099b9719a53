"""Whisper's forward pass over clips of differing lengths without padding: each is heard as far as its own context.

The weights and modules are transformers' own, adapters among them. What is not: an encoder that takes 30 s or nothing,
and a decoder that can't be told where a clip's encoded positions end. Here all positions of a batch stand in one row,
through which each linear layer goes once, and only attention is done clip by clip (runs of equal length together).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional
from transformers import WhisperForConditionalGeneration
from transformers.models.whisper.modeling_whisper import WhisperAttention, WhisperDecoderLayer, WhisperEncoderLayer

# A run: how many clips, and how many positions each of them has.
Run = tuple[int, int]


@dataclass(frozen=True)
class Encoded:
    """What the encoder made of a batch: positions of all clips, one clip after the other."""

    states: torch.Tensor  # [sum of clips * positions, d_model]
    runs: tuple[Run, ...]

    def rows(self) -> Iterator[tuple[slice, slice, Run]]:
        """Of each run: its rows of `states`, its clips, its size."""
        first_row = first_clip = 0
        for clips, positions in self.runs:
            yield (
                slice(first_row, first_row + clips * positions), slice(first_clip, first_clip + clips),
                (clips, positions),
            )
            first_row, first_clip = first_row + clips * positions, first_clip + clips


def encode(model: WhisperForConditionalGeneration, mels: Sequence[torch.Tensor]) -> Encoded:
    """The encoder on runs of log-mels, each [clips, n_mels, frames]; two frames make a position.

    Equal to transformers' encoder with its positions cut to each run's own, up to rounding.
    """
    encoder = model.model.encoder
    table = encoder.embed_positions.weight
    rows, runs = [], []
    for run in mels:
        heard = functional.gelu(encoder.conv2(functional.gelu(encoder.conv1(run)))).transpose(1, 2)
        rows.append((heard + table[: heard.shape[1]]).flatten(0, 1))
        runs.append((heard.shape[0], heard.shape[1]))
    states = _dropped(_joined(rows), encoder)
    encoded = Encoded(states, tuple(runs))
    for layer in encoder.layers:
        if not _skipped(encoder):
            states = _encoder_layer(layer, states, encoded)
    return Encoded(encoder.layer_norm(states), encoded.runs)


def decode(model: WhisperForConditionalGeneration, embedded: torch.Tensor, encoded: Encoded) -> torch.Tensor:
    """The decoder's last states [clips, places, d_model], each place seeing those before it.

    `embedded` [clips, places, d_model] are the input tokens' rows of the token table, clips in the order of `encoded`.
    Equal to transformers' decoder, up to rounding.
    """
    decoder = model.model.decoder
    # By slicing: the gradient of looked-up positions is summed by all threads at once on a CPU.
    states = embedded + decoder.embed_positions.weight[: embedded.shape[1]]
    states = _dropped(states, decoder)
    for layer in decoder.layers:
        if not _skipped(decoder):
            states = _decoder_layer(layer, states, encoded)
    hidden: torch.Tensor = decoder.layer_norm(states)
    return hidden


def _encoder_layer(layer: WhisperEncoderLayer, states: torch.Tensor, encoded: Encoded) -> torch.Tensor:
    attention = layer.self_attn
    normed = layer.self_attn_layer_norm(states)
    query, key, value = attention.q_proj(normed), attention.k_proj(normed), attention.v_proj(normed)
    attended = []
    for rows, _, run in encoded.rows():
        parts = [whole[rows].view(*run, -1) for whole in (query, key, value)]
        attended.append(_attend(attention, parts).flatten(0, 1))
    states = states + _dropped(attention.out_proj(_joined(attended)), layer)
    return _feed_forward(layer, states)


def _decoder_layer(layer: WhisperDecoderLayer, states: torch.Tensor, encoded: Encoded) -> torch.Tensor:
    own = layer.self_attn
    normed = layer.self_attn_layer_norm(states)
    parts = [project(normed) for project in (own.q_proj, own.k_proj, own.v_proj)]
    states = states + _dropped(own.out_proj(_attend(own, parts, causal=True)), layer)
    across = layer.encoder_attn
    query = across.q_proj(layer.encoder_attn_layer_norm(states))
    key, value = across.k_proj(encoded.states), across.v_proj(encoded.states)
    attended = []
    for rows, clips, run in encoded.rows():
        theirs = [whole[rows].view(*run, -1) for whole in (key, value)]
        attended.append(_attend(across, [query[clips], *theirs]))
    states = states + _dropped(across.out_proj(_joined(attended)), layer)
    return _feed_forward(layer, states)


def _feed_forward(layer: WhisperEncoderLayer | WhisperDecoderLayer, states: torch.Tensor) -> torch.Tensor:
    wide = functional.gelu(layer.fc1(layer.final_layer_norm(states)))
    return states + _dropped(layer.fc2(wide), layer)


def _attend(attention: WhisperAttention, parts: Sequence[torch.Tensor], causal: bool = False) -> torch.Tensor:
    """Attention of query to key and value, each [clips, places, d_model]; as the query is."""
    query, key, value = (
        part.view(*part.shape[:2], attention.num_heads, attention.head_dim).transpose(1, 2) for part in parts
    )
    dropout = attention.dropout if attention.training else 0.0
    heard = functional.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=causal)
    return heard.transpose(1, 2).flatten(2)


def _joined(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def _dropped(states: torch.Tensor, block: nn.Module) -> torch.Tensor:
    return functional.dropout(states, p=float(block.dropout), training=block.training)  # type: ignore[arg-type]


def _skipped(stack: nn.Module) -> bool:
    """Stochastic depth (Huang et al. 2016), drawn on the CPU, whose generator every checkpoint holds."""
    rate = float(stack.layerdrop)  # type: ignore[arg-type]
    return stack.training and rate > 0 and bool(torch.rand([]) < rate)
