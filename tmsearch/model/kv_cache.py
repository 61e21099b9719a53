"""One step of a Whisper's decoder for every clip of a batch, with the keys and values of earlier tokens cached.

Weights are cast once, the cache has one size from the first token on, and nothing reads what it computes on the host:
so a CUDA graph can hold the step. Where attention is packed (attention.py) the graph serves any later batch that is no
larger, since the kernel reads on the device how long each clip is.

Dimension words in shape comments: clips, heads, tokens (that are decoded together: the prompt's, then one), length (as
many tokens as the cache has room for), positions (encoder), rows (all encoder positions of a batch), vocabulary.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import nn
from torch.nn import functional
from transformers import WhisperForConditionalGeneration
from transformers.models.whisper.modeling_whisper import WhisperDecoderLayer

from tmsearch.model import attention
from tmsearch.model.attention import Layout, by_clip
from tmsearch.model.forward import Encoded

Linear = tuple[torch.Tensor, torch.Tensor | None]  # weight [outputs, inputs] and bias [outputs]
# CUDA's kernel for a biased attention reads whole eights; a bias of another length is copied each time.
_ALIGNED_LENGTH = 8


class SelfCache:
    """Keys and values of the tokens so far, by layer."""

    def __init__(self, step: TokenStep, clips: int, length: int, device: torch.device) -> None:
        if device.type == "cuda":
            length = math.ceil(length / _ALIGNED_LENGTH) * _ALIGNED_LENGTH
        heads = step.layers[0].heads
        head_dim = step.layers[0].head_dim
        shape = (clips, 2, heads, length, head_dim)  # keys, then values
        self.by_layer = [torch.zeros(shape, dtype=step.dtype, device=device) for _ in step.layers]
        # Added to the logits: minus infinity for tokens that do not exist yet; [1, 1, 1, length].
        self.bias = torch.full((1, 1, 1, length), -torch.inf, dtype=step.dtype, device=device)

    def restart(self) -> None:
        """Forgets all tokens."""
        self.bias.fill_(-torch.inf)

    def allow(self, positions: torch.Tensor) -> torch.Tensor:
        """Makes the tokens at `positions` [tokens] exist; returns the bias of their logits [1, 1, tokens, length].

        Several tokens are the first ones: each sees itself and those before it.
        """
        self.bias.index_fill_(3, positions, 0.0)
        if len(positions) == 1:
            return self.bias
        hidden = torch.full((len(positions), self.bias.shape[3]), -torch.inf, device=positions.device)
        return hidden.triu(1).to(self.bias.dtype)[None, None]

    def attend(self, projected: torch.Tensor, positions: torch.Tensor, bias: torch.Tensor, index: int) -> torch.Tensor:
        """Attention of tokens to those so far, [clips, tokens, d_model], in layer `index`.

        `projected` [clips, tokens, 3, heads, head_dim] are the tokens' queries, keys and values.
        """
        by_part = projected.permute(0, 2, 3, 1, 4)  # [clips, 3, heads, tokens, head_dim]
        cached = self.by_layer[index]
        cached.index_copy_(3, positions, by_part[:, 1:])
        attended = functional.scaled_dot_product_attention(by_part[:, 0], cached[:, 0], cached[:, 1], attn_mask=bias)
        return attended.transpose(1, 2).flatten(2)

    def keep(self, clips: torch.Tensor) -> None:
        """Drops all clips but `clips`, indices [remaining clips]."""
        self.by_layer = [cached[clips] for cached in self.by_layer]


class CrossCache(Protocol):
    """Keys and values of the encoder's output, by layer."""

    def attend(self, normed: torch.Tensor, index: int) -> torch.Tensor:
        """Cross-attention of tokens, `normed` [clips, tokens, d_model], in layer `index`, with the output's product."""


class GroupedCrossCache:
    """By group of clips of equal length."""

    def __init__(self, step: TokenStep, encoded: Encoded) -> None:
        self._layers = step.layers
        self.clips = list(encoded.layout.clips)  # of each group
        self.log_counts: list[torch.Tensor | None] = []  # [clips or 1, 1, 1, positions], by group
        for counts in encoded.layout.log_counts:
            self.log_counts.append(None if counts is None else by_clip(counts.to(step.dtype)))
        states = encoded.states.to(step.dtype)  # [rows, d_model]
        # By layer, then by group: keys and values [clips, heads, positions, head_dim].
        self.by_layer = [layer.cross_keys_and_values(states, encoded.layout) for layer in step.layers]

    def attend(self, normed: torch.Tensor, index: int) -> torch.Tensor:
        layer = self._layers[index]
        query = functional.linear(normed, *layer.cross_query)
        attended = []
        groups = zip(torch.split(query, self.clips), self.by_layer[index], self.log_counts, strict=True)
        for group_query, (keys, values), log_counts in groups:
            clips, tokens, _ = group_query.shape
            by_head = group_query.view(clips, tokens, keys.shape[1], -1).transpose(1, 2)
            context = functional.scaled_dot_product_attention(by_head, keys, values, attn_mask=log_counts)
            attended.append(context.transpose(1, 2).flatten(2))
        return functional.linear(torch.cat(attended), *layer.cross_out)

    def keep(self, clips: Sequence[int]) -> None:
        """Drops all other clips; `clips` are ascending indices into the batch and move up."""
        by_layer: list[list[tuple[torch.Tensor, torch.Tensor]]] = [[] for _ in self.by_layer]
        log_counts = []
        sizes = []
        first = 0
        for group, size in enumerate(self.clips):
            in_group = [clip - first for clip in clips if first <= clip < first + size]
            first += size
            if not in_group:
                continue
            for layer, cached in zip(by_layer, self.by_layer, strict=True):
                keys, values = cached[group]
                selected = torch.tensor(in_group, device=keys.device)
                layer.append((keys[selected], values[selected]))
            counts = self.log_counts[group]
            log_counts.append(counts if counts is None or len(counts) == 1 else counts[selected])
            sizes.append(len(in_group))
        self.by_layer = by_layer
        self.log_counts = log_counts
        self.clips = sizes


class PackedCrossCache:
    """Of all clips in one row, in memory that later batches reuse.

    The weights around the attention are widened here, so that products make and take heads with their channels.
    """

    def __init__(self, step: TokenStep, encoded: Encoded) -> None:
        """Room for the clips and rows of `encoded`, which `load` puts in."""
        packed = encoded.layout.packed
        assert packed is not None
        layer = step.layers[0]
        self._heads = layer.heads
        self._head_dim = layer.head_dim
        self._channels = 0 if packed.channels is None else attention.COUNT_CHANNELS
        shape = (len(encoded.states), 2, layer.heads, layer.head_dim + self._channels)  # keys, then values
        device = encoded.states.device
        self._by_layer = [torch.empty(shape, dtype=step.dtype, device=device) for _ in step.layers]
        self._queries = [self._widened_query(layer) for layer in step.layers]
        self._keys_and_values = [self._widened(*layer.cross_kv, 2) for layer in step.layers]
        self._outs = [self._widened_out(layer) for layer in step.layers]
        self._token_ends = torch.arange(len(packed.ends), dtype=torch.int32, device=device)  # [clips + 1]
        self._packed = dataclasses.replace(packed, ends=torch.empty_like(packed.ends), channels=None)

    def _widened(self, weight: torch.Tensor, bias: torch.Tensor, parts: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight [parts * d_model, d_model] and bias of a product that makes heads, with channels of zeros."""
        by_head = weight.view(parts * self._heads, self._head_dim, -1)
        wide_weight = functional.pad(by_head, (0, 0, 0, self._channels)).flatten(0, 1)
        wide_bias = functional.pad(bias.view(parts * self._heads, self._head_dim), (0, self._channels))
        return wide_weight, wide_bias.flatten()

    def _widened_query(self, layer: _Layer) -> Linear:
        weight, bias = layer.cross_query
        assert bias is not None
        wide_weight, wide_bias = self._widened(weight, bias, 1)
        if self._channels:
            attention.set_query_channels(wide_bias.view(self._heads, -1)[:, self._head_dim :])
        return wide_weight, wide_bias

    def _widened_out(self, layer: _Layer) -> Linear:
        weight, bias = layer.cross_out
        by_head = weight.view(len(weight), self._heads, self._head_dim)
        return functional.pad(by_head, (0, self._channels)).flatten(1), bias

    def fits(self, layout: Layout) -> bool:
        """Whether a batch of this layout can be loaded."""
        packed = layout.packed
        if packed is None or (packed.channels is None) != (self._channels == 0):
            return False
        clips = len(self._token_ends) - 1
        rows = len(self._by_layer[0])
        return layout.clip_count <= clips and sum(packed.lengths) <= rows and packed.longest <= self._packed.longest

    def load(self, encoded: Encoded) -> None:
        """Puts in the batch `encoded`; where it has fewer clips, the last ones have no positions."""
        packed = encoded.layout.packed
        assert packed is not None
        rows = len(encoded.states)
        states = encoded.states.to(self._by_layer[0].dtype)  # [rows, d_model]
        for cached, (weight, bias) in zip(self._by_layer, self._keys_and_values, strict=True):
            torch.addmm(bias, states, weight.t(), out=cached[:rows].view(rows, -1))
            if packed.channels is not None:
                cached[:rows, 0, :, self._head_dim :] = packed.channels[:, 1]
        self._packed.ends[: len(packed.ends)] = packed.ends
        self._packed.ends[len(packed.ends) :] = rows
        self._packed = dataclasses.replace(self._packed, lengths=packed.lengths)

    def attend(self, normed: torch.Tensor, index: int) -> torch.Tensor:
        clips, tokens, _ = normed.shape
        query = functional.linear(normed, *self._queries[index]).view(clips * tokens, self._heads, -1)
        keys, values = self._by_layer[index].unbind(1)
        token_ends = self._token_ends if tokens == 1 else self._token_ends * tokens
        attended = attention.varlen(self._head_dim, query, keys, values, token_ends, tokens, self._packed)
        return functional.linear(attended.view(clips, tokens, -1), *self._outs[index])


class TokenStep:
    """A decoder's weights cast for decoding; make a new one when the model has been updated."""

    @torch.no_grad()
    def __init__(self, model: WhisperForConditionalGeneration, dtype: torch.dtype) -> None:
        """Casts the weights of the matrix products to `dtype`; layer norms and embeddings stay float32."""
        decoder = model.model.decoder
        self.dtype = dtype
        self.layers = [_Layer(layer, dtype) for layer in decoder.layers]
        self.positions = decoder.embed_positions.weight  # [most tokens, d_model]
        self._norm = decoder.layer_norm
        self._inputs = decoder.embed_tokens.weight  # [vocabulary, d_model]
        self._outputs = model.proj_out.weight.to(dtype)  # [vocabulary, d_model]

    def __call__(
        self, ids: torch.Tensor, positions: torch.Tensor, self_cache: SelfCache, cross_cache: CrossCache
    ) -> torch.Tensor:
        """Logits for the token after the last, float32 [clips, vocabulary].

        `ids` [clips, tokens] are the last tokens, which stand at `positions` [tokens]; their keys and values go into
        `self_cache`. Several at once are the first ones, the prompt.
        """
        bias = self_cache.allow(positions)
        states = self._inputs[ids].float() + self.positions[positions].float()  # [clips, tokens, d_model]
        for index, layer in enumerate(self.layers):
            normed = layer.normed(layer.self_norm, states)
            attended = self_cache.attend(layer.self_projected(normed), positions, bias, index)
            states = states + functional.linear(attended, *layer.self_out)
            states = states + cross_cache.attend(layer.normed(layer.cross_norm, states), index)
            states = states + layer.feed_forward(states)
        last = _layer_norm(self._norm, states[:, -1], self.dtype)  # [clips, d_model]
        return functional.linear(last, self._outputs).float()


class _Layer:
    """One decoder layer; self-attention's three products are one, and so are cross-attention's keys and values."""

    def __init__(self, layer: WhisperDecoderLayer, dtype: torch.dtype) -> None:
        own = layer.self_attn
        cross = layer.encoder_attn
        self.dtype = dtype
        self.heads = own.num_heads
        self.head_dim = own.head_dim
        self.self_norm = layer.self_attn_layer_norm
        self.cross_norm = layer.encoder_attn_layer_norm
        self._final_norm = layer.final_layer_norm
        self._self_qkv = _cast_together((own.q_proj, own.k_proj, own.v_proj), dtype)
        self.self_out = _cast(own.out_proj, dtype)
        self.cross_query = _cast(cross.q_proj, dtype)
        self.cross_kv = _cast_together((cross.k_proj, cross.v_proj), dtype)
        self.cross_out = _cast(cross.out_proj, dtype)
        self._fc1 = _cast(layer.fc1, dtype)
        self._fc2 = _cast(layer.fc2, dtype)

    def normed(self, norm: nn.LayerNorm, states: torch.Tensor) -> torch.Tensor:
        """In the products' format."""
        return _layer_norm(norm, states, self.dtype)

    def self_projected(self, normed: torch.Tensor) -> torch.Tensor:
        """Queries, keys and values of `normed` [clips, tokens, d_model]: [clips, tokens, 3, heads, head_dim]."""
        clips, tokens, _ = normed.shape
        return functional.linear(normed, *self._self_qkv).view(clips, tokens, 3, self.heads, self.head_dim)

    def cross_keys_and_values(self, states: torch.Tensor, layout: Layout) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Of the encoder's output [rows, d_model], by group: each [clips, heads, positions, head_dim]."""
        weight, bias = self.cross_kv
        width = len(weight) // 2
        keys = layout.split(functional.linear(states, weight[:width]))
        values = layout.split(functional.linear(states, weight[width:], bias[width:]))
        return [(self._split_heads(key), self._split_heads(value)) for key, value in zip(keys, values, strict=True)]

    def feed_forward(self, states: torch.Tensor) -> torch.Tensor:
        """What the layer adds last to `states` [clips, tokens, d_model]."""
        normed = self.normed(self._final_norm, states)
        wide = functional.gelu(functional.linear(normed, *self._fc1))  # [clips, tokens, ffn_dim]
        return functional.linear(wide, *self._fc2)

    def _split_heads(self, states: torch.Tensor) -> torch.Tensor:
        by_head = states.view(*states.shape[:2], self.heads, -1).transpose(1, 2)
        return by_head.contiguous()  # [clips, heads, positions, head_dim]


def _cast(linear: nn.Linear, dtype: torch.dtype) -> Linear:
    return linear.weight.to(dtype), None if linear.bias is None else linear.bias.to(dtype)


def _cast_together(linears: Sequence[nn.Linear], dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """The weights and biases of one product that is all of theirs; Whisper's keys have no bias."""
    weights: list[torch.Tensor] = []
    biases: list[torch.Tensor] = []
    for linear in linears:
        weights.append(linear.weight)
        biases.append(torch.zeros_like(linear.weight[:, 0]) if linear.bias is None else linear.bias)
    return torch.cat(weights).to(dtype), torch.cat(biases).to(dtype)


def _layer_norm(norm: nn.LayerNorm, states: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """In float32, as autocast does it."""
    weight = norm.weight.float()
    bias = norm.bias.float()
    return functional.layer_norm(states, norm.normalized_shape, weight, bias, norm.eps).to(dtype)
