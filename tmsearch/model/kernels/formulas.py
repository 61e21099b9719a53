"""What is compiled into kernels between two products: sums, layer norms and GELU with their gradients.

Dimension words in shape comments: rows (all positions or tokens of a batch).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

# Of torch's compiler. Sums over rows beside means over columns are one pass where rows are many (4,096 in torch 2.13,
# which compiles once more for the other case); of fewer rows, which a cache still holds, they are read again, in the
# same launch by this option.
_OPTIONS: dict[str, str | int | bool | Callable[..., Any]] = {"combo_kernels": True}


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
    # In the weight's format: autograd would cast each by a launch of its own.
    return of_states, (gradient * standard).sum(0).to(weight.dtype), gradient.sum(0).to(weight.dtype)


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


def cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, share: torch.Tensor, smoothing: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The losses' sum times `share`, [], and its gradient by the logits, like them.

    Args:
        logits: [labels, vocabulary].
        labels: Token ids, [labels, 1].
        share: [] on the CPU; a Python number that changes would be compiled in anew.
        smoothing: Probability mass spread evenly over the vocabulary.
    """
    exact = logits.to(torch.promote_types(logits.dtype, torch.float32))
    log_normalizer = exact.logsumexp(-1, keepdim=True)  # [labels, 1]
    is_label = torch.arange(exact.shape[1], device=exact.device) == labels
    right = torch.where(is_label, exact, 0.0).sum(-1)
    losses = log_normalizer[:, 0] - (1 - smoothing) * right
    target = is_label.to(exact.dtype) * (1 - smoothing)
    if smoothing:
        losses = losses - smoothing * exact.mean(-1)
        target = target + smoothing / exact.shape[1]
    gradient = ((exact - log_normalizer).exp() - target) * share
    return losses.sum() * share, gradient.to(logits.dtype)


@functools.cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` as few kernels, for any number of rows: the first dimension of its matrices, and none else."""
    kernel = torch.compile(function, options=_OPTIONS if hasattr(torch._inductor.config, "combo_kernels") else None)

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
