"""What each of torch's operators costs on the played GPU: launches, seconds, FLOP, bytes moved."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from tests.bench.gpu_player.rates import Rates

TERA = 1e12
MICRO = 1e-6
MULTIPROCESSORS = 132  # of a Hopper


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


VIEWS = _names(
    "view _unsafe_view expand permute transpose t unsqueeze squeeze slice select detach alias as_strided unbind split "
    "split_with_sizes reshape empty empty_like empty_strided new_empty new_empty_strided is_same_size lift_fresh "
    "_local_scalar_dense sym_size narrow chunk resize_ set_ device"
)
PRODUCTS = _names("mm addmm addmm_ bmm baddbmm _addmm_activation")
FILLS = _names(
    "fill_ zero_ zeros zeros_like ones full new_zeros new_full scalar_tensor arange ones_like full_like randint "
    "new_ones"
)
LOOKUPS = _names("index_select embedding gather index")
SCATTERS = _names("index_add_ scatter_add_ index_copy_ index_fill_")
# Operators of several kernels; all others that are not below take one.
LAUNCHES = {"slice_backward": 2, "select_backward": 2, "native_layer_norm_backward": 2, "constant_pad_nd": 2}
# torch's grouped kernels (aten/src/ATen/native/cuda/MultiTensorApply.cuh).
CHUNK = 65_536  # elements a block
BLOCKS = 320  # most of a launch
TENSORS = 110  # most of a launch
HEAD_DIM = 64  # of every Whisper
TILE = (128, 64)  # queries and keys that flash attention computes at once, whether there are as many or not
ATTENTION_STEP = 0.9  # microseconds that one block takes for 64 keys, where blocks are too few to hide each other


# Fake tensors have no lengths in them: (queries, keys) of each clip, by the rows of both, as fake_cuda.py was told.
clip_lengths: dict[tuple[int, int], list[tuple[int, int]]] = {}


@dataclass(frozen=True)
class Operator:
    """One call: its name, arguments, and the tensors among its arguments and results."""

    name: str
    args: Any
    inputs: list[torch.Tensor]
    outputs: list[torch.Tensor]


@dataclass(frozen=True)
class Cost:
    """Of one call."""

    launches: int
    seconds: float
    flop: float
    bytes_moved: float


def cost(operator: Operator, rates: Rates) -> Cost:
    """What `operator` takes on a GPU of `rates`."""
    if operator.name == "rounding_adamw":  # compiled: all is read, weight and moments are written
        weight, _, mean, square = operator.args[:4]
        return _cost(rates, 1, touched(*operator.inputs[:5], weight, mean, square))
    if operator.name == "mixed_adamw":  # likewise; the cast is only written
        weight, weight_cast, gradient, mean, square = operator.args[:5]
        return _cost(rates, 1, 2 * touched(weight, mean, square) + touched(weight_cast, gradient))
    if operator.name in PRODUCTS:
        return _product(operator, rates)
    is_varlen = operator.name in ("_flash_attention_forward", "_flash_attention_backward")
    if is_varlen or "varlen_attn" in operator.name:
        return _varlen_attention(operator, rates)
    if "flash_attention" in operator.name or "efficient_attention" in operator.name:
        return _attention(operator, rates)
    if "convolution" in operator.name:
        return _convolution(operator, rates)
    if operator.name.startswith(("_foreach", "_fused")):
        return _grouped(operator, rates)
    return _elementwise(operator, rates)


def _cost(rates: Rates, launches: int, bytes_moved: float, flop: float = 0.0, tera_rate: float = math.inf) -> Cost:
    seconds = max(flop / (tera_rate * TERA), bytes_moved / (rates.memory * TERA), launches * rates.kernel * MICRO)
    return Cost(launches, seconds, flop, bytes_moved)


def memory_bound(rates: Rates, launches: int, bytes_moved: float) -> Cost:
    """Of kernels that only move so many bytes."""
    return _cost(rates, launches, bytes_moved)


def touched(*tensors: torch.Tensor) -> float:
    """Bytes that are read or written; an expanded dimension counts once."""
    total = 0
    for tensor in tensors:
        elements = 1
        for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
            elements *= size if stride != 0 or size == 0 else 1
        total += elements * tensor.element_size()
    return float(total)


def _product(operator: Operator, rates: Rates) -> Cost:
    added = operator.name.startswith(("addmm", "baddbmm", "_addmm"))
    left, right = operator.args[1:3] if added else operator.args[0:2]
    batch = left.shape[0] if left.ndim == 3 else 1
    flop = 2.0 * batch * left.shape[-2] * left.shape[-1] * right.shape[-1]
    is_half = left.dtype in (torch.bfloat16, torch.float16)
    rate = rates.products if is_half else rates.float32_products
    return _cost(rates, 1, touched(left, right, *operator.outputs), flop, rate)


def _attention(operator: Operator, rates: Rates) -> Cost:
    """Of clips of equal length: query [clips, heads, tokens, head_dim], key [clips, heads, positions, head_dim]."""
    is_backward = "backward" in operator.name
    is_flash = "flash" in operator.name
    query, key = operator.args[1:3] if is_backward else operator.args[0:2]
    clips, heads, tokens, head_dim = query.shape
    positions = key.shape[2]
    flop = 4.0 * clips * heads * tokens * positions * head_dim
    if is_backward:
        flop *= 2.5
    if is_flash and _is_causal(operator, is_backward):
        flop *= 0.5
    if is_flash:
        rate = rates.flash_backward if is_backward else rates.flash_forward
    else:
        rate = rates.efficient_backward if is_backward else rates.efficient_forward
    # Few blocks leave multiprocessors idle: a block takes 64 (flash forward: 128) tokens of one head of one clip.
    block = 128 if is_flash and not is_backward else 64
    blocks = clips * heads * math.ceil(tokens / block)
    filled = max(0.15, min(1.0, blocks / MULTIPROCESSORS))
    bytes_moved = touched(*(tensor for tensor in (*operator.inputs, *operator.outputs) if tensor.ndim == 4))
    bounded = _cost(rates, 3 if is_backward else 1, bytes_moved, flop, rate * filled)
    latency = 0.0
    if blocks < 2 * MULTIPROCESSORS:
        latency = math.ceil(positions / 64) * ATTENTION_STEP * MICRO * (2 if is_backward else 1)
    return Cost(bounded.launches, max(bounded.seconds, latency), flop, bytes_moved)


def _varlen_attention(operator: Operator, rates: Rates) -> Cost:
    """Of clips of any lengths: query [rows, heads, head_dim], key [rows, heads, head_dim]."""
    is_backward = "backward" in operator.name
    fills_given_memory = operator.name == "_varlen_attn_out"
    query, key = operator.args[1:3] if is_backward or fills_given_memory else operator.args[0:2]
    lengths = clip_lengths[len(query), len(key)]
    width = 64 if query.shape[2] <= 64 else 96  # of the tile
    computed = 0
    for queries, keys in lengths:
        computed += math.ceil(queries / TILE[0]) * TILE[0] * math.ceil(keys / TILE[1]) * TILE[1]
    factor = 4.0 * query.shape[1] * (2.5 if is_backward else 1.0)
    useful = factor * HEAD_DIM * sum(queries * keys for queries, keys in lengths)
    tiles = factor * width * computed
    rate = rates.varlen_backward if is_backward else rates.varlen_forward
    tensors = [tensor for tensor in (*operator.inputs, *operator.outputs) if tensor.ndim == 3]
    launches = 3 if is_backward else 1
    timed = _cost(rates, launches, touched(*tensors), tiles, rate)
    return Cost(timed.launches, timed.seconds, useful, timed.bytes_moved)


def _is_causal(operator: Operator, is_backward: bool) -> bool:
    index = 10 if is_backward else 4
    return len(operator.args) > index and bool(operator.args[index])


def _convolution(operator: Operator, rates: Rates) -> Cost:
    is_backward = "backward" in operator.name
    weight = operator.args[2] if is_backward else operator.args[1]  # [channels, inputs, width]
    convolved = operator.args[0] if is_backward else operator.outputs[0]  # [clips, channels, positions]
    flop = 2.0 * convolved.numel() * weight.shape[1] * weight.shape[2] * (2 if is_backward else 1)
    bytes_moved = touched(*operator.inputs, *operator.outputs)
    return _cost(rates, 3 if is_backward else 2, bytes_moved, flop, 0.5 * rates.products)


def _grouped(operator: Operator, rates: Rates) -> Cost:
    """One operation over many tensors, as AdamW's and the gradient norm's."""
    tensors = operator.args[0]
    bytes_moved = touched(*operator.inputs, *operator.outputs)
    if operator.name.startswith("_foreach_mul_"):
        bytes_moved = 2 * touched(*operator.inputs)
    if operator.name.startswith("_fused_adamw"):  # weights and moments are read and written, gradients read
        weights, gradients, means, squares = operator.args[:4]
        bytes_moved = 2 * touched(*weights, *means, *squares) + touched(*gradients)
    elements = sum(tensor.numel() for tensor in tensors)
    launches = max(1, math.ceil(elements / CHUNK / BLOCKS), math.ceil(len(tensors) / TENSORS))
    return _cost(rates, launches, bytes_moved)


def _elementwise(operator: Operator, rates: Rates) -> Cost:
    """Copies, reductions, lookups and the rest: bound by memory."""
    on_device = [tensor for tensor in (*operator.inputs, *operator.outputs) if tensor.device.type == "cuda"]
    bytes_moved = touched(*on_device)
    if operator.name in FILLS:
        bytes_moved = touched(*operator.outputs)
    elif operator.name in LOOKUPS:
        bytes_moved = 2 * touched(*operator.outputs)
    elif operator.name in SCATTERS:
        bytes_moved = 3 * touched(*operator.inputs[1:])
    elif operator.name in ("slice_backward", "select_backward"):
        bytes_moved = touched(*operator.outputs) + 2 * touched(operator.inputs[0])
    return _cost(rates, LAUNCHES.get(operator.name, 1), bytes_moved)
