"""Whisper's forward pass over clips of differing lengths without padding: each is heard as far as its own context.

The weights and modules are transformers' own, adapters among them. What is not: an encoder that takes 30 s or nothing,
and a decoder that can't be told where a clip's encoded positions end. Here all positions of a batch stand in one row,
through which each linear layer goes once, and only attention is done clip by clip (runs of equal length together).

Whisper was trained with silence up to 30 s behind every clip, and leans on it: with it cut off, an untuned tiny.en
loses .23 nats a token. So the silence is heard, but thinned (see `thinned`): a position stands for as many as its
share of the attention is raised by. Two dozen positions for 1,300 bring all but .01 of those nats back.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
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

# A run: how many clips, and how many positions each of them has.
Run = tuple[int, int]
THINNING = 0.5
# A CPU's fused attention takes 2.0 to 2.3 times as long, forward and back, as three products at a clip's few hundred
# places (2 cores with AVX512-BF16, 2026-11-24); past these, what the products keep for the way back grows too large.
EXPLICIT_PLACES = 1024
_SILENT_FRAMES = 4  # behind a run's own, as far as the convolutions of its first silent position reach


@dataclass(frozen=True)
class MicroBatch:
    """Clips of one training forward pass, shorter contexts first."""

    mels: tuple[torch.Tensor, ...]  # groups of clips of equal length, each [clips, n_mels, frames] float32
    decoder_inputs: torch.Tensor  # [clips, tokens] ids
    label_positions: torch.Tensor  # [labels] indices into the flattened decoder inputs
    labels: torch.Tensor  # [labels] ids
    batch_label_count: int  # labels in the whole batch that this is a part of


@dataclass(frozen=True)
class Encoded:
    """What the encoder made of a batch: positions of all clips, one clip after the other."""

    states: torch.Tensor  # [sum of clips * positions, d_model]
    runs: tuple[Run, ...]
    # Of each run [positions], added to attention's logits: log of how many positions each stands for; None: all one.
    counts: tuple[torch.Tensor | None, ...]

    def rows(self) -> Iterator[tuple[slice, slice, Run, torch.Tensor | None]]:
        """Of each run: its rows of `states`, its clips, its size, its `counts`."""
        first_row = first_clip = 0
        for (clips, positions), counts in zip(self.runs, self.counts, strict=True):
            rows, taken = slice(first_row, first_row + clips * positions), slice(first_clip, first_clip + clips)
            yield rows, taken, (clips, positions), counts
            first_row, first_clip = rows.stop, taken.stop


@functools.cache
def thinned(count: int) -> tuple[tuple[int, int], ...]:
    """`count` positions of silence as a few: (place, how many it stands for), close together at both ends.

    Stretches grow by half their distance from the nearer end: silence sounds alike, and what Whisper makes of it
    changes where the speech ends and where the window ends. Equally spaced ones need five times as many (measured on
    tiny.en: studies/README.md).
    """
    stretches, first = [], 0
    while first < count:
        length = max(1, min(int(1 + THINNING * first), int(1 + THINNING * (count - first)), count - first))
        stretches.append((first + (length - 1) // 2, length))
        first += length
    return tuple(stretches)


def encode(model: WhisperForConditionalGeneration, mels: Sequence[torch.Tensor], silence: bool = False) -> Encoded:
    """The encoder on runs of log-mels, each [clips, n_mels, frames]; two frames make a position.

    Equal to transformers' encoder with its positions cut to each run's own, up to rounding; with `silence` close to
    that encoder on clips padded to all that it hears.
    """
    encoder = model.model.encoder
    heard = [_positions(encoder, run, silence) for run in mels]
    states = _dropped(_joined([rows.flatten(0, 1) for rows, _ in heard]), encoder)
    encoded = Encoded(states, tuple((len(rows), rows.shape[1]) for rows, _ in heard), tuple(one for _, one in heard))
    for layer in encoder.layers:
        if not _skipped(encoder):
            states = _encoder_layer(layer, states, encoded)
    return Encoded(encoder.layer_norm(states), encoded.runs, encoded.counts)


def _positions(encoder: WhisperEncoder, run: torch.Tensor, silence: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
    """What enters the first layer for one run [clips, positions, d_model], and the logs of what positions stand for."""
    table, own = encoder.embed_positions.weight, run.shape[2] // 2
    stretches = thinned(len(table) - own) if silence else ()
    if stretches:
        # The extractor raises silence to 8 (2 after scaling) below the loudest: a clip's lowest value is its silence.
        quiet = run.amin(dim=(1, 2), keepdim=True).expand(-1, run.shape[1], _SILENT_FRAMES)
        run = torch.cat([run, quiet], dim=2)
    heard = functional.gelu(encoder.conv2(functional.gelu(encoder.conv1(run)))).transpose(1, 2)
    if not stretches:
        return heard + table[:own], None
    # Silence gives the same before its position is added, wherever it stands.
    places = torch.tensor([own + place for place, _ in stretches], device=run.device)
    counts = torch.tensor([0.0] * own + [math.log(count) for _, count in stretches], device=run.device)
    return torch.cat([heard[:, :own] + table[:own], heard[:, own : own + 1] + table[places]], dim=1), counts


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
    for rows, _, run, counts in encoded.rows():
        parts = [whole[rows].view(*run, -1) for whole in (query, key, value)]
        attended.append(_attend(attention, parts, counts).flatten(0, 1))
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
    for rows, clips, run, counts in encoded.rows():
        theirs = [whole[rows].view(*run, -1) for whole in (key, value)]
        attended.append(_attend(across, [query[clips], *theirs], counts))
    states = states + _dropped(across.out_proj(_joined(attended)), layer)
    return _feed_forward(layer, states)


def _feed_forward(layer: WhisperEncoderLayer | WhisperDecoderLayer, states: torch.Tensor) -> torch.Tensor:
    wide = functional.gelu(layer.fc1(layer.final_layer_norm(states)))
    return states + _dropped(layer.fc2(wide), layer)


def _attend(
    attention: WhisperAttention,
    parts: Sequence[torch.Tensor],
    counts: torch.Tensor | None = None,
    causal: bool = False,
) -> torch.Tensor:
    """Attention of query to key and value, each [clips, places, d_model]; as the query is."""
    query, key, value = (
        part.view(*part.shape[:2], attention.num_heads, attention.head_dim).transpose(1, 2) for part in parts
    )
    dropout = attention.dropout if attention.training else 0.0
    mask = None if counts is None else counts.to(query.dtype).expand(1, 1, query.shape[2], -1)
    if query.device.type == "cpu" and not causal and key.shape[2] <= EXPLICIT_PLACES:
        heard = _explicit(query, key, value, mask, dropout)
    else:
        heard = functional.scaled_dot_product_attention(query, key, value, mask, dropout, causal)
    return heard.transpose(1, 2).flatten(2)


def _explicit(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, dropout: float
) -> torch.Tensor:
    """The formula of functional.scaled_dot_product_attention, in the format that its inputs have."""
    with torch.autocast(query.device.type, enabled=False):
        logits = (query * query.shape[3] ** -0.5) @ key.transpose(2, 3)
        shares = (logits if mask is None else logits + mask).softmax(-1)
        return functional.dropout(shares, dropout) @ value if dropout else shares @ value


def _joined(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def _dropped(states: torch.Tensor, block: nn.Module) -> torch.Tensor:
    return functional.dropout(states, p=float(block.dropout), training=block.training)  # type: ignore[arg-type]


def _skipped(stack: nn.Module) -> bool:
    """Stochastic depth (Huang et al. 2016), drawn on the CPU, whose generator every checkpoint holds."""
    rate = float(stack.layerdrop)  # type: ignore[arg-type]
    return stack.training and rate > 0 and bool(torch.rand([]) < rate)
