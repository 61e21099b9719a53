"""AdamW for bfloat16 weights whose updates are rounded at random, over many weights at once.

Two ways to the same update. Where a compiler for the device is at hand, each large weight takes one kernel, which
reads weight, gradient, moments and noise once and writes them once: 18 bytes a parameter. Elsewhere, and for small
weights such as biases, pieces of many weights are gathered into float32 scratch, updated by torch's fused AdamW,
rounded and scattered: some 15 kernels for millions of parameters, where an update weight by weight takes 24 for each.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim.adamw import adamw

from tmsearch.training.optim.mixed_precision import alone, any_lengths, update_factors

_DROPPED_BITS = 16  # low bits of a float32 that a bfloat16 lacks
_LOW_BITS = (1 << _DROPPED_BITS) - 1
# Parameters gathered at once: on a GPU so many that its kernels are long (335 MB of scratch), on a CPU so few that
# the scratch stays in a core's cache.
_GPU_CHUNK = 2**24
_CPU_CHUNK = 2**18
_LARGE = 2**16  # parameters from which a weight is worth a kernel of its own
_ALIGNMENT = 16  # numbers, 64 bytes: what vector loads want, and compiled kernels expect
_log = logging.getLogger(__name__)


def round_stochastically(exact: torch.Tensor, noise: torch.Tensor) -> None:
    """Rounds float32 `exact` to bfloat16, in place: to one of its two neighbours, the nearer one more often.

    Args:
        exact: Any shape; what it holds afterwards casts to bfloat16 without loss.
        noise: Of the same shape, int32, even over 0 to 2**16 - 1.
    """
    exact.view(torch.int32).add_(noise).bitwise_and_(-1 << _DROPPED_BITS)


class NoiseTable:
    """Random numbers for one update at a time: a table drawn anew, of which each piece gets a stretch of its own.

    One draw for each number that is rounded would cost a GPU more than the update itself: counter-based generators
    take over a hundred integer operations a number. Two numbers rounded with one entry of the table need an equal
    offset, which is drawn as well: any two roundings are all but independent, and each is unbiased.
    """

    def __init__(self, longest: int, device: torch.device, is_wide: bool) -> None:
        """`longest`: numbers of a stretch at most; `is_wide`: each has 32 random bits, else 16."""
        self._is_wide = is_wide
        self._offsets = max(_ALIGNMENT, longest // 4)  # where a stretch may begin
        self._table = torch.empty(longest + self._offsets, dtype=torch.int32, device=device)  # [numbers]
        self._random = random.Random()

    def renew(self) -> None:
        """Draws the table by torch's global generators, whose states every checkpoint holds."""
        self._random.seed(int(torch.randint(2**62, ())))  # on the CPU: no wait for a device
        lowest, highest = (-(2**31), 2**31 - 1) if self._is_wide else (0, 1 << _DROPPED_BITS)
        self._table.random_(lowest, highest)

    def wide_stretch(self, count: int) -> torch.Tensor:
        """`count` entries [count] of the table as they are, from an offset drawn at random."""
        start = _ALIGNMENT * self._random.randrange(self._offsets // _ALIGNMENT)
        return self._table[start : start + count]

    def stretch(self, count: int) -> torch.Tensor:
        """`count` numbers [count] as round_stochastically takes them."""
        entries = self.wide_stretch(count)
        return entries.bitwise_and(_LOW_BITS) if self._is_wide else entries


@dataclass(frozen=True)
class _Piece:
    """A stretch of one weight and of what belongs to it, all bfloat16 [count]."""

    weight: torch.Tensor
    gradient: torch.Tensor
    mean: torch.Tensor
    square: torch.Tensor

    @property
    def count(self) -> int:
        return len(self.weight)

    def split(self, most: int) -> Iterator[_Piece]:
        """Itself in pieces of at most `most` parameters."""
        if self.count <= most:
            yield self
            return
        for parts in zip(*(torch.split(tensor, most) for tensor in self.tensors), strict=True):
            yield _Piece(*parts)

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        return (self.weight, self.gradient, self.mean, self.square)


class StochasticRoundingAdamW(torch.optim.Optimizer):
    """torch.optim.AdamW's rule (Loshchilov and Hutter 2019) in float32, stored in bfloat16, moments included.

    Rounded to nearest, an update smaller than 1/256 of its weight is lost each time; rounded up or down at random it
    survives on average (Gupta et al. 2015, arXiv:1502.02551; for fine-tuning in bf16, Zamirai et al. 2020,
    arXiv:2010.06192). Weights, gradients and both moments take 8 bytes a parameter instead of 16.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float,
        betas: tuple[float, float],
        eps: float,
        is_compiled: bool = False,
    ) -> None:
        """`is_compiled`: large weights take a compiled kernel each; needs a compiler for their device."""
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})
        weights = [weight for group in self.param_groups for weight in group["params"]]
        device = weights[0].device
        self._chunk = _CPU_CHUNK if device.type == "cpu" else _GPU_CHUNK
        self._longest = min(self._chunk, sum(weight.numel() for weight in weights))
        self._noise = NoiseTable(self._longest, device, is_compiled)
        self._buffers: list[torch.Tensor] = []
        self._kernel: Callable[..., None] | None = compiled_update() if is_compiled else None

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        self._noise.renew()
        for group in self.param_groups:
            for count, pieces in self._pieces(group).items():
                factors = update_factors(group, count)
                gathered = [piece for piece in pieces if not self._update_large(piece, factors)]
                for chunk in _chunks(gathered, self._chunk):
                    self._update_gathered(chunk, group, count)

    def _pieces(self, group: dict[str, Any]) -> dict[int, list[_Piece]]:
        """The group's weights that have a gradient, by the number of updates that they will have had."""
        weights = [weight for weight in group["params"] if weight.grad is not None]
        if not weights:
            return {}
        for weight in weights:
            state = self.state[weight]
            if not state:
                state["step"] = torch.zeros((), dtype=torch.float32)
                state["exp_avg"] = torch.zeros_like(weight)
                state["exp_avg_sq"] = torch.zeros_like(weight)
        steps = [self.state[weight]["step"] for weight in weights]
        torch._foreach_add_(steps, 1)
        pieces: dict[int, list[_Piece]] = {}
        for weight, step in zip(weights, torch.stack(steps).tolist(), strict=True):
            state = self.state[weight]
            # A gradient may be laid out otherwise; the others are changed where they are.
            flat = _Piece(
                weight.view(-1), weight.grad.reshape(-1), state["exp_avg"].view(-1), state["exp_avg_sq"].view(-1)
            )
            pieces.setdefault(int(step), []).extend(flat.split(self._chunk))
        return pieces

    def _update_large(self, piece: _Piece, factors: Sequence[torch.Tensor]) -> bool:
        """Updates a large piece by the compiled kernel; whether it did."""
        if self._kernel is None or piece.count < _LARGE:
            return False
        noise = self._noise.wide_stretch(piece.count)
        try:
            with any_lengths():
                self._kernel(*(alone(tensor) for tensor in (*piece.tensors, noise)), *factors)
        except torch._dynamo.exc.TorchDynamoException as error:  # before anything was changed
            _log.warning("the optimizer's kernel could not be compiled (%s); going on without", str(error)[:200])
            self._kernel = None
            return False
        return True

    def _update_gathered(self, pieces: Sequence[_Piece], group: dict[str, Any], count: int) -> None:
        """Updates some pieces together, in float32 copies that lie one behind the other."""
        sizes = [piece.count for piece in pieces]
        places = [buffer[: sum(sizes)] for buffer in self._scratch(sum(sizes))]  # float32 [parameters], four
        stored = list(zip(*(piece.tensors for piece in pieces), strict=True))
        for place, tensors in zip(places, stored, strict=True):
            torch._foreach_copy_(list(torch.split(place, sizes)), list(tensors))
        weight, gradient, mean, square = places
        beta1, beta2 = group["betas"]
        adamw(
            [weight],
            [gradient],
            [mean],
            [square],
            [],
            [torch.full((), count - 1, dtype=torch.float32, device=weight.device)],
            fused=True,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )
        for place, tensors in zip(places, stored, strict=True):
            if place is not gradient:
                round_stochastically(place, self._noise.stretch(len(place)))
                torch._foreach_copy_(list(tensors), list(torch.split(place, sizes)))

    def _scratch(self, count: int) -> list[torch.Tensor]:
        """Four float32 buffers of at least `count` parameters, kept from update to update.

        Where large weights take a kernel each, they are as short as the others are few.
        """
        if not self._buffers or len(self._buffers[0]) < count:
            self._buffers = []
            device = self.param_groups[0]["params"][0].device
            length = self._longest if self._kernel is None else count
            self._buffers = [torch.empty(length, device=device) for _ in range(4)]
        return self._buffers


def update(
    weight: torch.Tensor,
    gradient: torch.Tensor,
    mean: torch.Tensor,
    square: torch.Tensor,
    noise: torch.Tensor,
    beta1: torch.Tensor,
    beta2: torch.Tensor,
    epsilon: torch.Tensor,
    kept: torch.Tensor,
    rate: torch.Tensor,
    root: torch.Tensor,
) -> None:
    """One AdamW update of one weight, to be compiled into one kernel.

    Args:
        weight: bfloat16 [count], as are gradient, mean and square, the moments; all but the gradient are changed.
        gradient: See above.
        mean: See above.
        square: See above.
        noise: 32 random bits in each, int32 [count]: 16 for the weight, 16 for the mean, and for the square the
            exclusive or of both, which tells nothing of either alone.
        beta1: Numbers [] on the CPU from here on, since a Python number that changes would be compiled in anew.
        beta2: See AdamW.
        epsilon: See AdamW.
        kept: The share of the weight that its decay leaves.
        rate: The learning rate over the first moment's bias.
        root: The square root of the second moment's bias.
    """
    slope = gradient.float()
    exact_mean = mean.float() * beta1 + slope * (1 - beta1)
    exact_square = square.float() * beta2 + slope * slope * (1 - beta2)
    exact = weight.float() * kept - rate * exact_mean / (exact_square.sqrt() / root + epsilon)
    low = noise & _LOW_BITS
    high = (noise >> _DROPPED_BITS) & _LOW_BITS
    for stored, value, bits in ((weight, exact, low), (mean, exact_mean, high), (square, exact_square, low ^ high)):
        round_stochastically(value, bits)
        stored.copy_(value)


def compiled_update() -> Callable[..., None]:
    """`update` as one kernel for pieces of any length."""
    kernel: Callable[..., None] = torch.compile(update, dynamic=True)
    return kernel


def _chunks(pieces: Iterable[_Piece], most: int) -> Iterator[list[_Piece]]:
    """Pieces, in order, in lists of together at most `most` parameters."""
    chunk: list[_Piece] = []
    size = 0
    for piece in pieces:
        if chunk and size + piece.count > most:
            yield chunk
            chunk = []
            size = 0
        chunk.append(piece)
        size += piece.count
    if chunk:
        yield chunk
