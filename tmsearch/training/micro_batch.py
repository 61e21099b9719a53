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
from tmsearch.training.warm import ModelCache

# Of a GPU's memory; the rest is for what a probe does not see: fragments, evaluation, other processes' contexts.
SAFE_SHARE = 0.85


def device_name() -> str:
    """The GPU's own name, or cpu: what a micro-batch is remembered for."""
    device = devices.device()
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def find(config: TrainConfig, speech: Speech, warm: ModelCache) -> int:
    """The most clips, halving the batch, that leave a margin of the GPU's memory; on a CPU the whole batch.

    Trains nothing: gradients of the longest clips that there could be, and no update.
    """
    clips = min(config.micro_batch_size or config.batch_size, config.batch_size)
    device = devices.device()
    if device.type != "cuda":
        return clips
    free = torch.cuda.mem_get_info(device)[0]
    limit = SAFE_SHARE * (free + torch.cuda.memory_reserved(device))
    return largest(clips, lambda count: _peak(config, speech, warm, device, count) <= limit)


def largest(clips: int, fits: Callable[[int], bool]) -> int:
    """`clips`, or the half of it, or the half of that, that first fits; 1 where none does."""
    while clips > 1:
        try:
            if fits(clips):
                return clips
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        release()
        clips = halved(clips)
    return 1


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory is what was lacking; torch's allocator on a CPU has no class of its own for it."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def halved(clips: int) -> int:
    return max(1, math.ceil(clips / 2))


def release() -> None:
    """Gives back what a failed attempt still holds."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _peak(config: TrainConfig, speech: Speech, warm: ModelCache, device: torch.device, clips: int) -> float:
    """Bytes that a step with forward passes of `clips` clips takes at most, AdamW's moments included."""
    torch.cuda.reset_peak_memory_stats(device)
    run = TrainState(config, speech, warm.whisper(config), device)
    longest = max(run.batches.labels.values(), key=len)
    mels = torch.zeros(
        clips, run.batches.extractor.feature_size, 2 * run.batches.context_rule.max_positions, device=device
    )
    inputs = torch.tensor([longest] * clips)
    labels = inputs.flatten()
    run.stepper.model.train()
    run.stepper.backward(MicroBatch((mels,), inputs, torch.arange(len(labels)), labels, len(labels)))
    moments = 2 * sum(weight.numel() * weight.element_size() for weight in run.stepper.weights.values())
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) + moments
