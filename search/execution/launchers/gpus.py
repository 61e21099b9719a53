"""Which GPUs this process may use, asked without torch: importing it would cost a supervisor seconds and memory."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import re
import subprocess
from pathlib import Path

_DRIVER = Path("/proc/driver/nvidia/gpus")
_SECONDS = 20.0  # for nvidia-smi; a driver that hangs answers never
_CUDA_LIBRARY = "libcuda.so.1"
# `nvidia-smi -L`: "GPU 0: NVIDIA H100 (UUID: GPU-...)", and behind a GPU that is divided its instances,
# "  MIG 1g.10gb  Device 0: (UUID: MIG-...)", which CUDA_VISIBLE_DEVICES takes by that name only.
_CARD = re.compile(r"^GPU (\d+):")
_INSTANCE = re.compile(r"^\s+MIG .*\(UUID: (MIG-[^)]+)\)")


def gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them.

    By that variable where it is set; else by the driver's folder in /proc, by nvidia-smi where there is none (WSL, some
    containers), by the CUDA driver where there is no nvidia-smi either.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = [name.strip() for name in visible.split(",")]
        return [name for name in names if name and name != "-1"]
    cards = list(_DRIVER.glob("*"))
    if cards:
        return [str(number) for number in range(len(cards))]
    return list(_from_nvidia_smi(os.environ.get("PATH", "")) or _from_driver())


@functools.cache
def _from_nvidia_smi(path: str) -> tuple[str, ...]:
    """Those that nvidia-smi on `path` lists; none where it is missing, fails or hangs."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        command = ["nvidia-smi", "-L"]
        environment = {**os.environ, "PATH": path}
        listed = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, env=environment)
        if listed.returncode == 0:
            return _listed(listed.stdout)
    return ()


def _listed(text: str) -> tuple[str, ...]:
    """The names in what `nvidia-smi -L` printed: of a divided GPU its instances, else its number."""
    names: list[list[str]] = []  # by GPU: its number, then its instances
    for line in text.splitlines():
        card = _CARD.match(line)
        instance = _INSTANCE.match(line)
        if card:
            names.append([card[1]])
        elif instance and names:
            names[-1].append(instance[1])
    return tuple(name for card in names for name in (card[1:] or card))


@functools.cache
def _from_driver() -> tuple[str, ...]:
    """Those that the CUDA driver counts; it makes no context, which would take memory of each."""
    with contextlib.suppress(OSError, AttributeError):
        driver = ctypes.CDLL(_CUDA_LIBRARY)
        count = ctypes.c_int(0)
        if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0:
            return tuple(str(number) for number in range(count.value))
    return ()


def sharing(workers: int, cards: int) -> list[int]:
    """How many of `workers` each of `cards` GPUs gets, the first ones most; empty without GPUs."""
    return [workers // cards + (card < workers % cards) for card in range(cards)]
