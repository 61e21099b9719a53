"""Whisper's forward pass over clips of differing lengths without padding.

The weights and modules are transformers' own, adapters among them. What is not: an encoder that takes 30 s or nothing,
and a decoder that cannot be told where a clip's encoded positions end. Here all positions of a batch stand in one
row, which passes each linear layer once; attention.py says how clips attend to themselves alone.

Whisper was trained with silence up to 30 s behind every clip, and relies on it: with it cut off, an untuned tiny.en
loses .23 nats a token. So the silence is encoded, but thinned (context.thinned): one position stands for several, and
its share of the attention is raised accordingly. Two dozen positions for 1,300 recover all but .01 of those nats.
The quiet before and behind the speech within a clip can be thinned likewise: then `Places` say what is encoded.

Dimension words in shape comments: clips, frames (mel, 10 ms), positions (encoder, 20 ms), rows (all positions of a
batch, clip after clip), tokens (decoder), labels (tokens with a label, all clips).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional
from transformers import WhisperForConditionalGeneration
from transformers.models.whisper.modeling_whisper import (
    WhisperEncoder,
)

from tmsearch import devices
from tmsearch.model import attention
from tmsearch.model.attention import Layout, Packed, SharedStates
from tmsearch.model.context import FRAMES_PER_POSITION, Places, thinned
from tmsearch.model.layers import EAGER, Layers, Sum, dropout

Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
_SILENT_FRAMES = 4  # behind a group's own, as far as the convolutions of its first silent position reach


# Of one group: which positions of each clip are encoded, equally many of each; None: all own ones, then its silence.
GroupPlaces = tuple[Places, ...] | None


@dataclass(frozen=True)
class MicroBatch:
    """Clips of one training forward pass, shorter contexts first."""

    mels: tuple[torch.Tensor, ...]  # groups of clips of equal length, each [clips, n_mels, frames] float32
    decoder_inputs: torch.Tensor  # [clips, tokens] ids
    label_positions: torch.Tensor  # [labels] indices into the flattened decoder inputs
    labels: torch.Tensor  # [labels] ids
    batch_label_count: int  # labels in the whole batch that this is a part of
    places: tuple[GroupPlaces, ...] = ()  # of each group; empty: every clip's own positions, then its silence


@dataclass(frozen=True)
class Encoded:
    """The encoder's output for a batch."""

    states: torch.Tensor  # [rows, d_model]
    layout: Layout


def encode(
    model: WhisperForConditionalGeneration,
    mels: Sequence[torch.Tensor],
    silence: bool = False,
    layers: Layers | None = None,
    places: Sequence[GroupPlaces] = (),
) -> Encoded:
    """The encoder on groups of log-mels.

    Equal, up to rounding, to transformers' encoder with its positions cut to each group's own; with `silence` close
    to that encoder on clips padded to all that it takes.

    Args:
        model: The Whisper whose encoder runs, in training or evaluation mode.
        mels: A tensor for each group of clips of equal length, [clips, n_mels, frames]; two frames make a position.
        silence: Whether the silence behind each clip is encoded, thinned.
        layers: How layers are run; None: as they are.
        places: Of each group, which positions are encoded; empty: all own ones, and the silence as `silence` says.
    """
    states, layout = embed(model, mels, silence, places)
    return encode_rows(model, states, layout, layers)


def embed(
    model: WhisperForConditionalGeneration,
    mels: Sequence[torch.Tensor],
    silence: bool = False,
    places: Sequence[GroupPlaces] = (),
) -> tuple[torch.Tensor, Layout]:
    """What `encode` gives the encoder's first layer of the same arguments, [rows, d_model], and how its clips stand."""
    places = places or (None,) * len(mels)
    encoder = model.model.encoder
    if attention.is_packed(encoder.layers[0].self_attn, mels[0].device):
        return _embed_together(encoder, mels, silence, places)
    return _embed_by_group(encoder, mels, silence, places)


def encode_rows(
    model: WhisperForConditionalGeneration, states: torch.Tensor, layout: Layout, layers: Layers | None = None
) -> Encoded:
    """The encoder's layers on what `embed` gave, `states` [rows, d_model]."""
    layers = layers or EAGER
    encoder = model.model.encoder
    total = Sum(dropout(states, encoder), None)  # [rows, d_model]
    for layer in encoder.layers:
        if not _is_skipped(encoder):
            total = layers.encoder(layer, total, layout)
    return Encoded(encoder.layer_norm(total.value()), layout)


def _embed_by_group(
    encoder: WhisperEncoder, mels: Sequence[torch.Tensor], silence: bool, places: Sequence[GroupPlaces]
) -> tuple[torch.Tensor, Layout]:
    """The first layer's input [rows, d_model], without padding."""
    parts = []
    for mel, in_group in zip(mels, places, strict=True):
        parts.append(_embed_mels(encoder, mel, silence) if in_group is None else _embed_places(encoder, mel, in_group))
    layout = Layout(
        clips=tuple(len(embedded) for embedded, _ in parts),
        positions=tuple(embedded.shape[1] for embedded, _ in parts),
        log_counts=tuple(log_counts for _, log_counts in parts),
    )
    rows = [embedded.flatten(0, 1) for embedded, _ in parts]  # of each group [rows, d_model]
    return rows[0] if len(rows) == 1 else torch.cat(rows), layout


def _embed_mels(encoder: WhisperEncoder, mel: torch.Tensor, silence: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The first layer's input for one group [clips, positions, d_model], and its log_counts [positions]."""
    table = encoder.embed_positions.weight  # [most positions, d_model]
    own = mel.shape[2] // FRAMES_PER_POSITION
    stretches = thinned(len(table) - own) if silence else ()
    convolved = _convolved(encoder, _with_silence(mel) if stretches else mel)
    if not stretches:
        return convolved + table[:own], None
    # Before its position is added, silence gives the same states wherever it stands.
    offsets, log_counts = _silence(own, stretches)
    speech = convolved[:, :own] + table[:own]
    silent = convolved[:, own : own + 1] + table[devices.copied(torch.from_numpy(offsets), mel.device)]
    in_group = np.concatenate([np.zeros(own, np.float32), log_counts])
    return torch.cat([speech, silent], dim=1), devices.copied(torch.from_numpy(in_group), mel.device)


def _embed_places(
    encoder: WhisperEncoder, mel: torch.Tensor, places: Sequence[Places]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The first layer's input for one group [clips, positions, d_model], and its log_counts [clips, positions]."""
    table = encoder.embed_positions.weight  # [most positions, d_model]
    own = mel.shape[2] // FRAMES_PER_POSITION
    convolved = _convolved(encoder, _with_silence(mel))
    positions, log_counts = _group_arrays(tuple(places))  # each [clips, positions]
    chosen = devices.copied(torch.from_numpy(positions), mel.device)
    is_silent = (chosen >= own)[..., None]  # [clips, positions, 1]
    sources = chosen.clamp(max=own)[..., None].expand(-1, -1, convolved.shape[2])
    # Gradients of silence are summed as a sum and not by index, whose order is not always the same.
    speech = convolved.gather(1, torch.where(is_silent, 0, sources))
    states = torch.where(is_silent, convolved[:, own : own + 1], speech) + table[chosen]
    return states, devices.copied(torch.from_numpy(log_counts), mel.device)


def _with_silence(mel: torch.Tensor) -> torch.Tensor:
    """`mel` [clips, n_mels, frames] and as much silence as the first silent position's convolutions reach."""
    quiet = _quiet(mel).expand(-1, mel.shape[1], _SILENT_FRAMES)
    return torch.cat([mel, quiet], dim=2)


def _convolved(encoder: WhisperEncoder, mel: torch.Tensor) -> torch.Tensor:
    """`mel` [clips, n_mels, frames] after both convolutions, [clips, positions, d_model]."""
    convolved = functional.gelu(encoder.conv1(mel))
    return functional.gelu(encoder.conv2(convolved)).transpose(1, 2)


def _embed_together(
    encoder: WhisperEncoder, mels: Sequence[torch.Tensor], silence: bool, places: Sequence[GroupPlaces]
) -> tuple[torch.Tensor, Layout]:
    """The first layer's input [rows, d_model] by one convolution over all clips in a row; the same but for rounding.

    Clips are apart so far that no position's convolution reaches the next: behind the silence of a clip or, without
    silence, where the convolution of the clip alone would find its padding. In front of each clip there is a frame that
    is zero between the convolutions, as padding is.
    """
    table = encoder.embed_positions.weight  # [most positions, d_model]
    sizes = [len(mel) for mel in mels]
    frames = [mel.shape[2] for mel in mels]
    apart = _SILENT_FRAMES + FRAMES_PER_POSITION
    starts = np.cumsum([0, *np.repeat(frames, sizes) + apart])  # of each clip, in frames, all of them even; and the end
    row = mels[0].new_zeros(1, mels[0].shape[1], int(starts[-1]))  # [1, n_mels, frames]
    first = 0
    for mel, in_group in zip(mels, places, strict=True):
        group = row[0, :, starts[first] : starts[first + len(mel)]].view(row.shape[1], len(mel), -1)
        group[:, :, : mel.shape[2]] = mel.transpose(0, 1)  # [n_mels, clips, frames]
        if (silence or in_group is not None) and mel.shape[2] < FRAMES_PER_POSITION * len(table):
            group[:, :, mel.shape[2] : mel.shape[2] + _SILENT_FRAMES] = _quiet(mel).transpose(0, 1)
        first += len(mel)
    before = devices.copied(torch.from_numpy(starts[1:-1] - 1), row.device)
    convolved = functional.gelu(encoder.conv1(row)).index_fill(2, before, 0)
    convolved = functional.gelu(encoder.conv2(convolved))  # [1, d_model, positions]
    # At least as float32, in which the gradients of a clip's many silent positions are summed.
    dtype = torch.promote_types(convolved.dtype, torch.float32)
    columns = convolved[0].t().to(dtype)  # [positions, d_model]
    rows = _rows(sizes, starts // FRAMES_PER_POSITION, frames, len(table), silence, places)
    taken = devices.copied(torch.from_numpy(np.stack([rows.sources, rows.places])), table.device)  # [2, rows]
    states = columns.index_select(0, taken[0]) + table.index_select(0, taken[1])
    has_counts = silence or any(in_group is not None for in_group in places)
    return states, _packed_layout(encoder, sizes, rows.positions, rows.log_counts if has_counts else None)


def _packed_layout(
    encoder: WhisperEncoder, sizes: Sequence[int], positions: Sequence[int], log_counts: Floats | None
) -> Layout:
    """Of groups of `sizes` clips with `positions` each; `log_counts` [rows]."""
    weight = encoder.conv2.weight
    lengths = np.repeat(positions, sizes)  # [clips]
    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    channels = None
    if log_counts is not None:
        head_dim = len(weight) // encoder.config.encoder_attention_heads
        on_device = devices.copied(torch.from_numpy(log_counts), weight.device)
        channels = attention.count_channels(on_device, head_dim, attention.products_dtype(weight))
    packed = Packed(
        lengths=tuple(lengths.tolist()),
        longest=max(positions),
        ends=devices.copied(torch.from_numpy(ends), weight.device),
        channels=channels,
        no_bias=weight.new_zeros(len(weight)),
    )
    return Layout(tuple(sizes), tuple(positions), (None,) * len(sizes), packed)


def _quiet(mel: torch.Tensor) -> torch.Tensor:
    """The value of silence in each clip of `mel` [clips, n_mels, frames], [clips, 1, 1].

    The extractor raises silence to 8 (2 after scaling) below the loudest: a clip's lowest value is its silence.
    """
    return mel.amin(dim=(1, 2), keepdim=True)


@functools.cache
def _silence(own: int, stretches: tuple[tuple[int, int], ...]) -> tuple[Indices, Floats]:
    """The thinned positions behind a clip of `own`, and the logarithms of how many each stands for."""
    places = np.array([own + offset for offset, _ in stretches], dtype=np.int64)
    return places, np.array([math.log(count) for _, count in stretches], dtype=np.float32)


@dataclass(frozen=True)
class _Rows:
    """What each row of a batch takes."""

    sources: Indices  # [rows] positions of the convolution over all clips
    places: Indices  # [rows] positions in the checkpoint's window
    log_counts: Floats  # [rows]
    positions: list[int]  # of each clip, by group


def _rows(
    sizes: Sequence[int],
    starts: Indices,
    frames: Sequence[int],
    full: int,
    silence: bool,
    places: Sequence[GroupPlaces],
) -> _Rows:
    """The rows of groups of `sizes` clips of `frames` each, whose positions begin at `starts` [clips] in a row."""
    sources = []
    all_places = []
    logs = []
    positions = []
    first = 0
    for size, length, in_group in zip(sizes, frames, places, strict=True):
        own = length // FRAMES_PER_POSITION
        if in_group is None:
            silent, silent_logs = _silence(own, thinned(full - own) if silence else ())
            in_clip = np.tile(np.concatenate([np.arange(own), silent]), (size, 1))  # [clips, positions]
            log_counts = np.tile(np.concatenate([np.zeros(own, np.float32), silent_logs]), (size, 1))
        else:
            in_clip, log_counts = _group_arrays(in_group)
        sources.append((starts[first : first + size, None] + np.minimum(in_clip, own)).ravel())
        all_places.append(in_clip.ravel())
        logs.append(log_counts.ravel())
        positions.append(in_clip.shape[1])
        first += size
    return _Rows(np.concatenate(sources), np.concatenate(all_places), np.concatenate(logs), positions)


def _group_arrays(places: tuple[Places, ...]) -> tuple[Indices, Floats]:
    """Positions and log_counts of a group's clips, each [clips, positions]."""
    positions = np.array([clip.positions for clip in places], dtype=np.int64)
    counts = np.array([clip.counts for clip in places], dtype=np.float32)
    return positions, np.log(counts)


def decode(
    model: WhisperForConditionalGeneration, embedded: torch.Tensor, encoded: Encoded, layers: Layers | None = None
) -> torch.Tensor:
    """The decoder's last states, each token attending to itself and those before it.

    Equal to transformers' decoder, up to rounding.

    Args:
        model: The Whisper whose decoder runs.
        embedded: Rows of the token table for the input tokens, [clips, tokens, d_model], clips ordered as in `encoded`.
        encoded: The encoder's output for the same clips.
        layers: How layers are run; None: as they are.

    Returns:
        States after the final layer norm, [clips, tokens, d_model].
    """
    layers = layers or EAGER
    decoder = model.model.decoder
    clips, tokens, _ = embedded.shape
    # Positions by slicing: the gradient of an indexed lookup is summed by all threads at once on a CPU.
    states = embedded + decoder.embed_positions.weight[:tokens]
    total = Sum(dropout(states, decoder), None)
    shared = SharedStates(encoded.states)
    token_ends = None
    if encoded.layout.packed is not None:
        token_ends = torch.arange(0, (clips + 1) * tokens, tokens, dtype=torch.int32, device=states.device)
        without_tokens = len(encoded.layout.packed.ends) - len(token_ends)  # as captured.py fills up the rows
        if without_tokens:
            token_ends = functional.pad(token_ends, (0, without_tokens), value=clips * tokens)
    for layer in decoder.layers:
        if not _is_skipped(decoder):
            total = layers.decoder(layer, total, shared, encoded.layout, token_ends)
    hidden: torch.Tensor = decoder.layer_norm(total.value())
    return hidden


def _is_skipped(stack: nn.Module) -> bool:
    """Stochastic depth (Huang et al. 2016), drawn on the CPU, whose generator every checkpoint saves."""
    rate = float(stack.layerdrop)  # type: ignore[arg-type]
    return stack.training and rate > 0 and bool(torch.rand([]) < rate)
