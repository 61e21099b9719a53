"""Kernels of a training step on a GPU that spare casts and passes over memory.

Autocast casts each float32 weight to bfloat16 in every forward pass, each weight's gradient back to float32, and the
states before each product. `FusedKernels` keep the cast weights, which the optimizer writes (optim/mixed_precision.py),
leave gradients of weights in bfloat16, in which products make them, and join sums, layer norms and casts between two
products. The numbers are those of the modules but for the order in which a few are rounded.

Dimension words in shape comments: rows (all positions or tokens of a batch), inputs and outputs of a linear layer.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import nn
from torch.nn import functional
from transformers import WhisperForConditionalGeneration
from transformers.models.whisper.modeling_whisper import WhisperAttention

from tmsearch import devices
from tmsearch.config import TrainConfig
from tmsearch.model import attention
from tmsearch.model.attention import Packed, SharedStates
from tmsearch.model.kernels import bundles, formulas
from tmsearch.model.kernels.weights import CastWeight, OwnWeight, ProductWeight, WeightBundle
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
        # Cross-attention layers whose keys and values are one product, by the id of each.
        self._cross_groups: dict[int, list[WhisperAttention]] = {}
        self._compiles = True  # layer norms; False once that failed

    def prepare(self, model: WhisperForConditionalGeneration, is_recomputed: bool) -> None:
        """Lays the trained weights of some layers side by side each, and joins their products of the same states.

        Args:
            model: With its adapters, and what is trained decided.
            is_recomputed: Whether layers are run again for their gradients, each by itself.
        """
        is_joined = not is_recomputed and not model.model.decoder.layerdrop
        for group in bundles.groups_of(model, self._dtype, is_joined):
            self._bundle(group.products)
            if len(group.cross) > 1:
                self._cross_groups.update({id(layer): group.cross for layer in group.cross})

    def _bundle(self, products: Sequence[Sequence[nn.Linear]]) -> None:
        bundle = WeightBundle(products, self._dtype)
        start = 0
        for linears in products:
            weight = CastWeight(linears, self._dtype, bundle, start)
            self.weights[id(linears[0])] = weight
            start += weight.weight.numel()
            self._cast([weight])

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
        if key not in self.weights and not bundles.needs_cast(linears[0].weight, self._dtype):
            if key not in self._own:
                self._own[key] = OwnWeight(linears, self._dtype)
            return self._own[key]
        if key not in self.weights:
            self.weights[key] = CastWeight(linears, self._dtype)
            self._cast([self.weights[key]])
        return self.weights[key]

    def cast_of(self, linear: nn.Linear) -> CastWeight | None:
        """The cast of a trained layer's weight, which keeps its gradient; None where it needs none."""
        weight = self._weight([linear])
        return weight if isinstance(weight, CastWeight) and weight.is_trained else None

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

    def encoded_heads(self, layer: WhisperAttention, encoded: SharedStates, packed: Packed) -> tuple[torch.Tensor, ...]:
        group = self._cross_groups.get(id(layer))
        if group is None:
            return super().encoded_heads(layer, encoded, packed)
        if id(layer) not in encoded.heads:
            heads = attention.encoded_heads(group, encoded, packed, self)
            for index, member in enumerate(group):
                encoded.heads[id(member)] = heads[2 * index : 2 * index + 2]
        return encoded.heads.pop(id(layer))

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

    def keep_gradient_memory(self) -> None:
        """Lets gradients of one pass be from now on where they are now, as a captured graph needs them."""
        for weight in self._all():
            weight.keep_gradient_memory()

    def with_gradient(self) -> list[ProductWeight]:
        """The weights that have one."""
        return [weight for weight in self._all() if weight.gradients()]

    def drop_gradients(self) -> None:
        """As an optimizer's zero_grad."""
        for weight in self._all():
            weight.drop_gradient()

    def _all(self) -> Iterator[ProductWeight]:
        yield from self.weights.values()
        yield from self._own.values()


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
    """LayerKernels.widened, whose gradients are put side by side in one pass.

    `channels` may be of as many parts as are repeated in `heads`: of one layer's keys and values, say, for many.
    """

    @staticmethod
    def forward(ctx: Any, heads: torch.Tensor, channels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        ctx.head_dim = heads.shape[-1]
        repeated = heads.view(
            len(heads), -1, channels.shape[1], *heads.shape[2:]
        )  # [rows, layers, parts, heads, head_dim]
        both = [repeated, channels[:, None].expand(*repeated.shape[:-1], -1)]
        return torch.cat(both, dim=-1).flatten(1, 2).unbind(1)

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
