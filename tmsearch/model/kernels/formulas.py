"""What is compiled into kernels between two products: sums, layer norms and GELU with their gradients.

Dimension words in shape comments: rows (all positions or tokens of a batch).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional


def norm_forward(
    states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, epsilon: float, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """States [rows, d_model] after a layer norm in `dtype`, with their mean and the factor of their norm, [rows, 1]."""
    mean = states.mean(-1, keepdim=True)
    centred = states - mean
    scale = torch.rsqrt((centred * centred).mean(-1, keepdim=True) + epsilon)
    return (centred * scale * weight + bias).to(dtype), mean, scale


def norm_backward(
    gradient: torch.Tensor, states: torch.Tensor, weight: torch.Tensor, mean: torch.Tensor, scale: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The gradients of norm_forward's states [rows, d_model], weight and bias [d_model]."""
    gradient = gradient.to(states.dtype)
    standard = (states - mean) * scale
    scaled = gradient * weight
    along = (scaled * standard).mean(-1, keepdim=True)
    of_states = scale * (scaled - scaled.mean(-1, keepdim=True) - standard * along)
    return of_states, (gradient * standard).sum(0), gradient.sum(0)


def add_norm_forward(
    states: torch.Tensor,
    added: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    epsilon: float,
    dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A sum [rows, d_model], and what norm_forward gives of it."""
    summed = states + added
    return (summed, *norm_forward(summed, weight, bias, epsilon, dtype))


def add_norm_backward(
    of_norm: torch.Tensor,
    summed: torch.Tensor,
    of_sum: torch.Tensor,
    weight: torch.Tensor,
    mean: torch.Tensor,
    scale: torch.Tensor,
    added_dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """The gradients of add_norm_forward's states, added [rows, d_model], weight and bias [d_model]."""
    of_states, of_weight, of_bias = norm_backward(of_norm, summed, weight, mean, scale)
    of_states = of_states + of_sum
    return of_states, of_states.to(added_dtype), of_weight, of_bias


def gelu_backward(states: torch.Tensor, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """GELU of `states` again, and the gradient of `states`, both like it."""
    return functional.gelu(states), torch.ops.aten.gelu_backward(gradient, states)


@functools.cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` as few kernels, for any number of rows: the first dimension of its matrices, and none else."""
    kernel = torch.compile(function)

    def run(*arguments: Any) -> Any:
        # Detached: whether a tensor wants gradients, or is part of another, would each be compiled for anew.
        detached = [argument.detach() if isinstance(argument, torch.Tensor) else argument for argument in arguments]
        for argument in detached:
            if isinstance(argument, torch.Tensor) and argument.ndim == 2:
                torch._dynamo.maybe_mark_dynamic(argument, 0)
        return kernel(*detached)

    return run


def compiled_or_plain(function: Callable[..., Any], *arguments: Any) -> Any:
    """In a backward pass, which must go on: what `function` returns, compiled if that is possible."""
    try:
        return compiled(function)(*arguments)
    except torch._dynamo.exc.TorchDynamoException:
        return function(*arguments)
