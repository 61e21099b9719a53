"""Kernels of a training step on a GPU that spare casts and passes over memory.

Autocast casts each float32 weight to bfloat16 in every forward pass, each weight's gradient back to float32, and the
states before each product. `FusedKernels` keep the cast weights, which the optimizer writes (optim/mixed_precision.py),
leave gradients of weights in bfloat16, in which products make them, and join sums, layer norms and casts between two
products. The numbers are those of the modules but for the order in which a few are rounded.

Dimension words in shape comments: rows (all positions or tokens of a batch), inputs and outputs of a linear layer.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional

from tmsearch import devices
from tmsearch.config import TrainConfig
from tmsearch.model.kernels import formulas
from tmsearch.model.kernels.weights import CastWeight, OwnWeight, ProductWeight
from tmsearch.model.layers import EAGER, LayerKernels, Layers, all_plain, eager_layers

_log = logging.getLogger(__name__)


class FusedKernels(LayerKernels):
    """With weights cast once; gradients of the weights are kept here and not in the parameters' `grad`.

    Weights that have the products' format are taken as they are, and so are their gradients. A layer is always given
    together with the same other ones. What is adapted is left to its modules.
    """

    def __init__(self, dtype: torch.dtype = torch.bfloat16) -> None:
        self._dtype = dtype
        self.weights: dict[int, CastWeight] = {}  # by the id of their first layer
        self._own: dict[int, OwnWeight] = {}  # likewise
        self._nothing: torch.Tensor | None = None  # [1], a zero
        self._compiles = True  # layer norms; False once that failed

    def product(self, linear: nn.Module, states: torch.Tensor) -> torch.Tensor:
        if not all_plain([linear]):
            return super().product(linear, states)
        return self._product([linear], states, is_gelu=False)

    def products_together(
        self, linears: Sequence[nn.Module], states: torch.Tensor, no_bias: torch.Tensor
    ) -> torch.Tensor:
        if not all_plain(linears):
            return super().products_together(linears, states, no_bias)
        return self._product(linears, states, is_gelu=False)

    def gelu_product(self, linear: nn.Module, states: torch.Tensor) -> torch.Tensor:
        if not all_plain([linear]):
            return super().gelu_product(linear, states)
        return self._product([linear], states, is_gelu=True)

    def _product(self, linears: Sequence[nn.Module], states: torch.Tensor, is_gelu: bool) -> torch.Tensor:
        weight = self._weight(cast(Sequence[nn.Linear], linears))
        product: torch.Tensor = _Product.apply(states, weight, is_gelu, *weight.parameters)  # type: ignore[no-untyped-call]
        return product

    def _weight(self, linears: Sequence[nn.Linear]) -> ProductWeight:
        key = id(linears[0])
        if linears[0].weight.dtype == self._dtype:
            if key not in self._own:
                self._own[key] = OwnWeight(linears, self._dtype)
            return self._own[key]
        if key not in self.weights:
            self.weights[key] = CastWeight(linears, self._dtype)
            self._cast([self.weights[key]])
        return self.weights[key]

    def add_norm(
        self, norm: nn.LayerNorm, states: torch.Tensor, added: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self._compiles:
            return super().add_norm(norm, states, added)
        settings = (norm.weight, norm.bias, norm.eps, self._dtype)
        try:
            if added is None:
                return states, _Norm.apply(states, *settings)  # type: ignore[no-untyped-call]
            both: tuple[torch.Tensor, torch.Tensor] = _AddNorm.apply(states, added, *settings)  # type: ignore[no-untyped-call]
        except torch._dynamo.exc.TorchDynamoException as error:
            _log.warning("layer norms could not be compiled (%s); going on without", str(error)[:200])
            self._compiles = False
            return super().add_norm(norm, states, added)
        return both

    def widened(self, heads: torch.Tensor, channels: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        if channels is None:
            return super().widened(heads, channels)
        parts: tuple[torch.Tensor, ...] = _Widened.apply(heads, channels)  # type: ignore[no-untyped-call]
        return parts

    def narrowed(self, heads: torch.Tensor, head_dim: int) -> torch.Tensor:
        if heads.shape[-1] == head_dim:
            return super().narrowed(heads, head_dim)
        if self._nothing is None:
            self._nothing = heads.new_zeros(1)
        narrowed: torch.Tensor = _Narrowed.apply(heads, head_dim, self._nothing)  # type: ignore[no-untyped-call]
        return narrowed

    def refresh(self) -> None:
        """Casts the weights again that were changed since, as by a checkpoint that was loaded."""
        self._cast([weight for weight in self.weights.values() if weight.is_stale()])

    @torch.no_grad()
    def _cast(self, weights: Sequence[CastWeight]) -> None:
        _copy_all([pair for weight in weights for pair in weight.casts()])
        for weight in weights:
            weight.note_written()

    @torch.no_grad()
    def note_updated(self, weights: Sequence[CastWeight]) -> None:
        """To be called when the casts of `weights` were written, and their biases changed, which are cast here."""
        _copy_all([pair for weight in weights for pair in weight.bias_casts()])
        for weight in weights:
            weight.note_written()

    def drop_gradients(self) -> None:
        """As an optimizer's zero_grad."""
        for weight in self.weights.values():
            weight.gradient = None


def layers_for(config: TrainConfig, device: torch.device, width: int) -> Layers:
    """How the layers of a model of `width` (d_model) are run on `device` where nothing is trained."""
    return eager_layers(FusedKernels()) if devices.uses_fused_kernels(config, device, width) else EAGER


class _Product(torch.autograd.Function):
    """states @ weight.T + bias, after GELU or not.

    Its parameters are given so that autograd sees them. After GELU what came before it is kept, and not both.
    """

    @staticmethod
    def forward(
        ctx: Any, states: torch.Tensor, weight: ProductWeight, is_gelu: bool, *parameters: torch.Tensor
    ) -> torch.Tensor:
        inputs = states.to(weight.dtype)  # [..., inputs]
        ctx.save_for_backward(inputs)
        ctx.weight = weight
        ctx.is_gelu = is_gelu
        ctx.dtype = states.dtype
        with torch.autocast(states.device.type, enabled=False):
            return weight.product(functional.gelu(inputs) if is_gelu else inputs)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        weight: ProductWeight = ctx.weight
        (inputs,) = ctx.saved_tensors
        rows = gradient.flatten(0, -2)  # [rows, outputs]
        columns = inputs.flatten(0, -2)  # [rows, inputs]
        inputs_gradient = weight.inputs_gradient(rows) if ctx.needs_input_grad[0] or ctx.is_gelu else None
        if ctx.is_gelu:
            columns, inputs_gradient = formulas.compiled_or_plain(formulas.gelu_backward, columns, inputs_gradient)
        if weight.is_trained:
            weight.add_gradient(rows, columns)
        if inputs_gradient is not None:
            inputs_gradient = inputs_gradient.to(ctx.dtype).view(inputs.shape)
        return (inputs_gradient, None, None, *weight.parameter_gradients(rows))


class _Norm(torch.autograd.Function):
    """A layer norm (Ba et al. 2016) of float32 states, in the format of the product that follows."""

    @staticmethod
    def forward(
        ctx: Any, states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, epsilon: float, dtype: torch.dtype
    ) -> torch.Tensor:
        rows = states.flatten(0, -2)  # [rows, d_model]
        normed, mean, scale = formulas.compiled(formulas.norm_forward)(rows, weight, bias, epsilon, dtype)
        ctx.save_for_backward(rows, weight, mean, scale)
        return cast(torch.Tensor, normed.view(states.shape))

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows, weight, mean, scale = ctx.saved_tensors
        states, weight, bias = formulas.compiled_or_plain(
            formulas.norm_backward, gradient.flatten(0, -2), rows, weight, mean, scale
        )
        return states.view(gradient.shape), weight, bias, None, None


class _AddNorm(torch.autograd.Function):
    """A sum and its layer norm: the sum float32, the norm and the gradient of what was added in a product's format."""

    @staticmethod
    def forward(
        ctx: Any,
        states: torch.Tensor,
        added: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        epsilon: float,
        dtype: torch.dtype,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        rows = (states.flatten(0, -2), added.flatten(0, -2))  # each [rows, d_model]
        summed, normed, mean, scale = formulas.compiled(formulas.add_norm_forward)(*rows, weight, bias, epsilon, dtype)
        ctx.save_for_backward(summed, weight, mean, scale)
        ctx.added_dtype = added.dtype
        return summed.view(states.shape), normed.view(states.shape)

    @staticmethod
    def backward(ctx: Any, of_sum: torch.Tensor, of_norm: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows, weight, mean, scale = ctx.saved_tensors
        flat = (of_norm.flatten(0, -2), rows, of_sum.flatten(0, -2))  # each [rows, d_model]
        states, added, weight, bias = formulas.compiled_or_plain(
            formulas.add_norm_backward, *flat, weight, mean, scale, ctx.added_dtype
        )
        return states.view(of_sum.shape), added.view(of_sum.shape), weight, bias, None, None


class _Widened(torch.autograd.Function):
    """LayerKernels.widened, whose gradients are put side by side in one pass."""

    @staticmethod
    def forward(ctx: Any, heads: torch.Tensor, channels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        ctx.head_dim = heads.shape[-1]
        return torch.cat([heads, channels.expand(*heads.shape[:-1], -1)], dim=-1).unbind(1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return torch.stack([gradient[..., : ctx.head_dim] for gradient in gradients], dim=1), None


class _Narrowed(torch.autograd.Function):
    """LayerKernels.narrowed, whose gradient is filled up in one pass."""

    @staticmethod
    def forward(ctx: Any, heads: torch.Tensor, head_dim: int, nothing: torch.Tensor) -> torch.Tensor:
        ctx.shape = heads.shape
        ctx.nothing = nothing
        return heads[..., :head_dim].flatten(1)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        rows, heads, width = ctx.shape
        by_head = gradient.reshape(rows, heads, -1)
        nothing = ctx.nothing.expand(rows, heads, width - by_head.shape[2])
        return torch.cat([by_head, nothing], dim=2), None, None


def _copy_all(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """Copies the first of each pair into its second."""
    if pairs:
        torch._foreach_copy_([target for _, target in pairs], [source for source, _ in pairs])
