"""AdamW that reads bfloat16 gradients and writes each weight's cast beside it, one kernel for some layers' weights.

Weights and moments are float32, as torch's own AdamW has them (mixed-precision training, Micikevicius et al. 2018,
arXiv:1710.03740). The gradient of a product is bfloat16 when it is made: it is read as it is, scaled by the clip on
the way, and the weight's next cast is written in the same pass. So 30 bytes a parameter are moved, those of the norm
among them, where casting, clipping and AdamW apart move 52 (as tests/bench/gpu_model.py plays them), and gradients
take half of the memory.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tmsearch.model.kernels.fused import FusedKernels
from tmsearch.model.kernels.weights import TrainedPart, WeightBundle

_CLIP_EPSILON = 1e-6  # nn.utils.clip_grad_norm_'s, against a norm of 0
MOMENTS = ("exp_avg", "exp_avg_sq")
_log = logging.getLogger(__name__)


class MixedPrecisionAdamW(torch.optim.AdamW):
    """torch's fused AdamW, whose products' weights take kernels that read their gradients from `products`.

    The kernel needs a compiler for the weights' device. Where it does not compile, their gradients are cast and torch's
    fused kernel takes them too.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float,
        betas: tuple[float, float],
        eps: float,
        products: FusedKernels,
    ) -> None:
        super().__init__(list(groups), lr=lr, betas=betas, eps=eps, fused=True)
        self._products = products
        self._kernel: Callable[..., None] | None = compiled_update()
        self._moments: dict[WeightBundle, list[torch.Tensor]] = {}
        self._scale: torch.Tensor | None = None  # [], that the products' gradients are still to be multiplied by

    def zero_grad(self, set_to_none: bool = True) -> None:
        super().zero_grad(set_to_none)
        self._products.drop_gradients()
        self._scale = None

    @torch.no_grad()
    def clip(self, most: float) -> torch.Tensor:
        """Scales all gradients so that their norm is at most `most`, as nn.utils.clip_grad_norm_; returns the norm [].

        Those of products are scaled when they are read.
        """
        others = [weight.grad for group in self.param_groups for weight in group["params"] if weight.grad is not None]
        norms: list[torch.Tensor] = []
        if others:
            norms += torch._foreach_norm(others, 2, torch.float32)
        for run in _runs(self._parts(), lambda part: None):
            norms.append(torch.linalg.vector_norm(run.gradient, dtype=torch.float32))
        norm = torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.zeros(())
        self._scale = (most / (norm + _CLIP_EPSILON)).clamp(max=1.0)
        if others:
            torch._foreach_mul_(others, self._scale)
        return norm

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        groups = {id(weight): group for group in self.param_groups for weight in group["params"]}
        parts = self._parts()
        counts = {id(part.weight): self._count(part) for part in parts}
        factors: dict[tuple[int, int], list[torch.Tensor]] = {}  # by group and number of updates
        with any_lengths():
            for run in _runs(parts, lambda part: (id(groups[id(part.weight)]), counts[id(part.weight)])):
                group = groups[id(run.parts[0].weight)]
                count = counts[id(run.parts[0].weight)] + 1
                if (id(group), count) not in factors:
                    factors[id(group), count] = update_factors(group, count)
                self._update(run, factors[id(group), count])
        super().step()
        if self._kernel is not None:
            self._products.note_updated([cast for cast in self._products.weights.values() if cast.gradient is not None])

    def _parts(self) -> list[TrainedPart]:
        """The products' weights that have a gradient."""
        return [part for weight in self._products.weights.values() for part in weight.trained_parts()]

    def _count(self, part: TrainedPart) -> int:
        """How many updates a weight has had; its moments are where they are to be from then on.

        The number is on the host, where the kernel's factors are computed, and the moments lie as the weights do.
        """
        state: dict[str, torch.Tensor] = self.state[part.weight]
        if self._kernel is None:
            return 0
        if "step" not in state:
            state["step"] = torch.zeros((), dtype=torch.float32)
        elif state["step"].device.type != "cpu":  # from a checkpoint: once for each
            state["step"] = state["step"].cpu()
        for name, moment in zip(MOMENTS, self._moments_of(part.bundle), strict=True):
            if name in state and (moment is None or state[name]._base is moment):
                continue
            earlier = state.get(name)
            place = torch.empty_like(part.weight)
            if moment is not None:
                place = moment[part.start : part.end].view_as(part.weight)
            state[name] = place.zero_() if earlier is None else place.copy_(earlier)
        return int(state["step"])

    def _moments_of(self, bundle: WeightBundle | None) -> Sequence[torch.Tensor | None]:
        """Memory for both moments of all weights of a bundle, each [numbers]."""
        if bundle is None:
            return [None for _ in MOMENTS]
        if bundle not in self._moments:
            self._moments[bundle] = [torch.empty_like(bundle.exact) for _ in MOMENTS]
        return self._moments[bundle]

    def _update(self, run: _Run, factors: Sequence[torch.Tensor]) -> None:
        """By the compiled kernel; where it does not compile, torch's AdamW is given what it needs."""
        weights = [part.weight for part in run.parts]
        if self._kernel is not None:
            moments = []
            for name, moment in zip(MOMENTS, self._moments_of(run.parts[0].bundle), strict=True):
                alone_moment = self.state[weights[0]][name].view(-1)
                moments.append(alone_moment if moment is None else moment[run.start : run.end])
            scale = self._scale if self._scale is not None else weights[0].new_ones(())
            stored = (run.weight, run.cast, run.gradient, *moments)
            try:
                self._kernel(*(alone(tensor) for tensor in stored), scale, *factors)
            except torch._dynamo.exc.TorchDynamoException as error:  # before anything was changed
                _log.warning("the optimizer's kernel could not be compiled (%s); going on without", str(error)[:200])
                self._kernel = None
        if self._kernel is not None:
            torch._foreach_add_([self.state[weight]["step"] for weight in weights], 1)
            torch.autograd.graph.increment_version(weights)
            return
        for part in run.parts:
            self._hand_over(part)

    def _hand_over(self, part: TrainedPart) -> None:
        """Gives torch's AdamW what it needs for a weight."""
        part.weight.grad = part.gradient.float()
        if self._scale is not None:
            part.weight.grad.mul_(self._scale)
        state = self.state[part.weight]
        if "step" in state:
            state["step"] = state["step"].to(part.weight.device)


@dataclass(frozen=True)
class _Run:
    """Weights that lie one behind the other, as do their casts and gradients."""

    parts: list[TrainedPart]

    @property
    def start(self) -> int:
        return self.parts[0].start

    @property
    def end(self) -> int:
        return self.parts[-1].end

    @property
    def weight(self) -> torch.Tensor:
        """All weights, [numbers]."""
        part = self.parts[0]
        return part.weight.detach().view(-1) if part.bundle is None else part.bundle.exact[self.start : self.end]

    @property
    def cast(self) -> torch.Tensor:
        """All casts, [numbers]."""
        part = self.parts[0]
        return part.cast.view(-1) if part.bundle is None else part.bundle.cast[self.start : self.end]

    @property
    def gradient(self) -> torch.Tensor:
        """All gradients, [numbers]."""
        part = self.parts[0]
        if part.bundle is None:
            return part.gradient.view(-1)
        return part.bundle.gradient()[self.start : self.end]


def _runs(parts: Iterable[TrainedPart], key: Callable[[TrainedPart], object]) -> Iterator[_Run]:
    """`parts` in runs as long as they can be, of equal `key` each."""
    run: list[TrainedPart] = []
    run_key: object = None
    for part in parts:
        part_key = (key(part), part.gradient.dtype)
        is_next = bool(run) and part.bundle is not None and part.bundle is run[-1].bundle and part.start == run[-1].end
        if run and not (is_next and part_key == run_key):
            yield _Run(run)
            run = []
        run.append(part)
        run_key = part_key
    if run:
        yield _Run(run)


def update(
    weight: torch.Tensor,
    weight_cast: torch.Tensor,
    gradient: torch.Tensor,
    mean: torch.Tensor,
    square: torch.Tensor,
    scale: torch.Tensor,
    beta1: torch.Tensor,
    beta2: torch.Tensor,
    epsilon: torch.Tensor,
    kept: torch.Tensor,
    rate: torch.Tensor,
    root: torch.Tensor,
) -> None:
    """One AdamW update (Loshchilov and Hutter 2019, algorithm 2) of some weights, to be compiled into one kernel.

    Args:
        weight: float32 [count], as are the moments mean and square; these three and the cast are changed.
        weight_cast: The same weights in the products' format, [count].
        gradient: [count], bfloat16 or float32.
        mean: See weight.
        square: See weight.
        scale: What the gradient is multiplied by, [] on the weight's device.
        beta1: Numbers [] on the CPU from here on, since a Python number that changes would be compiled in anew.
        beta2: See AdamW.
        epsilon: See AdamW.
        kept: The share of the weight that its decay leaves.
        rate: The learning rate over the first moment's bias.
        root: The square root of the second moment's bias.
    """
    slope = gradient.float() * scale
    new_mean = mean * beta1 + slope * (1 - beta1)
    new_square = square * beta2 + slope * slope * (1 - beta2)
    new_weight = weight * kept - rate * new_mean / (new_square.sqrt() / root + epsilon)
    mean.copy_(new_mean)
    square.copy_(new_square)
    weight.copy_(new_weight)
    weight_cast.copy_(new_weight)


def any_lengths() -> contextlib.AbstractContextManager[None]:
    """In which a graph is compiled for any lengths: two that happen to be equal, as a weight's and its offset among
    others, are not taken to be so for good."""
    patched: contextlib.AbstractContextManager[None] = torch.fx.experimental._config.patch(use_duck_shape=False)  # type: ignore[attr-defined]
    return patched


def alone(tensor: torch.Tensor) -> torch.Tensor:
    """The same numbers without the tensor that they are a part of, for whose shape a graph would be compiled anew."""
    return tensor.detach()


def compiled_update() -> Callable[..., None]:
    """`update` as one kernel for weights of any length."""
    kernel: Callable[..., None] = torch.compile(update, dynamic=True)
    return kernel


def update_factors(group: dict[str, Any], count: int) -> list[torch.Tensor]:
    """The numbers that an update's kernel takes last, for update `count` of a group's weights, counted from 1."""
    beta1, beta2 = group["betas"]
    numbers = (
        beta1,
        beta2,
        group["eps"],
        1 - group["lr"] * group["weight_decay"],
        group["lr"] / (1 - beta1**count),
        math.sqrt(1 - beta2**count),
    )
    return [torch.tensor(number, dtype=torch.float32) for number in numbers]
