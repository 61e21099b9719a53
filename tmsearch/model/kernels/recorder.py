"""What makes CUDA graphs: launches that are recorded once and run again by one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

import torch

from tmsearch import devices

Work = TypeVar("Work")

# Graphs keep the memory of one pass for themselves. So many times as much must be free: for them, for batches that have
# none, and for evaluations.
ROOM = 3


class Replayable(Protocol):
    """A graph that was recorded."""

    def replay(self) -> None:
        """Runs it on what its memory holds now."""


class Recorder(Protocol):
    """What makes graphs."""

    def record(self, work: Callable[[], Work]) -> tuple[Work, Replayable]:
        """What `work` returns, whose tensors have no values before the first replay, and the graph of its launches."""

    def has_room(self) -> bool:
        """Whether there is memory for graphs; asked between two steps."""


class CudaRecorder:
    """CUDA graphs in one pool of memory: no two of them run at a time, and none needs what another one left there."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, work: Callable[[], Work]) -> tuple[Work, Replayable]:
        graph = torch.cuda.CUDAGraph()
        # Other threads may go on: autograd's own makes the launches of a backward pass.
        with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
            result = work()
        return result, graph

    def has_room(self) -> bool:
        live = torch.cuda.memory_allocated(self._device)
        of_a_pass = torch.cuda.max_memory_allocated(self._device) - live
        free, _ = torch.cuda.mem_get_info(self._device)
        return free + torch.cuda.memory_reserved(self._device) - live >= ROOM * of_a_pass


def recorder_for(device: torch.device) -> Recorder | None:
    """What makes graphs on `device`; None where there are none. Raises InputError as devices.uses_graphs does."""
    return CudaRecorder(device) if devices.uses_graphs(device) else None
