"""On a CPU: what a CUDA graph does. What is recorded is a list of operations on memory, which a replay does again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten


def _tensors(tree: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_flatten(tree)[0] if isinstance(leaf, torch.Tensor)]


class Recording(TorchDispatchMode):
    """Operations below autograd and autocast, by the memory that they read and write.

    Numbers and shapes are those of the recording, whatever they would be by then. What was made in it holds no numbers
    before the first replay.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, tuple[Any, ...], dict[str, Any], list[torch.Tensor]]] = []
        self._fresh: list[torch.Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        given = {tensor.untyped_storage().data_ptr() for tensor in _tensors((args, kwargs))}
        fresh = [tensor for tensor in _tensors(result) if tensor.untyped_storage().data_ptr() not in given]
        self._fresh += fresh
        self.operations.append((func, args, kwargs, fresh))
        return result

    def forget_numbers(self) -> None:
        for tensor in self._fresh:
            tensor.data.fill_(float("nan") if tensor.is_floating_point() else 0)

    @torch.no_grad()
    def replay(self) -> None:
        with torch.autocast("cpu", enabled=False):
            for func, args, kwargs, fresh in self.operations:
                given = {tensor.untyped_storage().data_ptr() for tensor in _tensors((args, kwargs))}
                results = _tensors(func(*args, **kwargs))
                results = [tensor for tensor in results if tensor.untyped_storage().data_ptr() not in given]
                for place, result in zip(fresh, results, strict=True):
                    place.detach().copy_(result)


class CpuRecorder:
    """A Recorder of tmsearch.model.kernels.recorder; `recordings` are all that it made."""

    def __init__(self) -> None:
        self.recordings: list[Recording] = []
        self.room = True
        self.asked = 0  # how often, for room

    def record(self, work: Callable[[], Any]) -> tuple[Any, Recording]:
        recording = Recording()
        with recording:
            result = work()
        recording.forget_numbers()
        self.recordings.append(recording)
        return result, recording

    def has_room(self) -> bool:
        self.asked += 1
        return self.room
