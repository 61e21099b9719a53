"""Counts what a GPU would do: launches, modelled time, bytes moved and held, waits of the host.

A TorchDispatchMode sees each operator below autograd and autocast. Time is the sum over kernels of the longest of
FLOP / rate, bytes / bandwidth, and the shortest kernel (rates.py); kernels.py says what an operator costs.
"""

from __future__ import annotations

import traceback
import weakref
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from tests.bench.gpu_player import kernels
from tests.bench.gpu_player.kernels import Cost, Operator
from tests.bench.gpu_player.rates import Rates

BLOCK_BYTES = 512  # what CUDA's allocator rounds to
SOURCES = ("/tmsearch/", "/tests/bench/")  # where the line that waits is looked for
HOST_NUMBER = 1.0  # what reading a fake tensor gives


@dataclass
class Total:
    """Of one operator, or of all."""

    launches: int = 0
    seconds: float = 0.0
    flop: float = 0.0
    bytes_moved: float = 0.0

    def add(self, cost: Cost) -> None:
        self.launches += cost.launches
        self.seconds += cost.seconds
        self.flop += cost.flop
        self.bytes_moved += cost.bytes_moved

    def since(self, earlier: Total) -> Total:
        """What was added to `earlier`."""
        return Total(
            self.launches - earlier.launches,
            self.seconds - earlier.seconds,
            self.flop - earlier.flop,
            self.bytes_moved - earlier.bytes_moved,
        )

    def copy(self) -> Total:
        return Total(self.launches, self.seconds, self.flop, self.bytes_moved)


@dataclass
class Meter(TorchDispatchMode):
    """Totals since `reset`; live bytes since it was made."""

    rates: Rates
    total: Total = field(default_factory=Total)
    by_operator: dict[str, Total] = field(default_factory=lambda: defaultdict(Total))
    waits: Counter[str] = field(default_factory=Counter)  # of the host for the device, by line
    copies_to_device: Counter[str] = field(default_factory=Counter)  # that do not wait, by line
    live_bytes: int = 0
    peak_bytes: int = 0

    def __post_init__(self) -> None:
        super().__init__()
        self._is_fused = False  # in what a compiler makes one kernel of
        self._storages: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    __hash__ = object.__hash__

    def reset(self) -> None:
        """Starts all totals and the peak anew; what is live stays so."""
        self.total = Total()
        self.by_operator = defaultdict(Total)
        self.waits = Counter()
        self.copies_to_device = Counter()
        self.peak_bytes = self.live_bytes

    def hold(self, tensors: Iterable[torch.Tensor]) -> None:
        """Counts the bytes of tensors that were made before the meter ran."""
        for tensor in tensors:
            self._hold(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._is_fused:
            return func(*args, **kwargs)
        name = func.overloadpacket.__name__
        inputs = _tensors((args, kwargs))
        if name == "_local_scalar_dense":
            if inputs[0].device.type == "cuda":
                self.waits[f"item {_line()}"] += 1
            return HOST_NUMBER
        out = func(*args, **kwargs)
        outputs = _tensors(out)
        for tensor in outputs:
            self._hold(tensor)
        self._note_wait(name, args, kwargs, inputs, outputs)
        if any(tensor.device.type == "cuda" for tensor in (*inputs, *outputs)) and name not in kernels.VIEWS:
            cost = kernels.cost(Operator(name, args, inputs, outputs), self.rates)
            self.total.add(cost)
            self.by_operator[name].add(cost)
        return out

    def fused(self, function: Callable[..., Any], arguments: Sequence[Any], launches: int, besides: float) -> Any:
        """What `function` returns, as a few kernels that a compiler makes of it.

        Args:
            function: Of tensors; changes none of them.
            arguments: Its own.
            launches: How many kernels.
            besides: Bytes that they move besides reading arguments and writing results.
        """
        self._is_fused = True
        try:
            out = function(*arguments)
        finally:
            self._is_fused = False
        outputs = _tensors(out)
        for tensor in outputs:
            self._hold(tensor)
        moved = kernels.touched(*_tensors(arguments), *outputs) + besides
        cost = kernels.memory_bound(self.rates, launches, moved)
        self.total.add(cost)
        self.by_operator[function.__name__].add(cost)
        return out

    def recorded(self, work: Callable[[], Any]) -> tuple[Any, Recorded]:
        """What `work` returns, and its launches, which are not counted before they are replayed."""
        outer = (self.total, self.by_operator, self.peak_bytes)
        self.total, self.by_operator = Total(), defaultdict(Total)
        self.peak_bytes = self.live_bytes
        try:
            result = work()
        finally:
            graph = Recorded(self, self.total, self.by_operator, self.peak_bytes)
            self.total, self.by_operator = outer[:2]
            self.peak_bytes = max(outer[2], graph.peak_bytes)
        return result, graph

    def reserve(self, size: int) -> None:
        """Counts `size` bytes as live for good."""
        self.live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)

    def _hold(self, tensor: torch.Tensor) -> None:
        if tensor.device.type != "cuda":
            return
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._storages:
            return
        size = -(-storage.nbytes() // BLOCK_BYTES) * BLOCK_BYTES

        def release(_: object) -> None:
            self.live_bytes -= size
            self._storages.pop(key, None)

        self._storages[key] = weakref.ref(storage, release)
        self.live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)

    def _note_wait(
        self, name: str, args: Any, kwargs: Any, inputs: list[torch.Tensor], outputs: list[torch.Tensor]
    ) -> None:
        if name == "nonzero" and inputs[0].device.type == "cuda":
            self.waits[f"nonzero {_line()}"] += 1
        if name not in ("_to_copy", "copy_"):
            return
        source = inputs[-1] if name == "copy_" else inputs[0]
        origin = source.device.type
        target = outputs[0].device.type
        if origin == "cpu" and target == "cuda":
            does_not_wait = kwargs.get("non_blocking", False) or (name == "copy_" and len(args) > 2 and args[2])
            if does_not_wait:
                self.copies_to_device[_line()] += 1
            else:
                self.waits[f"copy to the device {_line()}"] += 1
        if origin == "cuda" and target == "cpu":
            self.waits[f"copy to the host {_line()}"] += 1

    def table(self, rows: int) -> str:
        """The operators that take longest."""
        lines = [f"  {'operator':44}{'launches':>9}{'ms':>9}{'TFLOP':>9}{'GB':>9}"]
        longest = sorted(self.by_operator.items(), key=lambda item: -item[1].seconds)[:rows]
        for name, total in (*longest, ("all", self.total)):
            lines.append(
                f"  {name:44}{total.launches:9d}{1e3 * total.seconds:9.2f}"
                f"{total.flop / 1e12:9.2f}{total.bytes_moved / 1e9:9.2f}"
            )
        return "\n".join(lines)


@dataclass
class Recorded:
    """A graph: its launches are one to the host."""

    meter: Meter
    total: Total
    by_operator: dict[str, Total]
    peak_bytes: int  # of all that was live, while it was recorded

    def replay(self) -> None:
        """Counts it."""
        self.meter.total.add(Cost(1, self.total.seconds, self.total.flop, self.total.bytes_moved))
        for name, total in self.by_operator.items():
            cost = Cost(total.launches, total.seconds, total.flop, total.bytes_moved)
            self.meter.by_operator[name].add(cost)


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_flatten(tree)[0] if isinstance(leaf, torch.Tensor)]


def _line() -> str:
    """The innermost line of this project that is running."""
    for frame in reversed(traceback.extract_stack(limit=60)):
        if any(part in frame.filename for part in SOURCES) and "gpu_player" not in frame.filename:
            return f"{Path(frame.filename).name}:{frame.lineno}"
    return "elsewhere"
