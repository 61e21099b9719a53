"""The weights of a step's products: their casts, kept from step to step, or weights that need no cast.

Dimension words in shape comments: rows (all positions or tokens of a batch), inputs and outputs of a linear layer.
"""

from __future__ import annotations

import math
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
    bundle: WeightBundle | None  # where all three lie; None: each for itself
    start: int  # in the bundle

    @property
    def end(self) -> int:
        """Where the next weight of the bundle starts."""
        return self.start + self.weight.numel()


class WeightBundle:
    """Weights of many products one behind the other, their casts and gradients likewise: one kernel updates them all.

    The weights are moved to memory of the bundle when it is made.
    """

    def __init__(self, products: Sequence[Sequence[nn.Linear]], dtype: torch.dtype) -> None:
        """`products`: the layers of each; `dtype`: that of products."""
        weights = [linear.weight for linears in products for linear in linears]
        self.exact = weights[0].new_empty(sum(weight.numel() for weight in weights), requires_grad=False)  # [numbers]
        self.cast = torch.empty_like(self.exact, dtype=dtype)
        self._gradient: torch.Tensor | None = None  # [numbers]
        self._kept: torch.Tensor | None = None  # memory for it that stays where it is
        self.members: list[CastWeight] = []
        start = 0
        for weight in weights:
            place = self.exact[start : start + weight.numel()].view_as(weight)
            place.copy_(weight.detach())
            weight.data = place
            start += weight.numel()

    def gradient(self) -> torch.Tensor:
        """[numbers], undefined where nothing was written since they were dropped."""
        if self._gradient is None:
            self._gradient = torch.empty_like(self.cast) if self._kept is None else self._kept
        return self._gradient

    def keep_memory(self) -> None:
        """Lets gradients of one pass be from now on where they are now."""
        if self._kept is None:
            self._kept = self._gradient

    def make_sums(self) -> None:
        """Keeps gradients as they are summed over micro-batches from now on: in the weights' format."""
        self._gradient = self.gradient().to(self.exact.dtype)
        for member in self.members:
            member.move_gradient()

    def drop_gradients(self) -> None:
        """Gives their memory back, unless it is kept."""
        self._gradient = None


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
        self.biases: list[torch.Tensor | None] = [linear.bias for linear in linears]
        pairs = [(linear.weight, linear.bias) for linear in linears]
        # Weights and biases of all layers. Listed once, since a module looks each up by its name.
        self.parameters: list[torch.Tensor] = [tensor for pair in pairs for tensor in pair if tensor is not None]

    def product(self, inputs: torch.Tensor) -> torch.Tensor:
        """[..., outputs], the layers' side by side."""
        raise NotImplementedError

    def inputs_gradient(self, rows: torch.Tensor) -> torch.Tensor:
        """The gradient of the inputs, [rows, inputs]."""
        raise NotImplementedError

    def add_gradient(self, rows: torch.Tensor, columns: torch.Tensor) -> None:
        """Adds the gradient of the weights."""
        raise NotImplementedError

    def gradients(self) -> list[torch.Tensor]:
        """Those of the weights, as far as there are any."""
        raise NotImplementedError

    def keep_gradient_memory(self) -> None:
        """Lets gradients of one pass be from now on where they are now."""
        raise NotImplementedError

    def note_gradient(self) -> None:
        """To be called when kept memory was written by a kernel that was not launched from here."""
        raise NotImplementedError

    def drop_gradient(self) -> None:
        """As an optimizer's zero_grad. Gives its memory back, unless it is kept."""
        raise NotImplementedError

    def parameter_gradients(self, rows: torch.Tensor) -> list[torch.Tensor | None]:
        """In the order of `parameters`: biases' sums of `rows`, nothing for weights."""
        trained = [bias is not None and bias.requires_grad for bias in self.biases]
        biased = [index for index, bias in enumerate(self.biases) if bias is not None]
        sums = dict(zip(biased, self._bias_sums(rows, biased), strict=True)) if any(trained) else {}
        gradients: list[torch.Tensor | None] = []
        for index, bias in enumerate(self.biases):
            gradients.append(None)
            if bias is not None:
                gradients.append(sums[index] if trained[index] else None)
        return gradients

    def _bias_sums(self, rows: torch.Tensor, biased: Sequence[int]) -> Sequence[torch.Tensor]:
        """Of `rows` for each layer that has a bias; the others, as every second one is, are not read where possible."""
        step = biased[1] - biased[0] if len(biased) > 1 else len(self.linears)
        if len(set(self.sizes)) > 1 or list(biased) != list(range(biased[0], len(self.linears), step)):
            sums = torch.split(rows.sum(0, dtype=self.exact_dtype), self.sizes)
            return [sums[index] for index in biased]
        by_layer = rows.view(len(rows), len(self.linears), -1)  # [rows, layers, outputs]
        return by_layer[:, biased[0] :: step].sum(0, dtype=self.exact_dtype).unbind()


class OwnWeight(ProductWeight):
    """Weights that have the products' format themselves: products are written side by side, no weight is copied."""

    def __init__(self, linears: Sequence[nn.Linear], dtype: torch.dtype) -> None:
        super().__init__(linears, dtype)
        self._kept: dict[int, torch.Tensor] = {}  # memory for gradients that stays where it is, by layer

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
        for index, (linear, part) in enumerate(zip(self.linears, torch.split(rows, self.sizes, dim=1), strict=True)):
            if not linear.weight.requires_grad:
                continue
            if linear.weight.grad is not None:
                linear.weight.grad.addmm_(part.t(), columns)
            elif index in self._kept:
                linear.weight.grad = torch.mm(part.t(), columns, out=self._kept[index])
            else:
                linear.weight.grad = part.t() @ columns

    def gradients(self) -> list[torch.Tensor]:
        return [linear.weight.grad for linear in self.linears if linear.weight.grad is not None]

    def keep_gradient_memory(self) -> None:
        for index, linear in enumerate(self.linears):
            if linear.weight.grad is not None:
                self._kept.setdefault(index, linear.weight.grad)

    def note_gradient(self) -> None:
        for index, kept in self._kept.items():
            self.linears[index].weight.grad = kept

    def drop_gradient(self) -> None:
        for linear in self.linears:
            linear.weight.grad = None


class CastWeight(ProductWeight):
    """The weights and biases of linear layers, side by side, in the format of their products.

    It is made anew where a weight was changed by anyone who did not say so: tensors count their changes.
    """

    def __init__(
        self, linears: Sequence[nn.Linear], dtype: torch.dtype, bundle: WeightBundle | None = None, start: int = 0
    ) -> None:
        """`bundle`, from `start` on: where the weights are; None: where they were, each for itself."""
        super().__init__(linears, dtype)
        first = linears[0].weight
        shape = (sum(self.sizes), first.shape[1])  # [outputs, inputs]
        self._bundle = bundle
        self._numbers = slice(start, start + math.prod(shape))  # in the bundle
        if bundle is not None:
            bundle.members.append(self)
        self.weight = (
            torch.empty(shape, dtype=dtype, device=first.device)
            if bundle is None
            else bundle.cast[self._numbers].view(shape)
        )
        self.bias: torch.Tensor | None = None  # [outputs]; zeros for a layer without one
        if any(linear.bias is not None for linear in linears):
            self.bias = self.weight.new_zeros(len(self.weight))
        self.gradient: torch.Tensor | None = None  # [outputs, inputs]
        self._kept: torch.Tensor | None = None  # memory for it that stays where it is
        # Listed once for gradients that stay where they are: to split them takes the host a tenth of a millisecond.
        self._parts: list[TrainedPart] = []
        self._parts_gradient: torch.Tensor | None = None  # that they are of
        self._bias_casts: list[tuple[torch.Tensor, torch.Tensor]] | None = None
        self._versions: list[int] = []  # of the parameters as they were cast

    def is_stale(self) -> bool:
        """Whether a weight or bias was changed since the casts were written."""
        return self._versions != [parameter._version for parameter in self.parameters]

    def note_written(self) -> None:
        """To be called when all casts are those of the weights and biases again."""
        self._versions = [parameter._version for parameter in self.parameters]

    def bias_casts(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Each layer's bias with its part of the casts; listed once, since a part takes the host microseconds."""
        if self._bias_casts is None:
            self._bias_casts = []
            if self.bias is not None:
                for linear, part in zip(self.linears, torch.split(self.bias, self.sizes), strict=True):
                    if linear.bias is not None:
                        self._bias_casts.append((linear.bias.detach(), part))
        return self._bias_casts

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
        if self.gradient is None:
            self.gradient = self._place()
            if self.gradient.dtype == self.dtype:
                torch.mm(rows.t(), columns, out=self.gradient)
            else:  # a layer that was skipped when others of its bundle had their first
                self.gradient.copy_(rows.t() @ columns)
            return
        if self.gradient.dtype != self.exact_dtype:
            if self._bundle is None:
                self.gradient = self.gradient.to(self.exact_dtype)
            else:
                self._bundle.make_sums()
        self.gradient.add_(rows.t() @ columns)

    def move_gradient(self) -> None:
        """To be called when the bundle keeps its gradients elsewhere."""
        if self.gradient is not None:
            self.gradient = self._place()

    def add_row_gradients(self, ids: torch.Tensor, gradients: torch.Tensor) -> None:
        """Adds `gradients` [count, inputs] to those of the outputs that `ids` [count] name, some of them repeatedly.

        Those of one output are summed before they are rounded to the format of its gradient, and in an order of theirs.
        """
        assert self.gradient is not None
        is_same = (ids[:, None] == ids).to(gradients.dtype)  # [count, count]
        sums = self.gradient.index_select(0, ids) + is_same @ gradients
        self.gradient.index_copy_(0, ids, sums.to(self.gradient.dtype))

    def _place(self) -> torch.Tensor:
        """Memory for the gradient, [outputs, inputs]."""
        if self._bundle is None:
            return torch.empty_like(self.weight) if self._kept is None else self._kept
        return self._bundle.gradient()[self._numbers].view_as(self.weight)

    def gradients(self) -> list[torch.Tensor]:
        return [] if self.gradient is None else [self.gradient]

    def keep_gradient_memory(self) -> None:
        if self._kept is None and self.gradient is not None:
            self._kept = self.gradient
            if self._bundle is not None:
                self._bundle.keep_memory()

    def note_gradient(self) -> None:
        self.gradient = self._kept

    def drop_gradient(self) -> None:
        if self._parts_gradient is not self._kept:
            self._parts = []
            self._parts_gradient = None
        self.gradient = None
        if self._bundle is not None:
            self._bundle.drop_gradients()

    def trained_parts(self) -> Sequence[TrainedPart]:
        """Of each layer; none where no gradient reached it."""
        if self.gradient is None:
            return ()
        if self._parts_gradient is not self.gradient:
            self._parts = list(self._parts_with(self.gradient))
            self._parts_gradient = self.gradient
        return self._parts

    def _parts_with(self, gradients: torch.Tensor) -> Iterator[TrainedPart]:
        parts = (torch.split(self.weight, self.sizes), torch.split(gradients, self.sizes))
        start = self._numbers.start
        for linear, cast_part, gradient in zip(self.linears, *parts, strict=True):
            if linear.weight.requires_grad:
                yield TrainedPart(linear.weight, cast_part, gradient, self._bundle, start)
            start += linear.weight.numel()
