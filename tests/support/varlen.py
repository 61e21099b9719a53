"""On a CPU: torch's kernel for attention of clips of any lengths, which only GPUs have."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional


def clip_by_clip(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    query_ends: torch.Tensor,
    key_ends: torch.Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float,
) -> torch.Tensor:
    """torch.nn.attention.varlen.varlen_attn."""
    attended = []
    ends = zip(query_ends[:-1], query_ends[1:], key_ends[:-1], key_ends[1:], strict=True)
    for first_query, last_query, first_key, last_key in ends:
        parts = (query[first_query:last_query], key[first_key:last_key], value[first_key:last_key])
        assert len(parts[0]) <= max_q
        assert len(parts[1]) <= max_k
        heads = [part.transpose(0, 1) for part in parts]
        attended.append(functional.scaled_dot_product_attention(*heads, scale=scale).transpose(0, 1))
    return torch.cat(attended)


def clip_by_clip_into(out: torch.Tensor, *arguments: Any, scale: float) -> None:
    """The same into given memory; rows behind the last clip stay as they are."""
    out.copy_(clip_by_clip(*arguments, scale=scale))


def by_mask(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    query_ends: torch.Tensor,
    key_ends: torch.Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float,
) -> torch.Tensor:
    """The same without reading where clips end, as the kernel does it: a recording of it holds for other ends.

    What is behind the first `max_q` of a clip is not computed, but left as its memory was.
    """
    query_clips = torch.searchsorted(query_ends[1:], torch.arange(len(query), dtype=torch.int32), right=True)
    key_clips = torch.searchsorted(key_ends[1:], torch.arange(len(key), dtype=torch.int32), right=True)
    logits = torch.einsum("qhd,khd->hqk", query, key) * scale
    weights = logits.masked_fill(query_clips[:, None] != key_clips, -torch.inf).softmax(-1)
    attended = torch.einsum("hqk,khd->qhd", weights, value)
    in_clip = torch.arange(len(query)) - query_ends[query_clips.clamp(max=len(query_ends) - 2)]
    return attended.masked_fill((in_clip >= max_q)[:, None, None], torch.nan)
