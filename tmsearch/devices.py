"""Where a fine-tune runs: device, threads, number format, and memory that runs out."""

from __future__ import annotations

import ctypes
import functools
import gc
import importlib.util
import math
import os
import shutil
import sys
import time
from collections.abc import Callable

import torch
from torch import nn

from tmsearch.config import TrainConfig
from tmsearch.errors import InputError

# On a CPU bfloat16 pays, if at all, in models from Whisper tiny's width on. Measured on 2 cores with AVX512_BF16: on
# one machine a training step of tiny (384) takes 0.64 of its float32 time, one of the demo's micro (128) 0.85; on
# another, whose processor reports the same instructions, tiny takes 1.5 times as long. So it is measured, once.
CPU_BF16_WIDTH = 384
CPU_BF16_GAIN = 1.3  # speed of a matrix product over float32; below it conversions cost more than is gained
# Compiling the two kinds of layers is taken to last a minute. What it can join are the kernels between the products: 25
# of the 105 ms of a step of large-v3, by the sums of tests/bench/gpu_model.py (2026-11-29; neither was measured on a
# GPU). If half of that is saved, it pays from this many steps on.
AUTO_COMPILE_STEPS = 5_000
# glibc, malloc.h
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
# What torch, cuBLAS and cuDNN say where memory is lacking and the error has no class of its own.
_LACKING_MEMORY = (
    "can't allocate memory", "CUDA error: out of memory", "_STATUS_ALLOC_FAILED", "MPS backend out of memory",
)  # fmt: skip


DEVICE_VARIABLE = "TMSEARCH_DEVICE"  # cpu: a Mac's results are equal to the bit there alone


def device() -> torch.device:
    """NVIDIA's or AMD's GPU, else Apple's, else the CPU; what TMSEARCH_DEVICE names, where it names one of these.

    Raises:
        InputError: it names another, or one that torch does not see here.
    """
    is_there: dict[str, Callable[[], bool]] = {
        "cuda": torch.cuda.is_available,
        "mps": torch.backends.mps.is_available,
        "cpu": lambda: True,
    }
    wanted = os.environ.get(DEVICE_VARIABLE)
    if wanted:
        if wanted not in is_there:
            raise InputError(
                f"{DEVICE_VARIABLE}={wanted}: no such device; give one of {', '.join(is_there)}, or unset it"
            )
        if not is_there[wanted]():
            raise InputError(f"{DEVICE_VARIABLE}={wanted}: torch does not see one here; give cpu, or unset it")
        return torch.device(wanted)
    return torch.device(next(kind for kind, is_available in is_there.items() if is_available()))


GRAPHS_VARIABLE = "TMSEARCH_CUDA_GRAPHS"  # off: if a driver should not take them


def uses_graphs(device: torch.device) -> bool:
    """Whether launches on `device` may be recorded as CUDA graphs.

    Raises:
        InputError: TMSEARCH_CUDA_GRAPHS is neither on nor off.
    """
    wanted = os.environ.get(GRAPHS_VARIABLE) or "on"
    if wanted not in ("on", "off"):
        raise InputError(f"{GRAPHS_VARIABLE}={wanted}: give on or off, or unset it")
    return device.type == "cuda" and wanted == "on"


def copied(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """`tensor` on `device`. CUDA copies on while the program goes on; Apple's backend would read memory given back."""
    return tensor.to(device, non_blocking=device.type == "cuda")


def configure_device(threads: int) -> torch.device:
    """Sets this process's threads, determinism and attention kernels, and returns the device that it trains on.

    A CPU's results are equal to the bit only at one thread count, so every segment sets its own.
    """
    torch.set_num_threads(threads)
    chosen = device()
    # The gradient of an indexed lookup, such as of the decoder's positions, is summed by all of a CPU's threads at
    # once, in an order that changes from run to run (seen on tiny.en: same seed, another loss from step 11 on).
    torch.use_deterministic_algorithms(chosen.type == "cpu")
    # The deterministic mode would also fill fresh memory, against programs that read it before they write it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if chosen.type == "cpu":
        _keep_freed_memory()
    elif chosen.type == "cuda":
        # cuDNN rebuilds its attention plan at every new shape, about a second each; labels change shape every batch.
        torch.backends.cuda.enable_cudnn_sdp(False)
    return chosen


@functools.cache
def _keep_freed_memory() -> None:
    """Lets a step reuse the memory of the step before, instead of returning it and having it zeroed, page by page.

    glibc only. A step of Whisper tiny takes 75,000 page faults less, .9 s instead of 1.2 s (2 cores, 2026-11-23).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def move(module: nn.Module, device: torch.device, dtype: torch.dtype | None = None) -> None:
    """Moves a model in place, and casts it where `dtype` is given; transformers' own `to` has no usable types."""
    nn.Module.to(module, device, dtype)


# Fewer clips at a time are tried by the program itself, before this is said.
MEMORY_ADVICE = (
    "under train, gradient_checkpointing: true, low_memory: true, optimizer: adamw_8bit or lora_r: 32 take less, "
    "and so does a smaller model"
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory is what was lacking, in this error or in the one that it was raised over.

    A CUDA graph whose recording runs out of memory ends in a second error, which only says that the recording failed.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or any(text in str(error) for text in _LACKING_MEMORY):
        return True
    earlier = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return earlier is not None and is_out_of_memory(earlier)


def free_memory() -> None:
    """Gives back what a failed attempt still holds; call it outside the `except` block, whose error holds tensors."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()


def halve(clips: int) -> int:
    """Half of `clips`, rounded up."""
    return max(1, math.ceil(clips / 2))


def uses_bf16(config: TrainConfig, device: torch.device, width: int) -> bool:
    """Whether the matrix products of a model of `width` (d_model) run in bfloat16 on `device`.

    Raises InputError for `precision: bf16` on a GPU without it; a CPU without it emulates it, slowly. Apple's GPUs
    train in float32.
    """
    if device.type == "mps":
        for knob, is_asked in (
            ("low_memory: true", config.low_memory),
            ("precision: bf16", config.precision == "bf16"),
        ):
            if is_asked:
                raise InputError(
                    f"{knob}: Apple's GPUs train in float32 here; leave it out, or set {DEVICE_VARIABLE}=cpu"
                )
        return False
    if config.low_memory:
        if config.precision == "float32":
            raise InputError("low_memory: its weights are bfloat16; leave precision at auto")
        return True
    if config.precision == "float32":
        return False
    if device.type == "cuda":
        is_supported = bool(torch.cuda.is_bf16_supported(including_emulation=False))
        if config.precision == "bf16" and not is_supported:
            raise InputError("precision: bf16: this GPU has no bfloat16; set precision: float32")
        return is_supported
    return config.precision == "bf16" or (width >= CPU_BF16_WIDTH and _cpu_has_bf16() and _cpu_bf16_is_faster())


def autocast(config: TrainConfig, device: torch.device, width: int) -> torch.autocast:
    """The autocast context of forward passes: weights stay float32, products have the config's format."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=uses_bf16(config, device, width))


def has_compiler(device: torch.device) -> bool:
    """Whether small kernels can be compiled for `device`: a GPU, Triton, and the C compiler that Triton calls."""
    if device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return False
    return any(shutil.which(name) for name in (os.environ.get("CC") or "cc", "gcc", "clang"))


def uses_compile(config: TrainConfig, device: torch.device) -> bool:
    """Whether a model's layers run as compiled kernels on `device`.

    Raises InputError for `compile: true` on a GPU that nothing can be compiled for.
    """
    if device.type != "cuda" or config.compile is False:
        return False
    if config.compile is True:
        if not has_compiler(device):
            raise InputError("compile: true: needs Triton and a C compiler; install them, or set compile: auto")
        return True
    return has_compiler(device) and config.max_steps >= AUTO_COMPILE_STEPS


def uses_fused_kernels(config: TrainConfig, device: torch.device, width: int) -> bool:
    """Whether a model of `width` (d_model) is trained by the kernels of model/kernels on `device`.

    Compiled layers join more by themselves, and AdamW in 8 bits reads gradients of float32 weights where torch puts
    them.
    """
    if config.compile is False or not has_compiler(device):
        return False
    if not config.low_memory and config.optimizer != "adamw":
        return False
    return uses_bf16(config, device, width) and not uses_compile(config, device)


@functools.cache
def _cpu_bf16_is_faster() -> bool:
    """Compares the best of several products of Whisper tiny's shape in either format, alternating: some 100 ms."""
    states = torch.ones(1024, 384)  # [positions, d_model]
    weight = torch.ones(384, 1536)  # [d_model, ffn_dim]
    best = {torch.float32: math.inf, torch.bfloat16: math.inf}
    for _ in range(8):
        for dtype in best:
            cast_states = states.to(dtype)
            cast_weight = weight.to(dtype)
            started = time.perf_counter()
            cast_states @ cast_weight
            best[dtype] = min(best[dtype], time.perf_counter() - started)
    return best[torch.float32] > CPU_BF16_GAIN * best[torch.bfloat16]


def _cpu_has_bf16() -> bool:
    """In hardware: Intel from Cooper Lake and Sapphire Rapids, AMD from Zen 4."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
