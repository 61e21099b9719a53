"""Attention over clips of differing lengths whose positions stand in one row, clip after clip.

On a CPU it is computed group by group, a group being clips of equal length. A GPU has a kernel for clips of any
lengths (torch.nn.attention.varlen): there all clips are one launch, and the products before it are one. That kernel
takes no bias. So the logarithms of how many positions a thinned one stands for are carried by channels that each head
is widened by: a constant in the queries times the logarithm in the keys is what the bias would have added.

Dimension words in shape comments: clips, positions (encoder), rows (all positions of a batch, clip after clip), tokens
(decoder), heads, head_dim, channels (that carry the logarithms).
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.nn import functional
from torch.nn.attention import varlen as torch_varlen
from torch.nn.attention.varlen import varlen_attn
from transformers.models.whisper.modeling_whisper import WhisperAttention

if TYPE_CHECKING:
    from tmsearch.model.layers import LayerKernels

# A CPU's fused attention takes 2.0 to 2.3 times as long, forward and backward, as three products at a clip's few
# hundred positions (2 cores with AVX512-BF16, 2026-11-24); above this, what the products keep for the backward pass
# grows too large.
EXPLICIT_POSITIONS = 1024
# Flash attention takes heads of a multiple of 8 channels. Two of these carry a logarithm, as a number and its rest in
# the products' format, so that the sum is as exact as a float32's bias; the others are zero.
COUNT_CHANNELS = 8
# What earlier versions of torch lack: the kernel with a scale of one's own, and the one that is given its memory.
HAS_SCALE = "scale" in inspect.signature(varlen_attn).parameters
varlen_attn_out = getattr(torch_varlen, "varlen_attn_out", None)
# Compute capability from which a GPU has flash attention in bfloat16: Ampere's.
FLASH_CAPABILITY = (8, 0)


@dataclass(frozen=True)
class Packed:
    """What the kernel for clips of any lengths is told of a batch's rows."""

    lengths: tuple[int, ...]  # positions of each clip
    longest: int  # of them
    ends: torch.Tensor  # [clips + 1] int32: rows before each clip, and all rows
    channels: torch.Tensor | None  # [rows, 3, 1, channels]: of queries, keys and values; None: every position is one
    no_bias: torch.Tensor  # [d_model] zeros: Whisper's keys have no bias


@dataclass(frozen=True)
class Layout:
    """How the positions of a batch's clips stand in one row."""

    clips: tuple[int, ...]  # of each group of clips of equal length
    positions: tuple[int, ...]  # of each clip, by group
    # By group [positions], or [clips, positions] where clips differ, added to the attention's logits: the logarithm of
    # how many positions each stands for; None: all one.
    log_counts: tuple[torch.Tensor | None, ...]
    packed: Packed | None = None  # None: attention is computed by group

    def split(self, states: torch.Tensor) -> list[torch.Tensor]:
        """`states` [rows, d_model] by group: [clips, positions, d_model]."""
        sizes = [clips * positions for clips, positions in zip(self.clips, self.positions, strict=True)]
        parts = []
        split = torch.split(states, sizes)
        for part, clips, positions in zip(split, self.clips, self.positions, strict=True):
            parts.append(part.view(clips, positions, -1))
        return parts

    @property
    def clip_count(self) -> int:
        """Clips in the batch."""
        return sum(self.clips)


def is_packed(attention: WhisperAttention, device: torch.device) -> bool:
    """Whether attention like `attention` is computed for all clips at once on `device`.

    The kernel takes half-precision products only, and has no dropout.
    """
    if device.type != "cuda" or not torch.is_autocast_enabled("cuda"):
        return False
    if not HAS_SCALE or not torch.backends.cuda.is_flash_attention_available():
        return False
    if attention.training and attention.dropout:
        return False
    return torch.cuda.get_device_capability(device) >= FLASH_CAPABILITY


def products_dtype(weight: torch.Tensor) -> torch.dtype:
    """The format of products with `weight`: autocast's, or its own."""
    device_type = weight.device.type
    return torch.get_autocast_dtype(device_type) if torch.is_autocast_enabled(device_type) else weight.dtype


def count_channels(log_counts: torch.Tensor, head_dim: int, dtype: torch.dtype) -> torch.Tensor:
    """The channels [rows, 3, 1, channels] that raise logits by `log_counts` [rows], float32, in format `dtype`.

    Logits are divided by the root of `head_dim`, so the keys' channels are multiplied by it.
    """
    raised = log_counts.double() * head_dim**0.5
    number = raised.to(dtype)
    channels = torch.zeros(len(raised), 3, 1, COUNT_CHANNELS, dtype=dtype, device=raised.device)
    set_query_channels(channels[:, 0])
    channels[:, 1, 0, 0] = number
    channels[:, 1, 0, 1] = raised - number
    return channels


def set_query_channels(channels: torch.Tensor) -> None:
    """Makes `channels` [..., channels] of zeros those of a query, in place."""
    channels[..., :2] = 1.0


class SharedStates:
    """States that several products take: under autocast they are cast once, and not for each product.

    Their gradients are summed in the format that the states have, as autocast's own casts would sum them.
    """

    def __init__(self, states: torch.Tensor) -> None:
        self.states = states
        self.heads: dict[int, tuple[torch.Tensor, ...]] = {}  # keys and values made for layers to come, by their id
        device_type = states.device.type
        self.cast = states
        if torch.is_autocast_enabled(device_type):
            self.cast = states.detach().to(torch.get_autocast_dtype(device_type))

    def product_input(self) -> torch.Tensor:
        """For one product."""
        if self.cast.dtype == self.states.dtype:
            return self.states
        product_input: torch.Tensor = _CastOnce.apply(self.states, self.cast)  # type: ignore[no-untyped-call]
        return product_input

    def project(self, linears: Sequence[nn.Module]) -> list[torch.Tensor]:
        """The product with each of `linears`; an adapted one casts for itself."""
        products = []
        for linear in linears:
            is_plain = type(linear) is nn.Linear
            products.append(linear(self.product_input() if is_plain else self.states))
        return products


class _CastOnce(torch.autograd.Function):
    """The identity with a cast that was made before."""

    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, cast: torch.Tensor) -> torch.Tensor:
        ctx.dtype = states.dtype
        return cast.detach()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient.to(ctx.dtype), None


def self_attention(
    attention: WhisperAttention, normed: torch.Tensor, layout: Layout, kernels: LayerKernels
) -> torch.Tensor:
    """Of the positions of each clip to each other, `normed` [rows, d_model], before the output's product."""
    linears = (attention.q_proj, attention.k_proj, attention.v_proj)
    if layout.packed is not None:
        packed = layout.packed
        together = kernels.products_together(linears, normed, packed.no_bias)
        together = together.view(len(normed), 3, attention.num_heads, -1)
        query, key, value = kernels.widened(together, packed.channels)  # each [rows, heads, head_dim + channels]
        attended = varlen(attention.head_dim, query, key, value, packed.ends, packed.longest, packed)
        return kernels.narrowed(attended, attention.head_dim)
    projected = SharedStates(normed).project(linears)
    groups = zip(*(layout.split(states) for states in projected), layout.log_counts, strict=True)
    return _concatenate([_attend(attention, *group).flatten(0, 1) for group in groups])


def cross_attention(
    attention: WhisperAttention,
    normed: torch.Tensor,
    encoded: SharedStates,
    layout: Layout,
    token_ends: torch.Tensor | None,
    kernels: LayerKernels,
) -> torch.Tensor:
    """Of tokens, `normed` [clips, tokens, d_model], to their clip's positions, before the output's product.

    `encoded` are the encoder's states [rows, d_model]; `token_ends` [clips + 1] int32 are the tokens before each clip,
    and all tokens, where attention is packed.
    """
    query = kernels.product(attention.q_proj, normed)  # [clips, tokens, d_model]
    if layout.packed is not None:
        assert token_ends is not None
        packed = layout.packed
        clips, tokens, _ = query.shape
        key, value = kernels.encoded_heads(attention, encoded, packed)  # each [rows, heads, head_dim + channels]
        query_channels = packed.channels[:1, :1] if packed.channels is not None else None
        (query,) = kernels.widened(query.view(clips * tokens, 1, attention.num_heads, -1), query_channels)
        attended = varlen(attention.head_dim, query, key, value, token_ends, tokens, packed)
        return kernels.narrowed(attended, attention.head_dim).view(clips, tokens, -1)
    key, value = encoded.project((attention.k_proj, attention.v_proj))
    queries = torch.split(query, list(layout.clips))
    groups = zip(queries, layout.split(key), layout.split(value), layout.log_counts, strict=True)
    return _concatenate([_attend(attention, *group) for group in groups])


def encoded_heads(
    layers: Sequence[WhisperAttention], encoded: SharedStates, packed: Packed, kernels: LayerKernels
) -> tuple[torch.Tensor, ...]:
    """For cross-attention in `layers`: of each its keys and its values, [rows, heads, head_dim + channels]."""
    linears = [linear for layer in layers for linear in (layer.k_proj, layer.v_proj)]
    together = kernels.products_together(linears, encoded.product_input(), packed.no_bias)
    together = together.view(len(together), len(linears), layers[0].num_heads, -1)
    return kernels.widened(together, None if packed.channels is None else packed.channels[:, 1:])


def causal_attention(
    attention: WhisperAttention, normed: torch.Tensor, layout: Layout, kernels: LayerKernels
) -> torch.Tensor:
    """Of each token to itself and those before it, `normed` [clips, tokens, d_model], before the output's product."""
    linears = (attention.q_proj, attention.k_proj, attention.v_proj)
    if layout.packed is not None:
        query, key, value = kernels.products_together(linears, normed, layout.packed.no_bias).chunk(3, dim=-1)
    else:
        query, key, value = SharedStates(normed).project(linears)
    return _attend(attention, query, key, value, causal=True)


def varlen(
    head_dim: int,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    query_ends: torch.Tensor,
    longest_query: int,
    packed: Packed,
) -> torch.Tensor:
    """Attention clip by clip, of and to heads [..., heads, head_dim + channels], shaped as the query."""
    ends = (query_ends, packed.ends, longest_query, packed.longest)
    if torch.is_grad_enabled() and query.is_cuda and not torch.compiler.is_compiling():
        # What varlen_attn calls. Of its by-products it would fill the gradients with zeros, two launches each time.
        flash = torch.ops.aten._flash_attention_forward
        attended: Any = flash(query, key, value, *ends, 0.0, False, False, scale=head_dim**-0.5)[0]
    elif torch.is_grad_enabled() or varlen_attn_out is None:
        attended = varlen_attn(query, key, value, *ends, scale=head_dim**-0.5)
    else:
        attended = torch.empty(query.shape, dtype=query.dtype, device=query.device)
        varlen_attn_out(attended, query, key, value, *ends, scale=head_dim**-0.5)  # spares a launch
    return cast(torch.Tensor, attended)


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
        mask = by_clip(log_counts.to(query.dtype)).expand(
            -1, 1, query.shape[2], -1
        )  # [clips or 1, 1, tokens, positions]
    if query.device.type == "cpu" and not causal and key.shape[2] <= EXPLICIT_POSITIONS:
        attended = _explicit_attention(query, key, value, mask, dropout)
    else:
        attended = functional.scaled_dot_product_attention(query, key, value, mask, dropout, causal)
    return attended.transpose(1, 2).flatten(2)


def by_clip(log_counts: torch.Tensor) -> torch.Tensor:
    """`log_counts` [positions] or [clips, positions] as a bias of logits, [clips or 1, 1, 1, positions]."""
    return log_counts.view(-1, 1, 1, log_counts.shape[-1])


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
