"""How many clips a forward pass takes: found once for a model and a device, halved where memory runs out."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable

import torch

from tmsearch import devices
from tmsearch.config import TrainConfig
from tmsearch.features.dataset import Speech
from tmsearch.model.forward import MicroBatch
from tmsearch.training.state import TrainState
from tmsearch.training.train import ModelCache

# Of a GPU's memory; the rest is for what a probe does not see: fragments, evaluation, other processes' contexts.
SAFE_SHARE = 0.85


def device_name() -> str:
    """The GPU's name, or cpu: a study keeps the micro-batch that it found for each."""
    device = devices.device()
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def find(config: TrainConfig, speech: Speech, model_cache: ModelCache) -> int:
    """The largest number of clips, halving the batch, whose step fits in SAFE_SHARE of the GPU's memory; on a CPU the
    whole batch.

    Trains nothing: it computes gradients of the longest clips that can occur, and updates no weight.
    """
    clips = min(config.micro_batch_size or config.batch_size, config.batch_size)
    device = devices.device()
    if device.type != "cuda":
        return clips
    free = torch.cuda.mem_get_info(device)[0]
    limit = SAFE_SHARE * (free + torch.cuda.memory_reserved(device))
    return largest(clips, lambda count: _peak(config, speech, model_cache, device, count) <= limit)


def largest(clips: int, fits: Callable[[int], bool]) -> int:
    """`clips`, or the first of its halves that fits; 1 where none does."""
    while clips > 1:
        try:
            if fits(clips):
                return clips
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        free_memory()
        clips = halve(clips)
    return 1


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory is what was lacking; torch's allocator on a CPU has no error class of its own."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def halve(clips: int) -> int:
    """Half of `clips`, rounded up."""
    return max(1, math.ceil(clips / 2))


def free_memory() -> None:
    """Gives back what a failed attempt still holds."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _peak(config: TrainConfig, speech: Speech, model_cache: ModelCache, device: torch.device, clips: int) -> float:
    """Peak bytes of a step with forward passes of `clips` clips, AdamW's moments included."""
    torch.cuda.reset_peak_memory_stats(device)
    state = TrainState(config, speech, model_cache.whisper(config), device)
    batches = state.batches
    longest = batches.longest_row()
    frames = 2 * batches.context_rule.max_positions
    mels = torch.zeros(clips, batches.extractor.feature_size, frames, device=device)  # [clips, n_mels, frames]
    inputs = torch.tensor([longest] * clips)  # [clips, positions]
    labels = inputs.flatten()  # [clips * positions]
    state.stepper.model.train()
    state.stepper.backward(MicroBatch((mels,), inputs, torch.arange(len(labels)), labels, len(labels)))
    moments = 2 * sum(weight.numel() * weight.element_size() for weight in state.stepper.weights.values())
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) + moments
