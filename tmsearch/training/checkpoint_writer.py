"""Checkpoints saved beside the training: copied to the host at once, hashed and written in a thread.

The copy is what a training must wait for: no update may change a tensor before its copy is made. On a GPU copies go
through pinned memory on a stream of their own, beside the next forward and backward pass.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Protocol

import torch

from tmsearch.training import checkpoints
from tmsearch.training.checkpoints import Checkpoint, VerifiedCheckpoints
from tmsearch.training.saving import Rates

Groups = Mapping[str, Mapping[str, torch.Tensor]]

_BLOCK = 1 << 30  # bytes of pinned memory allocated at a time: torch rounds up to a power of two
_ALIGNED = 64  # bytes that a tensor's place in a block is a multiple of


class CopyLane(Protocol):
    """How tensors get into the host's memory while they go on being trained."""

    is_beside: bool  # whether copying and writing leave the training's processor alone

    def start(self, tensors: Groups) -> Groups:
        """Starts to copy; what it returns may be read after `finish`, until the next `start`."""
        ...

    def before_update(self) -> None:
        """Has whatever the device does from now on wait for the copies; called before a tensor is changed."""
        ...

    def finish(self) -> None:
        """Returns when the copies are made; called in the thread that writes."""
        ...


class PlainLane:
    """Copies at once, on the CPU."""

    is_beside = False

    def start(self, tensors: Groups) -> Groups:
        copies = {}
        for group, named in tensors.items():
            copies[group] = {name: tensor.detach().to("cpu", copy=True) for name, tensor in named.items()}
        return copies

    def before_update(self) -> None:
        return

    def finish(self) -> None:
        return


class CudaLane:
    """Copies from a GPU on a side stream into pinned memory, which is kept for the next checkpoint."""

    is_beside = True

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._buffers = HostBuffers(is_pinned=True)
        self._copied: torch.cuda.Event | None = None  # of the last `start`
        self._is_waited_for = True  # by the device
        self._sources: list[torch.Tensor] = []  # their memory is not given back before they are copied

    def start(self, tensors: Groups) -> Groups:
        targets = self._buffers.like(tensors)
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            for group, named in tensors.items():
                for name, tensor in named.items():
                    source = tensor.detach()
                    self._sources.append(source)
                    self._copy(targets[group][name], source)
        self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._copied.record(self._stream)
        self._is_waited_for = False
        return targets

    def _copy(self, target: torch.Tensor, source: torch.Tensor) -> None:
        target.copy_(source, non_blocking=True)

    def before_update(self) -> None:
        if self._copied is not None and not self._is_waited_for:
            torch.cuda.current_stream(self._device).wait_event(self._copied)
            self._is_waited_for = True

    def finish(self) -> None:
        if self._copied is not None:
            self._copied.synchronize()
        self._sources.clear()


def lane_for(device: torch.device) -> CopyLane:
    """The way from `device` to the host."""
    return CudaLane(device) if device.type == "cuda" else PlainLane()


class HostBuffers:
    """Memory of the host for one set of tensors at a time; pinning it takes a second for some gigabytes, so it stays.

    Where the machine does not give as much pinned memory, plain memory is taken: copies then block.
    """

    def __init__(self, is_pinned: bool) -> None:
        self._is_pinned = is_pinned
        self._blocks: list[torch.Tensor] = []

    def like(self, tensors: Groups) -> Groups:
        """Uninitialized tensors of the same names, shapes and types; those returned before become invalid."""
        remaining = sum(_padded(tensor) for named in tensors.values() for tensor in named.values())  # bytes
        index = 0
        start = 0  # in the block of that index
        targets: dict[str, dict[str, torch.Tensor]] = {}
        for group, named in tensors.items():
            targets[group] = {}
            for name, tensor in named.items():
                size = _padded(tensor)
                while index < len(self._blocks) and start + size > self._blocks[index].numel():
                    index += 1
                    start = 0
                if index == len(self._blocks):
                    self._blocks.append(self._block(max(size, min(_BLOCK, remaining))))
                content = self._blocks[index][start : start + tensor.numel() * tensor.element_size()]
                targets[group][name] = content.view(tensor.dtype).view(tensor.shape)
                start += size
                remaining -= size
        return targets

    def _block(self, size: int) -> torch.Tensor:
        if self._is_pinned:
            with contextlib.suppress(RuntimeError):
                return torch.empty(size, dtype=torch.uint8, pin_memory=True)
        return torch.empty(size, dtype=torch.uint8)


def _padded(tensor: torch.Tensor) -> int:
    """Bytes that a tensor takes of a block."""
    return math.ceil(tensor.numel() * tensor.element_size() / _ALIGNED) * _ALIGNED


class CheckpointWriter:
    """Saves checkpoints in a thread, one at a time, while training continues.

    Args:
        lane: how tensors get to the host.
        verified: takes the checkpoints that were written.
    """

    def __init__(self, lane: CopyLane, verified: VerifiedCheckpoints | None = None) -> None:
        self._lane = lane
        self._verified = verified
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self._target = Path()  # the folder that is written to
        self.rates = Rates(is_beside=lane.is_beside)

    @property
    def is_beside(self) -> bool:
        """Whether writing takes nothing from the training, so that nobody need wait for it."""
        return self._lane.is_beside

    def write(self, save_to: Path, checkpoint: Checkpoint, instead_of: int | None = None) -> Path:
        """Saves the tensors as they are now into the folder `save_to`, then discards step `instead_of` there.

        Returns the folder that the checkpoint will have. `before_update` must be called before a tensor is changed.
        Raises what writing the checkpoint before it raised.
        """
        self.wait()
        save_to.mkdir(parents=True, exist_ok=True)
        started = time.monotonic()
        copies = self._lane.start(checkpoint.tensors)

        def write() -> None:
            self._lane.finish()
            copied = time.monotonic()
            try:
                checkpoints.save_into(save_to, Checkpoint(checkpoint.step, copies, checkpoint.state), self._verified)
                if instead_of is not None and instead_of != checkpoint.step:
                    checkpoints.discard(save_to, instead_of)
            except FileNotFoundError:
                if save_to.is_dir():
                    raise
                return  # nobody needs the trial's checkpoints any more: they were removed meanwhile
            size = size_of(checkpoint.tensors)
            self.rates = self.rates.measured(size, copied - started, time.monotonic() - copied)

        self._writing = self._thread.submit(write)
        self._target = save_to / checkpoints.folder_name(checkpoint.step)
        return self._target

    def before_update(self) -> None:
        """Has the device finish the copies before it does what is launched from now on."""
        self._lane.before_update()

    def then(self, call: Callable[[], None]) -> None:
        """Calls `call` once the last checkpoint is on the disk; at once where that is so already.

        Where writing it fails, `call` is left out.
        """
        writing = self._writing
        if writing is None or writing.done():
            self.wait()
            call()
            return

        def follow() -> None:
            writing.result()
            call()

        self._writing = self._thread.submit(follow)

    def wait(self) -> None:
        """Returns when the last checkpoint is on the disk; raises what writing it raised."""
        writing = self._writing
        self._writing = None
        if writing is not None:
            writing.result()

    def wait_for(self, folder: Path) -> None:
        """Waits only where the checkpoint that is being written will lie somewhere below `folder`."""
        if folder in self._target.parents:
            self.wait()

    def linger(self, seconds: float) -> None:
        """Waits so long at most, from whichever thread; what writing raised is not said."""
        writing = self._writing
        if self.is_beside and writing is not None:
            wait([writing], timeout=seconds)

    def settle(self) -> None:
        """Returns when nothing is being written any more, whatever became of it."""
        with contextlib.suppress(Exception):
            self.wait()


def size_of(tensors: Groups) -> int:
    """Bytes of all tensors."""
    return sum(tensor.numel() * tensor.element_size() for named in tensors.values() for tensor in named.values())
