"""Models that a process has loaded before, as they came from the disk: in host memory, as long as there is enough."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from tmsearch.machine.host_memory import host_memory
from tmsearch.model import trainable
from tmsearch.model.whisper import Whisper

ModelKey = tuple[str, str | None]  # name and revision
# Of the host's memory, which stays free for what comes next: the other model, a checkpoint being written, files.
FREE_SHARE = 0.25


@dataclass(frozen=True)
class _KeptModel:
    whisper: Whisper  # with the tensors of `untouched` as its weights
    untouched: dict[str, torch.Tensor]

    @property
    def bytes(self) -> int:
        storages = {weight.untyped_storage().data_ptr(): weight.nbytes for weight in self.untouched.values()}
        return sum(storages.values())


class KeptModels:
    """Untouched models by name and revision; which of them are dropped first: those whose turn is longest ago."""

    def __init__(self) -> None:
        self._models: dict[ModelKey, _KeptModel] = {}  # in order of their last use

    def put(self, key: ModelKey, whisper: Whisper, untouched: dict[str, torch.Tensor]) -> None:
        """Takes a model that is done with, whatever was trained of it and wherever it is; its memory there is freed.

        `untouched` is its state as it was loaded, on the host.
        """
        trainable.remove_adapters(whisper)
        whisper.model.zero_grad(set_to_none=True)
        for weight, value in _weights(whisper, untouched):
            weight.data = value
        self._models[key] = _KeptModel(whisper, untouched)
        self.make_room()

    def take(self, key: ModelKey, device: torch.device) -> tuple[Whisper, dict[str, torch.Tensor]] | None:
        """The model with weights of its own on `device`, and its untouched state; None where it was not kept."""
        kept = self._models.pop(key, None)
        if kept is None:
            return None
        for weight, value in _weights(kept.whisper, kept.untouched):
            weight.data = value.to(device, copy=True)
        return kept.whisper, kept.untouched

    def make_room(self) -> None:
        """Drops models until FREE_SHARE of the memory is free."""
        memory = host_memory()
        lacking = FREE_SHARE * memory.total - memory.free
        while self._models and (lacking > 0 or not memory.total):
            # What it frees may stay with this process's allocator, which the system does not count as free.
            lacking -= self._models.pop(next(iter(self._models))).bytes

    def clear(self) -> None:
        """Drops all."""
        self._models.clear()


def _weights(whisper: Whisper, state: Mapping[str, torch.Tensor]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """A model's parameters and buffers, tied ones once, each with what `state` has for it."""
    for name, weight in (*whisper.model.named_parameters(), *whisper.model.named_buffers()):
        if name in state:
            yield weight, state[name]


def untouched_copy(whisper: Whisper) -> dict[str, torch.Tensor]:
    """A model's state as it is now, on the host: a copy, in which tied weights are tied."""
    copies: dict[int, torch.Tensor] = {}
    state = {}
    for name, weight in whisper.model.state_dict().items():
        address = weight.data_ptr()
        if address not in copies:
            copies[address] = weight.detach().to("cpu", copy=True)
        state[name] = copies[address]
    return state
