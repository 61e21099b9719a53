"""The weights of a step's products: their casts, kept from step to step, or weights that need no cast.

Dimension words in shape comments: rows (all positions or tokens of a batch), inputs and outputs of a linear layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional


@dataclass(frozen=True)
class TrainedPart:
    """One layer's trained weight with what belongs to it, all of them [outputs, inputs]."""

    weight: torch.Tensor  # the parameter, float32
    cast: torch.Tensor  # the products' format; to be written whenever the weight is
    gradient: torch.Tensor  # of the products' format; float32 after several micro-batches


class ProductWeight:
    """The weights of linear layers whose products are made together.

    Shapes: inputs [..., inputs]; rows, the gradient of the product, [rows, outputs]; columns, the inputs, [rows,
    inputs].
    """

    def __init__(self, linears: Sequence[nn.Linear], dtype: torch.dtype) -> None:
        self.linears = linears
        self.dtype = dtype  # of the products
        self.sizes = [len(linear.weight) for linear in linears]  # outputs of each
        self.exact_dtype = linears[0].weight.dtype
        self.is_trained = any(linear.weight.requires_grad for linear in linears)

    @property
    def parameters(self) -> list[torch.Tensor]:
        """Weights and biases of all its layers."""
        both = [(linear.weight, linear.bias) for linear in self.linears]
        return [parameter for pair in both for parameter in pair if parameter is not None]

    def product(self, inputs: torch.Tensor) -> torch.Tensor:
        """[..., outputs], the layers' side by side."""
        raise NotImplementedError

    def inputs_gradient(self, rows: torch.Tensor) -> torch.Tensor:
        """The gradient of the inputs, [rows, inputs]."""
        raise NotImplementedError

    def add_gradient(self, rows: torch.Tensor, columns: torch.Tensor) -> None:
        """Adds the gradient of the weights."""
        raise NotImplementedError

    def parameter_gradients(self, rows: torch.Tensor) -> list[torch.Tensor | None]:
        """In the order of `parameters`: biases' sums of `rows`, nothing for weights."""
        is_trained = [linear.bias is not None and linear.bias.requires_grad for linear in self.linears]
        sums: Sequence[torch.Tensor] = ()
        if any(is_trained):
            sums = torch.split(rows.sum(0, dtype=self.exact_dtype), self.sizes)
        gradients: list[torch.Tensor | None] = []
        for index, linear in enumerate(self.linears):
            gradients.append(None)
            if linear.bias is not None:
                gradients.append(sums[index] if is_trained[index] else None)
        return gradients


class OwnWeight(ProductWeight):
    """Weights that have the products' format themselves: products are written side by side, no weight is copied."""

    def product(self, inputs: torch.Tensor) -> torch.Tensor:
        if len(self.linears) == 1:
            return functional.linear(inputs, self.linears[0].weight, self.linears[0].bias)
        rows = inputs.flatten(0, -2)
        product = rows.new_empty(len(rows), sum(self.sizes))
        for linear, part in zip(self.linears, torch.split(product, self.sizes, dim=1), strict=True):
            if linear.bias is None:
                torch.mm(rows, linear.weight.t(), out=part)
            else:
                torch.addmm(linear.bias, rows, linear.weight.t(), out=part)
        return product.view(*inputs.shape[:-1], -1)

    def inputs_gradient(self, rows: torch.Tensor) -> torch.Tensor:
        parts = torch.split(rows, self.sizes, dim=1)
        gradient = parts[0] @ self.linears[0].weight
        for linear, part in zip(self.linears[1:], parts[1:], strict=True):
            gradient.addmm_(part, linear.weight)
        return gradient

    def add_gradient(self, rows: torch.Tensor, columns: torch.Tensor) -> None:
        for linear, part in zip(self.linears, torch.split(rows, self.sizes, dim=1), strict=True):
            if not linear.weight.requires_grad:
                continue
            if linear.weight.grad is None:
                linear.weight.grad = part.t() @ columns
            else:
                linear.weight.grad.addmm_(part.t(), columns)


class CastWeight(ProductWeight):
    """The weights and biases of linear layers, side by side, in the format of their products.

    It is made anew where a weight was changed by anyone who did not say so: tensors count their changes.
    """

    def __init__(self, linears: Sequence[nn.Linear], dtype: torch.dtype) -> None:
        super().__init__(linears, dtype)
        first = linears[0].weight
        self.weight = torch.empty(sum(self.sizes), first.shape[1], dtype=dtype, device=first.device)
        self.bias: torch.Tensor | None = None  # [outputs]; zeros for a layer without one
        if any(linear.bias is not None for linear in linears):
            self.bias = self.weight.new_zeros(len(self.weight))
        self.gradient: torch.Tensor | None = None  # [outputs, inputs]
        self._versions: list[int] = []  # of the parameters as they were cast

    def is_stale(self) -> bool:
        """Whether a weight or bias was changed since the casts were written."""
        return self._versions != [parameter._version for parameter in self.parameters]

    def note_written(self) -> None:
        """To be called when all casts are those of the weights and biases again."""
        self._versions = [parameter._version for parameter in self.parameters]

    def bias_casts(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Each layer's bias with its part of the casts."""
        if self.bias is None:
            return
        for linear, part in zip(self.linears, torch.split(self.bias, self.sizes), strict=True):
            if linear.bias is not None:
                yield linear.bias.detach(), part

    def casts(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Each layer's weight and bias with its part of the casts."""
        for linear, part in zip(self.linears, torch.split(self.weight, self.sizes), strict=True):
            yield linear.weight.detach(), part
        yield from self.bias_casts()

    def product(self, inputs: torch.Tensor) -> torch.Tensor:
        return functional.linear(inputs, self.weight, self.bias)

    def inputs_gradient(self, rows: torch.Tensor) -> torch.Tensor:
        return rows @ self.weight

    def add_gradient(self, rows: torch.Tensor, columns: torch.Tensor) -> None:
        """Sums have the weights' format, as autograd's have."""
        gradient = rows.t() @ columns
        if self.gradient is None:
            self.gradient = gradient
        elif self.gradient.dtype == self.exact_dtype:
            self.gradient.add_(gradient)
        else:
            self.gradient = self.gradient.to(self.exact_dtype).add_(gradient)

    def trained_parts(self) -> Iterator[TrainedPart]:
        """Of each layer; none where no gradient reached it."""
        if self.gradient is None:
            return
        parts = (torch.split(self.weight, self.sizes), torch.split(self.gradient, self.sizes))
        for linear, cast_part, gradient in zip(self.linears, *parts, strict=True):
            if linear.weight.requires_grad:
                yield TrainedPart(linear.weight, cast_part, gradient)
