"""The memory that an update cannot avoid moving, and the rate at which this machine moves memory."""

from __future__ import annotations

import time

import torch

from tmsearch import devices
from tmsearch.config import TrainConfig
from tmsearch.model import cost
from tmsearch.model.context import POSITIONS_PER_SECOND
from tmsearch.model.whisper import ModelInfo

# In copies of the trained weights: weights read forward, backward and by AdamW and written; gradients written and
# read; two moments read and written.
UPDATE_MOVES = 10


def bytes_per_step(model: ModelInfo, config: TrainConfig, label_tokens: float, seconds: float) -> int:
    """Read and written, with caches as large as need be: what no program could avoid."""
    positions = round(seconds * POSITIONS_PER_SECOND)
    number_bytes = cost.BF16_BYTES if config.low_memory else cost.FLOAT_BYTES
    activations = config.batch_size * cost.activations(model, config, positions, label_tokens)
    return round(number_bytes * (UPDATE_MOVES * cost.trained_parameters(model, config) + 2 * activations))


def copy_rate(threads: int, seconds: float = 0.1) -> float:
    """Bytes a second, read and written, of a copy of 256 MB here, measured for about `seconds`."""
    source = torch.ones(64 << 20, device=devices.configure_device(threads))
    target = torch.empty_like(source)

    def copy() -> None:
        float(target.copy_(source)[0])  # reading a number waits for the device

    copy()
    rounds = 0
    started = time.perf_counter()
    while time.perf_counter() - started < seconds or rounds < 3:
        copy()
        rounds += 1
    return 2 * source.numel() * cost.FLOAT_BYTES * rounds / (time.perf_counter() - started)
