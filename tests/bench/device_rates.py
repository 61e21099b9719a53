"""What this machine's device reaches, under the names that gpu_model.py takes after `--measured`.

Products and attention in TFLOP/s, memory in TB/s, times in microseconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import torch
from torch.nn import functional

from tmsearch.model import cost

# Shapes of a training step of large-v3 with 16 clips of 10 s, and of a toy.
LARGE = {"rows": 8192, "width": 1280, "peak": 8192, "clips": 16, "heads": 20, "positions": 512, "copied": 64 << 20}
SMALL = {"rows": 256, "width": 64, "peak": 256, "clips": 2, "heads": 2, "positions": 64, "copied": 1 << 20}
HEAD = 64  # numbers of an attention head
SECONDS = {"cuda": 0.2, "cpu": 0.01}  # of each measurement
TINY_LAUNCHES = 200


def seconds_of(action: Callable[[], object], device: torch.device) -> float:
    """Seconds that `action` takes on the device, over some SECONDS of it."""
    seconds = SECONDS[device.type]
    _wait(device)
    action()
    _wait(device)
    rounds = 0
    started = time.perf_counter()
    while time.perf_counter() - started < seconds or rounds < 3:
        action()
        rounds += 1
        if rounds % 8 == 0:  # or the queue of launches would grow without end
            _wait(device)
    _wait(device)
    return (time.perf_counter() - started) / rounds


def measure(device: torch.device) -> Iterator[tuple[str, float]]:
    """Each rate that can be measured here, by name."""
    sizes = LARGE if device.type == "cuda" else SMALL
    bf16 = torch.bfloat16
    yield "peak", _product(sizes["peak"], sizes["peak"], sizes["peak"], bf16, device)
    yield "products", _product(sizes["rows"], sizes["width"], 4 * sizes["width"], bf16, device)
    yield "float32_products", _product(sizes["rows"], sizes["width"], 4 * sizes["width"], torch.float32, device)
    for name, is_masked in (("flash", False), ("efficient", True)):
        forward, backward = _attention(sizes, is_masked, device)
        yield f"{name}_forward", forward
        yield f"{name}_backward", backward
    source = torch.ones(sizes["copied"], device=device)
    target = torch.empty_like(source)
    yield "memory", 2 * source.nbytes / seconds_of(lambda: target.copy_(source), device) / 1e12
    number = torch.zeros(8, device=device)

    def launch() -> None:
        for _ in range(TINY_LAUNCHES):
            number.add_(1)

    started = time.perf_counter()
    launch()
    host = time.perf_counter() - started
    yield "launch", 1e6 * host / TINY_LAUNCHES
    if device.type == "cuda":
        yield "kernel", 1e6 * _graph_seconds(launch, device) / TINY_LAUNCHES


def _product(rows: int, inner: int, columns: int, dtype: torch.dtype, device: torch.device) -> float:
    """TFLOP/s of [rows, inner] by [inner, columns]; random numbers, as zeros are multiplied faster."""
    left = torch.randn(rows, inner, device=device, dtype=dtype)
    right = torch.randn(inner, columns, device=device, dtype=dtype)
    return 2 * rows * inner * columns / seconds_of(lambda: left @ right, device) / 1e12


def _attention(sizes: dict[str, int], is_masked: bool, device: torch.device) -> tuple[float, float]:
    """TFLOP/s of SDPA without and with a bias, forward and backward."""
    clips, heads, positions = sizes["clips"], sizes["heads"], sizes["positions"]
    shape = (clips, heads, positions, HEAD)
    query, key, value = (torch.randn(shape, device=device, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    mask = None
    if is_masked:
        mask = torch.zeros(1, 1, 1, positions, device=device, dtype=torch.bfloat16).expand(1, 1, positions, positions)
    flop = 4 * clips * heads * positions**2 * HEAD
    attended = functional.scaled_dot_product_attention(query, key, value, mask)
    upstream = torch.randn_like(attended)

    def backward() -> None:
        torch.autograd.grad(attended, (query, key, value), upstream, retain_graph=True)

    forward = seconds_of(lambda: functional.scaled_dot_product_attention(query, key, value, mask), device)
    return flop / forward / 1e12, cost.BACKWARD * 1.25 * flop / seconds_of(backward, device) / 1e12


def _graph_seconds(launch: Callable[[], None], device: torch.device) -> float:
    """Seconds of these launches on the device, which a graph holds so that the host is no limit."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        launch()
    return seconds_of(graph.replay, device)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
