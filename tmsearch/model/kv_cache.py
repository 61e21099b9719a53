"""One token through a Whisper's decoder, for every clip of a batch, with the keys and values of earlier ones cached.

Weights are cast once, the cache has one size from the first token on, and nothing reads what it computes on the host:
so a CUDA graph can hold the step.

Dimension words in shape comments: clips, heads, tokens (as many as the cache has room for), positions (encoder),
rows (all encoder positions of a batch), vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional
from transformers import WhisperForConditionalGeneration
from transformers.models.whisper.modeling_whisper import WhisperDecoderLayer

from tmsearch.model.forward import Encoded

Linear = tuple[torch.Tensor, torch.Tensor | None]  # weight [outputs, inputs] and bias [outputs]


@dataclass(frozen=True)
class KeysAndValues:
    """Of one layer and one group of clips."""

    keys: torch.Tensor  # [clips, heads, tokens or positions, head_dim]
    values: torch.Tensor  # as keys

    def select(self, clips: torch.Tensor) -> KeysAndValues:
        """Those of `clips`, indices [remaining clips]."""
        return KeysAndValues(self.keys[clips], self.values[clips])


class KVCache:
    """Keys and values by layer: cross-attention's of the encoder's output, self-attention's of the tokens so far."""

    def __init__(self, step: TokenStep, encoded: Encoded, length: int) -> None:
        """Room for `length` tokens behind the encoder's output for a batch of clips."""
        self.cross_kv = [layer.cross_keys_and_values(encoded) for layer in step.layers]  # by layer, then by group
        self.clips = []  # of the batch, by group
        first = 0
        for clips in encoded.layout.clips:
            self.clips.append(slice(first, first + clips))
            first += clips
        self.log_counts: list[torch.Tensor | None] = []  # [1, 1, 1, positions], by group
        for counts in encoded.layout.log_counts:
            self.log_counts.append(None if counts is None else counts.to(step.dtype).expand(1, 1, 1, -1))
        heads = step.layers[0].heads
        shape = (self.clip_count, heads, length, encoded.states.shape[1] // heads)  # [clips, heads, tokens, head_dim]
        device = encoded.states.device
        self.self_kv: list[KeysAndValues] = []  # by layer
        for _ in step.layers:
            keys = torch.zeros(shape, dtype=step.dtype, device=device)
            self.self_kv.append(KeysAndValues(keys, torch.zeros_like(keys)))
        # Which tokens exist; [1, 1, 1, tokens].
        self.attention_mask = torch.zeros(1, 1, 1, length, dtype=torch.bool, device=device)

    @property
    def clip_count(self) -> int:
        """Clips in the batch."""
        return int(self.clips[-1].stop)

    def keep(self, clips: Sequence[int]) -> None:
        """Drops all other clips; `clips` are ascending indices into the batch and move up."""
        device = self.attention_mask.device
        remaining = torch.tensor(clips, device=device)
        self.self_kv = [cached.select(remaining) for cached in self.self_kv]
        cross_kv: list[list[KeysAndValues]] = [[] for _ in self.cross_kv]
        log_counts = []
        ranges: list[slice] = []
        first = 0
        for index, group in enumerate(self.clips):
            in_group = [clip - group.start for clip in clips if group.start <= clip < group.stop]
            if not in_group:
                continue
            selected = torch.tensor(in_group, device=device)
            for layer, cached in zip(cross_kv, self.cross_kv, strict=True):
                layer.append(cached[index].select(selected))
            log_counts.append(self.log_counts[index])
            ranges.append(slice(first, first + len(in_group)))
            first += len(in_group)
        self.cross_kv = cross_kv
        self.log_counts = log_counts
        self.clips = ranges


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

    def __call__(self, ids: torch.Tensor, position: torch.Tensor, cache: KVCache) -> torch.Tensor:
        """Logits for the next token, float32 [clips, vocabulary].

        `ids` [clips] are the last tokens, which stand at `position` [1]; their keys and values go into `cache`.
        """
        cache.attention_mask.index_fill_(3, position, True)
        states = self._inputs[ids].float() + self.positions[position].float()  # [clips, d_model]
        for index, layer in enumerate(self.layers):
            states = layer(states, position, cache, index)
        return functional.linear(_layer_norm(self._norm, states, self.dtype), self._outputs).float()


class _Layer:
    """One decoder layer; self-attention's three products are one."""

    def __init__(self, layer: WhisperDecoderLayer, dtype: torch.dtype) -> None:
        attention = layer.self_attn
        cross = layer.encoder_attn
        self.layer = layer
        self.dtype = dtype
        self.heads = attention.num_heads
        no_bias = torch.zeros_like(attention.q_proj.bias)
        weights = [attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight]
        biases = [attention.q_proj.bias, no_bias, attention.v_proj.bias]
        self._self_qkv: Linear = (torch.cat(weights).to(dtype), torch.cat(biases).to(dtype))
        self._self_out = _cast(attention.out_proj, dtype)
        self._cross_query = _cast(cross.q_proj, dtype)
        self._cross_key = _cast(cross.k_proj, dtype)
        self._cross_value = _cast(cross.v_proj, dtype)
        self._cross_out = _cast(cross.out_proj, dtype)
        self._fc1 = _cast(layer.fc1, dtype)
        self._fc2 = _cast(layer.fc2, dtype)

    def cross_keys_and_values(self, encoded: Encoded) -> list[KeysAndValues]:
        """Of the encoder's output, by group."""
        states = encoded.states.to(self.dtype)  # [rows, d_model]
        key = functional.linear(states, *self._cross_key)
        value = functional.linear(states, *self._cross_value)
        cached = []
        for group_key, group_value in zip(encoded.layout.split(key), encoded.layout.split(value), strict=True):
            cached.append(KeysAndValues(self._split_heads(group_key), self._split_heads(group_value)))
        return cached

    def __call__(self, states: torch.Tensor, position: torch.Tensor, cache: KVCache, index: int) -> torch.Tensor:
        """`states` [clips, d_model] after this layer, the `index`th."""
        states = states + self._self_attention(states, position, cache, index)
        states = states + self._cross_attention(states, cache, index)
        normed = _layer_norm(self.layer.final_layer_norm, states, self.dtype)
        wide = functional.gelu(functional.linear(normed, *self._fc1))  # [clips, ffn_dim]
        return states + functional.linear(wide, *self._fc2)

    def _self_attention(self, states: torch.Tensor, position: torch.Tensor, cache: KVCache, index: int) -> torch.Tensor:
        normed = _layer_norm(self.layer.self_attn_layer_norm, states, self.dtype)
        projected = functional.linear(normed, *self._self_qkv).view(len(states), 3, self.heads, -1)
        query, key, value = projected.unbind(1)  # each [clips, heads, head_dim]
        cached = cache.self_kv[index]
        cached.keys.index_copy_(2, position, key[:, :, None])
        cached.values.index_copy_(2, position, value[:, :, None])
        attended = functional.scaled_dot_product_attention(
            query[:, :, None], cached.keys, cached.values, attn_mask=cache.attention_mask
        )  # [clips, heads, 1, head_dim]
        return functional.linear(attended.flatten(1), *self._self_out)

    def _cross_attention(self, states: torch.Tensor, cache: KVCache, index: int) -> torch.Tensor:
        normed = _layer_norm(self.layer.encoder_attn_layer_norm, states, self.dtype)
        query = functional.linear(normed, *self._cross_query)
        query = query.view(len(states), self.heads, 1, -1)  # [clips, heads, 1, head_dim]
        attended = []
        for clips, cached, log_counts in zip(cache.clips, cache.cross_kv[index], cache.log_counts, strict=True):
            context = functional.scaled_dot_product_attention(
                query[clips], cached.keys, cached.values, attn_mask=log_counts
            )
            attended.append(context.flatten(1))
        return functional.linear(torch.cat(attended), *self._cross_out)

    def _split_heads(self, states: torch.Tensor) -> torch.Tensor:
        by_head = states.view(*states.shape[:2], self.heads, -1).transpose(1, 2)
        return by_head.contiguous()  # [clips, heads, positions, head_dim]


def _cast(linear: nn.Linear, dtype: torch.dtype) -> Linear:
    return linear.weight.to(dtype), None if linear.bias is None else linear.bias.to(dtype)


def _layer_norm(norm: nn.LayerNorm, states: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """In float32, as autocast does it."""
    weight = norm.weight.float()
    bias = norm.bias.float()
    return functional.layer_norm(states, norm.normalized_shape, weight, bias, norm.eps).to(dtype)
