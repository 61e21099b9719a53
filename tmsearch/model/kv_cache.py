"""One token through a Whisper's decoder, for every clip of a batch, with all that came before it in a cache.

Weights are cast once, the cache has one size from the first token on, and nothing looks at what it computes: so a
CUDA graph can hold the step.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional
from transformers import WhisperForConditionalGeneration
from transformers.models.whisper.modeling_whisper import WhisperDecoderLayer

from tmsearch.model.forward import Encoded

KeysAndValues = tuple[torch.Tensor, torch.Tensor]  # each [clips, heads, places, head_dim]


class Cache:
    """What a batch of clips has heard and said, as keys and values by layer."""

    def __init__(self, steps: TokenStep, encoded: Encoded, length: int) -> None:
        self.heard = [layer.remembered(encoded) for layer in steps.layers]  # by layer, then by run
        self.clips = [clips for _, clips, _, _ in encoded.rows()]  # rows of each run
        self.counts = [
            None if counts is None else counts.to(steps.dtype).expand(1, 1, 1, -1) for *_, counts in encoded.rows()
        ]
        width, heads = encoded.states.shape[1], steps.layers[0].heads
        shape = (self.count, heads, length, width // heads)
        place = encoded.states.device
        self.said: list[KeysAndValues] = [
            (torch.zeros(shape, dtype=steps.dtype, device=place), torch.zeros(shape, dtype=steps.dtype, device=place))
            for _ in steps.layers
        ]
        self.seen = torch.zeros(1, 1, 1, length, dtype=torch.bool, device=place)

    @property
    def count(self) -> int:
        """Clips in the batch."""
        return int(self.clips[-1].stop)

    def keep(self, rows: Sequence[int]) -> None:
        """Lets all other clips go; `rows` rise."""
        place = self.seen.device
        kept = torch.tensor(rows, device=place)
        self.said = [(keys[kept], values[kept]) for keys, values in self.said]
        own = [[row - run.start for row in rows if run.start <= row < run.stop] for run in self.clips]
        left = [(index, torch.tensor(one, device=place)) for index, one in enumerate(own) if one]
        self.heard = [[(layer[index][0][one], layer[index][1][one]) for index, one in left] for layer in self.heard]
        ends = [sum(len(one) for one in own[: index + 1]) for index in range(len(own))]
        self.clips = [slice(ends[index] - len(own[index]), ends[index]) for index, _ in left]
        self.counts = [self.counts[index] for index, _ in left]


class TokenStep:
    """A model's weights as decoding wants them, in the format of the products. An update leaves them as they were."""

    @torch.no_grad()
    def __init__(self, model: WhisperForConditionalGeneration, dtype: torch.dtype) -> None:
        self.dtype = dtype
        decoder = model.model.decoder
        self.layers = [_Layer(layer, dtype) for layer in decoder.layers]
        self._norm = decoder.layer_norm
        self._table, self._outputs = decoder.embed_tokens.weight, model.proj_out.weight.to(dtype)
        self.positions = decoder.embed_positions.weight

    def __call__(self, ids: torch.Tensor, place: torch.Tensor, cache: Cache) -> torch.Tensor:
        """Logits [clips, vocabulary], float32, behind the tokens `ids` [clips] that stand at `place` [1]."""
        cache.seen.index_fill_(3, place, True)
        states = self._table[ids].float() + self.positions[place].float()
        for index, layer in enumerate(self.layers):
            states = layer(states, place, cache, index)
        return functional.linear(_normed(self._norm, states, self.dtype), self._outputs).float()


class _Layer:
    """One decoder layer: its own attention's three products in one."""

    def __init__(self, layer: WhisperDecoderLayer, dtype: torch.dtype) -> None:
        own, across = layer.self_attn, layer.encoder_attn
        self.layer, self.dtype, self.heads = layer, dtype, own.num_heads
        no_bias = torch.zeros_like(own.q_proj.bias)
        self._own = (
            torch.cat([own.q_proj.weight, own.k_proj.weight, own.v_proj.weight]).to(dtype),
            torch.cat([own.q_proj.bias, no_bias, own.v_proj.bias]).to(dtype),
        )
        cast = (own.out_proj, across.q_proj, across.k_proj, across.v_proj, across.out_proj, layer.fc1, layer.fc2)
        self._own_out, self._query, self._key, self._value, self._across_out, self._wide, self._narrow = (
            (one.weight.to(dtype), None if one.bias is None else one.bias.to(dtype)) for one in cast
        )

    def remembered(self, encoded: Encoded) -> list[KeysAndValues]:
        """Of what was heard, run by run."""
        states = encoded.states.to(self.dtype)
        key, value = functional.linear(states, *self._key), functional.linear(states, *self._value)
        return [
            (self._split(key[rows].view(*run, -1)), self._split(value[rows].view(*run, -1)))
            for rows, _, run, _ in encoded.rows()
        ]

    def __call__(self, states: torch.Tensor, place: torch.Tensor, cache: Cache, index: int) -> torch.Tensor:
        """`states` [clips, d_model] after this layer, the `index`th."""
        normed = _normed(self.layer.self_attn_layer_norm, states, self.dtype)
        query, key, value = functional.linear(normed, *self._own).view(len(states), 3, self.heads, -1).unbind(1)
        keys, values = cache.said[index]
        keys.index_copy_(2, place, key[:, :, None])
        values.index_copy_(2, place, value[:, :, None])
        attended = functional.scaled_dot_product_attention(query[:, :, None], keys, values, attn_mask=cache.seen)
        states = states + functional.linear(attended.flatten(1), *self._own_out)
        normed = _normed(self.layer.encoder_attn_layer_norm, states, self.dtype)
        query = functional.linear(normed, *self._query).view(len(states), self.heads, 1, -1)
        heard = [
            functional.scaled_dot_product_attention(query[clips], *theirs, attn_mask=counts).flatten(1)
            for clips, theirs, counts in zip(cache.clips, cache.heard[index], cache.counts, strict=True)
        ]
        states = states + functional.linear(torch.cat(heard), *self._across_out)
        normed = _normed(self.layer.final_layer_norm, states, self.dtype)
        wide = functional.gelu(functional.linear(normed, *self._wide))
        return states + functional.linear(wide, *self._narrow)

    def _split(self, states: torch.Tensor) -> torch.Tensor:
        return states.view(*states.shape[:2], self.heads, -1).transpose(1, 2).contiguous()


def _normed(norm: nn.LayerNorm, states: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """In float32, as autocast does it."""
    weight, bias = norm.weight.float(), norm.bias.float()
    return functional.layer_norm(states, norm.normalized_shape, weight, bias, norm.eps).to(dtype)
