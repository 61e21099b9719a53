"""Where a fine-tune runs: device, threads and number format."""

from __future__ import annotations

import ctypes
import functools
import math
import sys
import time

import torch
from torch import nn

from tmsearch.config import TrainConfig
from tmsearch.errors import InputError

# On a CPU bfloat16 pays, if at all, in models from Whisper tiny's width on. Measured on 2 cores with AVX512_BF16: on
# one machine a training step of tiny (384) takes 0.64 of its float32 time, one of the demo's micro (128) 0.85; on
# another, whose processor reports the same instructions, tiny takes 1.5 times as long. So it is measured, once.
CPU_BF16_WIDTH = 384
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # glibc, malloc.h
CPU_BF16_GAIN = 1.3  # of a matrix product, over float32; below it conversions eat the gain


def device() -> torch.device:
    """The accelerator, if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def configure_device(threads: int) -> torch.device:
    """Sets this process's threads and attention kernels, and names the device that it trains on.

    A CPU's results are equal to the bit only at one thread count, so every stretch sets its own.
    """
    torch.set_num_threads(threads)
    place = device()
    # The decoder looks its positions up by index; on a CPU that gradient is summed by all threads at once, in an order
    # that changes from run to run, unless torch is told (seen on tiny.en: same seed, another loss from step 11 on).
    torch.use_deterministic_algorithms(place.type == "cpu")
    # It would also fill fresh memory, against programs that read it unwritten.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if place.type == "cpu":
        _keep_freed_memory()
    else:
        # cuDNN rebuilds its attention plan at every new shape, about a second each; labels change shape every batch.
        torch.backends.cuda.enable_cudnn_sdp(False)
    return place


@functools.cache
def _keep_freed_memory() -> None:
    """Lets a step use the memory of the step before, instead of giving it back and having it zeroed, page by page.

    glibc only. A step of Whisper tiny takes 75,000 page faults less, .9 s instead of 1.2 s (2 cores, 2026-11-23).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def move(module: nn.Module, place: torch.device, dtype: torch.dtype | None = None) -> None:
    """Moves a model in place, and casts it where `dtype` is given; transformers' own `to` has no usable types."""
    nn.Module.to(module, place, dtype)


def uses_bf16(config: TrainConfig, place: torch.device, width: int) -> bool:
    """Whether the matrix products of a model of `width` (d_model) run in bfloat16 there.

    Raises InputError where `precision: bf16` is asked of a GPU that has none; a CPU without it emulates it, slowly.
    """
    if config.low_memory:
        if config.precision == "float32":
            raise InputError("low_memory: its weights are bfloat16; leave precision at auto")
        return True
    if config.precision == "float32":
        return False
    if place.type == "cuda":
        able = bool(torch.cuda.is_bf16_supported(including_emulation=False))
        if config.precision == "bf16" and not able:
            raise InputError("precision: bf16: this GPU has no bfloat16; set precision: float32")
        return able
    return config.precision == "bf16" or (width >= CPU_BF16_WIDTH and _cpu_has_bf16() and _cpu_bf16_is_faster())


def autocast(config: TrainConfig, place: torch.device, width: int) -> torch.autocast:
    """The context that forward passes run in: weights stay float32, products take the config's format."""
    return torch.autocast(place.type, dtype=torch.bfloat16, enabled=uses_bf16(config, place, width))


def uses_compile(config: TrainConfig, place: torch.device) -> bool:
    """Whether a step runs as a compiled graph there."""
    return config.compile and place.type == "cuda"


@functools.cache
def _cpu_bf16_is_faster() -> bool:
    """By the best of several products of Whisper tiny's shape in either format, alternating: some 100 ms."""
    left, right = torch.ones(1024, 384), torch.ones(384, 1536)
    best = {torch.float32: math.inf, torch.bfloat16: math.inf}
    for _ in range(8):
        for dtype in best:
            one, other = left.to(dtype), right.to(dtype)
            started = time.perf_counter()
            one @ other
            best[dtype] = min(best[dtype], time.perf_counter() - started)
    return best[torch.float32] > CPU_BF16_GAIN * best[torch.bfloat16]


def _cpu_has_bf16() -> bool:
    """In hardware: Intel from Cooper Lake and Sapphire Rapids, AMD from Zen 4."""
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))
