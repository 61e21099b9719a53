"""Where a fine-tune runs: device, threads and number format."""

from __future__ import annotations

import torch
from torch import nn

from tmsearch.config import TrainConfig
from tmsearch.errors import InputError

# On a CPU bfloat16 pays in models from Whisper tiny's width on. Measured on 2 cores with AVX512_BF16: a training step
# of tiny (384) at 8 s takes 0.64 of its float32 time, one of the demo's micro (128) 0.85, and differs on each CPU.
CPU_BF16_WIDTH = 384


def device() -> torch.device:
    """The accelerator, if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def settle(threads: int) -> torch.device:
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
    if place.type == "cuda":
        # cuDNN rebuilds its attention plan at every new shape, about a second each; labels change shape every batch.
        torch.backends.cuda.enable_cudnn_sdp(False)
    return place


def move(module: nn.Module, place: torch.device, dtype: torch.dtype | None = None) -> None:
    """Moves a model in place, and casts it where `dtype` is given; transformers' own `to` has no usable types."""
    nn.Module.to(module, place, dtype)


def uses_bf16(config: TrainConfig, place: torch.device, width: int) -> bool:
    """Whether the matrix products of a model of `width` (d_model) run in bfloat16 there.

    Raises InputError where `precision: bf16` is asked of a GPU that has none; a CPU without it emulates it, slowly.
    """
    if config.precision == "float32":
        return False
    if place.type == "cuda":
        able = bool(torch.cuda.is_bf16_supported(including_emulation=False))
        if config.precision == "bf16" and not able:
            raise InputError("precision: bf16: this GPU has no bfloat16; set precision: float32")
        return able
    return config.precision == "bf16" or (width >= CPU_BF16_WIDTH and _cpu_has_bf16())


def autocast(config: TrainConfig, place: torch.device, width: int) -> torch.autocast:
    """The context that forward passes run in: weights stay float32, products take the config's format."""
    return torch.autocast(place.type, dtype=torch.bfloat16, enabled=uses_bf16(config, place, width))


def _cpu_has_bf16() -> bool:
    """In hardware: Intel from Cooper Lake and Sapphire Rapids, AMD from Zen 4."""
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_bf16"))
