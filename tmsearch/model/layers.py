"""The layers of both stacks, and what they are computed by: their own modules, or kernels that join several.

Dimension words in shape comments: rows (all positions or tokens of a batch), clips, tokens (decoder), inputs and
outputs of a linear layer.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers.models.whisper.modeling_whisper import WhisperAttention, WhisperDecoderLayer, WhisperEncoderLayer

from tmsearch.model import attention
from tmsearch.model.attention import Layout, Packed, SharedStates


class LayerKernels:
    """A layer's modules as they are: adapted ones among them, cast by autocast where it is on."""

    def product(self, linear: nn.Module, states: torch.Tensor) -> torch.Tensor:
        """`states` [..., inputs] after a linear layer, [..., outputs]."""
        return cast(torch.Tensor, linear(states))

    def products_together(
        self, linears: Sequence[nn.Module], states: torch.Tensor, no_bias: torch.Tensor
    ) -> torch.Tensor:
        """`states` [..., inputs] after each of several layers, side by side; one product where none is adapted.

        `no_bias` [outputs] are zeros for a layer without one: Whisper's keys have none.
        """
        if not all_plain(linears):
            return torch.cat([linear(states) for linear in linears], dim=-1)
        weights = [cast(torch.Tensor, linear.weight) for linear in linears]
        biases = [no_bias if linear.bias is None else cast(torch.Tensor, linear.bias) for linear in linears]
        return functional.linear(states, torch.cat(weights), torch.cat(biases))

    def add_norm(
        self, norm: nn.LayerNorm, states: torch.Tensor, added: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The sum of two [..., d_model], and it after a layer norm; `states` alone where there is nothing to add."""
        if added is not None:
            states = states + added
        return states, norm(states)

    def gelu_product(self, linear: nn.Module, states: torch.Tensor) -> torch.Tensor:
        """`states` [..., inputs] after GELU and a linear layer, [..., outputs]."""
        return self.product(linear, functional.gelu(states))

    def widened(self, heads: torch.Tensor, channels: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        """Queries, keys or values that stand side by side, each with channels of its own behind every head's.

        Args:
            heads: [rows, parts, heads, head_dim], a part being queries, keys or values.
            channels: [rows or 1, parts, 1, channels]; None: nothing is added.

        Returns:
            Each part, [rows, heads, head_dim + channels].
        """
        if channels is not None:
            heads = torch.cat([heads, channels.expand(*heads.shape[:-1], -1)], dim=-1)
        return heads.unbind(1)

    def encoded_heads(self, layer: WhisperAttention, encoded: SharedStates, packed: Packed) -> tuple[torch.Tensor, ...]:
        """Keys and values of the encoder's states for cross-attention, each [rows, heads, head_dim + channels]."""
        return attention.encoded_heads([layer], encoded, packed, self)

    def narrowed(self, heads: torch.Tensor, head_dim: int) -> torch.Tensor:
        """[rows, heads, head_dim + channels] without what `widened` added, [rows, heads * head_dim]."""
        return heads[..., :head_dim].flatten(1)


def all_plain(linears: Sequence[nn.Module]) -> bool:
    """Whether none has an adapter, which casts for itself."""
    return all(type(linear) is nn.Linear for linear in linears)


class Sum(NamedTuple):
    """States between two layers, whose last summand is added by the next layer, together with its norm."""

    states: torch.Tensor  # [..., d_model]
    added: torch.Tensor | None  # of the same shape; None: nothing

    def value(self) -> torch.Tensor:
        """The states themselves."""
        return self.states if self.added is None else self.states + self.added


@dataclass(frozen=True)
class Layers:
    """How one layer of either stack is run."""

    encoder: Callable[[WhisperEncoderLayer, Sum, Layout], Sum]
    decoder: Callable[[WhisperDecoderLayer, Sum, SharedStates, Layout, torch.Tensor | None], Sum]


def _encoder_layer(kernels: LayerKernels, layer: WhisperEncoderLayer, total: Sum, layout: Layout) -> Sum:
    """States [rows, d_model] after one layer."""
    states, normed = kernels.add_norm(layer.self_attn_layer_norm, *total)
    attended = attention.self_attention(layer.self_attn, normed, layout, kernels)
    added = dropout(kernels.product(layer.self_attn.out_proj, attended), layer)
    return _feed_forward(kernels, layer, Sum(states, added))


def _decoder_layer(
    kernels: LayerKernels,
    layer: WhisperDecoderLayer,
    total: Sum,
    encoded: SharedStates,
    layout: Layout,
    token_ends: torch.Tensor | None,
) -> Sum:
    """States [clips, tokens, d_model] after one layer."""
    states, normed = kernels.add_norm(layer.self_attn_layer_norm, *total)
    attended = attention.causal_attention(layer.self_attn, normed, layout, kernels)
    added = dropout(kernels.product(layer.self_attn.out_proj, attended), layer)
    states, normed = kernels.add_norm(layer.encoder_attn_layer_norm, states, added)
    attended = attention.cross_attention(layer.encoder_attn, normed, encoded, layout, token_ends, kernels)
    added = dropout(kernels.product(layer.encoder_attn.out_proj, attended), layer)
    return _feed_forward(kernels, layer, Sum(states, added))


def eager_layers(kernels: LayerKernels) -> Layers:
    """Layers as they are, computed by `kernels`."""
    return Layers(functools.partial(_encoder_layer, kernels), functools.partial(_decoder_layer, kernels))


EAGER = eager_layers(LayerKernels())


@functools.cache
def compiled_layers() -> Layers:
    """One graph for all layers of a kind and batches of all lengths, since a layer is given sizes as arguments.

    As a whole, a step was compiled anew for each combination of lengths: 8 graphs, and then eager for good.
    """

    def compiled(layer_function: Callable[..., Sum]) -> Callable[..., Sum]:
        # With the last sum in it, as one more summand or none would be a graph of its own.
        graph = torch.compile(
            lambda layer, states, *rest: layer_function(layer, Sum(states, None), *rest).value(), dynamic=True
        )
        return lambda layer, total, *rest: Sum(graph(layer, total.states, *rest), None)

    return Layers(compiled(EAGER.encoder), compiled(EAGER.decoder))


def recomputed(layers: Layers = EAGER, draws: bool = True) -> Layers:
    """Layers that keep only what they are given, and run again for their gradients (Chen et al. 2016).

    Args:
        layers: How each is run, both times.
        draws: Whether they draw random numbers, as dropout does: the second run then draws those of the first.
    """
    run = functools.partial(checkpoint, use_reentrant=False, preserve_rng_state=draws)

    def keeping_one(layer_function: Callable[..., Sum]) -> Callable[..., Sum]:
        # The sum is kept, and not both of its summands.
        return lambda layer, total, *rest: run(layer_function, layer, Sum(total.value(), None), *rest)

    return Layers(keeping_one(layers.encoder), keeping_one(layers.decoder))


def _feed_forward(kernels: LayerKernels, layer: WhisperEncoderLayer | WhisperDecoderLayer, total: Sum) -> Sum:
    states, normed = kernels.add_norm(layer.final_layer_norm, *total)
    wide = kernels.product(layer.fc1, normed)  # [..., ffn_dim]
    return Sum(states, dropout(kernels.gelu_product(layer.fc2, wide), layer))


def dropout(states: torch.Tensor, block: nn.Module) -> torch.Tensor:
    return functional.dropout(states, p=float(block.dropout), training=block.training)  # type: ignore[arg-type]
