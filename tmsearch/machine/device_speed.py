"""How fast the device that trains multiplies and copies, measured here."""

from __future__ import annotations

import time

FLOAT_BYTES = 4


def matmul_rate(threads: int, seconds: float = 0.1, bf16: bool = False) -> float:
    """Floating-point operations a second of a matrix product here, float32 or bfloat16, measured for `seconds`."""
    import torch

    from tmsearch import devices

    device = devices.configure_device(threads)
    size = 512
    if device.type == "cuda":
        size = 8192 if bf16 else 2048
    # Random, since a GPU multiplies zeros and ones faster than other numbers.
    matrix = torch.randn(size, size, device=device, dtype=torch.bfloat16 if bf16 else torch.float32)

    def multiply() -> None:
        float((matrix @ matrix)[0, 0])  # reading a number waits for the device

    multiply()
    rounds = 0
    started = time.perf_counter()
    while True:
        elapsed = time.perf_counter() - started
        if elapsed >= seconds and rounds >= 3:
            return 2 * size**3 * (rounds / elapsed)
        multiply()
        rounds += 1


def copy_rate(rounds: int = 20, megabytes: int = 256) -> float:
    """Bytes a second, read and written, of a copy on the device that trains."""
    import torch

    from tmsearch import devices

    source = torch.ones(megabytes * 250_000, device=devices.device())
    target = torch.empty_like(source)
    target.copy_(source)
    float(target[0])  # reading a number waits for the device
    started = time.perf_counter()
    for _ in range(rounds):
        target.copy_(source)
    float(target[0])
    return 2 * FLOAT_BYTES * len(source) * rounds / (time.perf_counter() - started)
