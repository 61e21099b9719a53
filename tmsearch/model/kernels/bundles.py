"""Which weights of a Whisper lie side by side, and which of their products are one: told to FusedKernels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn
from transformers import WhisperForConditionalGeneration
from transformers.models.whisper.modeling_whisper import WhisperAttention, WhisperDecoderLayer, WhisperEncoderLayer

from tmsearch.model.layers import all_plain

# Layers whose weights are updated by one kernel. Their gradients' memory is taken at once: large-v3's decoder has 26
# million such numbers a layer, .42 GB in bfloat16 for eight.
LAYERS = 8


@dataclass(frozen=True)
class Group:
    """Some layers of one stack."""

    products: list[list[nn.Linear]]  # the layers of each product
    cross: list[WhisperAttention]  # cross-attention layers whose keys and values are one of these products; or none


def groups_of(model: WhisperForConditionalGeneration, dtype: torch.dtype, is_joined: bool) -> Iterator[Group]:
    """The trained products of each stack, some layers at a time; without those that are adapted or need no cast.

    Args:
        model: With its adapters, and what is trained decided.
        dtype: That of products.
        is_joined: Whether keys and values of the encoder's states are made for several layers at once.
    """
    for stack in (model.model.encoder, model.model.decoder):
        for first in range(0, len(stack.layers), LAYERS):
            group = _group(list(stack.layers[first : first + LAYERS]), dtype, is_joined)
            if group.products:
                yield group


def _group(layers: Sequence[nn.Module], dtype: torch.dtype, is_joined: bool) -> Group:
    products: list[Sequence[nn.Module]] = []
    cross: list[WhisperAttention] = []
    for layer in layers:
        assert isinstance(layer, WhisperEncoderLayer | WhisperDecoderLayer)
        own = layer.self_attn
        products += [[own.q_proj, own.k_proj, own.v_proj], [own.out_proj]]
        if isinstance(layer, WhisperDecoderLayer):
            cross.append(layer.encoder_attn)
            products += [[layer.encoder_attn.q_proj], [layer.encoder_attn.out_proj]]
        products += [[layer.fc1], [layer.fc2]]
    by_layer = [[layer.k_proj, layer.v_proj] for layer in cross]
    together = [linear for linears in by_layer for linear in linears]
    if is_joined and together and _is_taken(together, dtype):
        products.append(together)
    else:
        products += by_layer
        cross = []
    return Group([cast("list[nn.Linear]", linears) for linears in products if _is_taken(linears, dtype)], cross)


def _is_taken(linears: Sequence[nn.Module], dtype: torch.dtype) -> bool:
    if not all_plain(linears):
        return False
    weights = [cast(torch.Tensor, linear.weight) for linear in linears]
    return all(weight.requires_grad and needs_cast(weight, dtype) for weight in weights)


def needs_cast(weight: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether `weight` lacks the format of products."""
    return weight.dtype != dtype
