"""Makes torch believe in a GPU: what asks CUDA directly is answered, and SDPA chooses as it does on a Hopper.

Fake tensors have shapes and a device and no data, so a step of large-v3 takes seconds and no memory.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn import functional
from torch.utils import _foreach_utils
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from tests.bench.gpu_player import kernels
from tests.bench.gpu_player.meter import Meter, Recorded
from tmsearch import devices
from tmsearch.model import attention as project_attention
from tmsearch.model.attention import Packed
from tmsearch.model.kernels import formulas, recorder
from tmsearch.training.optim import mixed_precision, stochastic_rounding

aten = torch.ops.aten
DEVICE = torch.device("cuda")
MASK_ALIGNMENT = 8  # elements; a mask of other strides is padded by a kernel of its own
# torch/_inductor/scheduler.py, MixOrderReduction, and codegen/simd.py.
ONE_PASS_ROWS = 4096
ROWS_A_PROGRAM = 16
FLASH_HEAD_DIM = 256  # the widest head that flash attention takes

chosen: Counter[str] = Counter()  # attention kernels by name


# Each an update as the one kernel that a compiler makes of it, by its own signature; played, never run.
_rounding_adamw = torch.library.custom_op(
    "played::rounding_adamw", stochastic_rounding.update, mutates_args=("weight", "mean", "square")
)
_mixed_adamw = torch.library.custom_op(
    "played::mixed_adamw", mixed_precision.update, mutates_args=("weight", "weight_cast", "mean", "square")
)


@_rounding_adamw.register_fake
@_mixed_adamw.register_fake
def _(*arguments: torch.Tensor) -> None:
    return None


def _fused_kernels(function: Callable[..., Any], arguments: Sequence[Any]) -> tuple[int, float]:
    """Launches of what torch 2.13's compiler makes of `function`, and bytes moved besides arguments and results.

    Read in the Triton code that it writes for a Hopper, which was compiled without one (2026-11-30).
    """
    if function.__name__ == "cross_entropy":  # logits are read three times
        return 2, 2 * kernels.touched(arguments[0])
    if function.__name__ not in ("norm_backward", "add_norm_backward"):
        return 1, 0.0
    rows, columns = arguments[1].shape
    if rows < ONE_PASS_ROWS:  # sums over rows read again, in the launch of the means; then two sums of parts
        return 2, kernels.touched(*arguments[:2])
    # One pass, whose two sums of 16 rows each are written, and summed by two launches more; bf16 sums are cast.
    weight = arguments[2] if function.__name__ == "norm_backward" else arguments[3]
    return 3 if weight.dtype == torch.float32 else 5, 2 * 2 * math.ceil(rows / ROWS_A_PROGRAM) * columns * 4


def fused(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` as the kernels that a compiler makes of it, where a meter runs."""

    def run(*arguments: Any) -> Any:
        for mode in _get_current_dispatch_mode_stack():
            if isinstance(mode, Meter):
                return mode.fused(function, arguments, *_fused_kernels(function, arguments))
        return function(*arguments)

    return run


def _meter() -> Meter:
    return next(mode for mode in _get_current_dispatch_mode_stack() if isinstance(mode, Meter))


class PlayedRecorder:
    """A recorder.Recorder whose graphs are metered. The memory that they keep is live from then on."""

    has_memory = False  # whether graphs are made at all

    def __init__(self, device: torch.device) -> None:
        self._before: int | None = None  # live bytes when nothing was recorded
        self._pool_bytes = 0  # that graphs keep

    def record(self, work: Callable[[], Any]) -> tuple[Any, Recorded]:
        meter = _meter()
        if self._before is None:
            self._before = meter.live_bytes
        result, graph = meter.recorded(work)
        if result is None:  # a backward pass, whose graph is the second of two
            needed = max(self._pool_bytes, graph.peak_bytes - self._before)
            meter.reserve(needed - self._pool_bytes)
            self._pool_bytes = needed
        return result, graph

    def has_room(self) -> bool:
        return self.has_memory


def install() -> None:
    """Patches torch in this process, for good."""
    FakeTensorMode.avoid_device_init = property(lambda self: True)  # type: ignore[assignment]
    cuda: Any = torch.cuda
    cuda.is_available = lambda: True
    cuda.is_bf16_supported = lambda including_emulation=True: True
    cuda.empty_cache = lambda: None
    cuda.synchronize = lambda *arguments: None
    cuda.get_device_name = lambda *arguments: "a played GPU"
    cuda.get_device_capability = lambda *arguments: (9, 0)
    cuda.get_rng_state = lambda *arguments: torch.zeros(16, dtype=torch.uint8)
    cuda.set_rng_state = lambda *arguments: None
    cuda.manual_seed_all = lambda *arguments: None
    cuda.amp.common.amp_definitely_not_available = lambda: False
    torch.backends.cuda.is_flash_attention_available = lambda: True
    functional.scaled_dot_product_attention = attention
    devices.has_compiler = lambda device: device.type == "cuda"
    stochastic_rounding.compiled_update = lambda: torch.ops.played.rounding_adamw
    mixed_precision.compiled_update = lambda: torch.ops.played.mixed_adamw
    formulas.compiled = fused
    project_attention.varlen = varlen
    recorder.CudaRecorder = PlayedRecorder  # type: ignore[assignment,misc]
    # Lists of fake tensors go through the grouped kernels, as lists of CUDA tensors do.
    _foreach_utils._foreach_supported_types.append(FakeTensor)
    _foreach_utils._device_has_foreach_support = lambda device: True  # type: ignore[assignment]


@functools.cache
def fake_tensors() -> FakeTensorMode:
    """The mode in which whatever is made has no data: one for a process, since modes do not mix."""
    return FakeTensorMode(allow_non_fake_inputs=True)


_varlen = project_attention.varlen


def varlen(
    head_dim: int,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    query_ends: torch.Tensor,
    longest_query: int,
    packed: Packed,
) -> torch.Tensor:
    """The project's own, with the lengths noted that the kernel would read from the device."""
    chosen["varlen"] += 1
    lengths = [(length if query_ends is packed.ends else longest_query, length) for length in packed.lengths]
    kernels.clip_lengths[len(query), len(key)] = lengths
    return _varlen(head_dim, query, key, value, query_ends, longest_query, packed)


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """functional.scaled_dot_product_attention as on sm_90 with cuDNN's kernel turned off.

    Which kernel is chosen: torch's aten/src/ATen/native/transformers, attention.cpp and cuda/sdp_utils.cpp.
    """
    if query.device.type != "cuda":
        return torch._C._nn.scaled_dot_product_attention(query, key, value, attn_mask, dropout_p, is_causal)
    if torch.is_autocast_enabled("cuda"):
        dtype = torch.get_autocast_dtype("cuda")
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
        if attn_mask is not None and attn_mask.is_floating_point():
            attn_mask = attn_mask.to(dtype)
    with torch.autocast("cuda", enabled=False):
        is_half = query.dtype in (torch.bfloat16, torch.float16)
        if attn_mask is None and is_half and query.shape[-1] <= FLASH_HEAD_DIM:
            chosen["flash"] += 1
            flash = aten._scaled_dot_product_flash_attention
            return flash(query, key, value, dropout_p, is_causal, False, scale=scale)[0]
        if attn_mask is not None:
            attn_mask = _prepared_mask(attn_mask, query, key)
        chosen["efficient"] += 1
        needs_gradient = torch.is_grad_enabled() and any(part.requires_grad for part in (query, key, value))
        efficient = aten._scaled_dot_product_efficient_attention
        return efficient(query, key, value, attn_mask, needs_gradient, dropout_p, is_causal, scale=scale)[0]


def _prepared_mask(mask: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """The mask as numbers, its rows aligned, for each clip and head."""
    if mask.dtype == torch.bool:
        hidden = torch.full((), -math.inf, dtype=query.dtype, device=query.device)
        mask = torch.where(mask, 0.0, hidden)
    is_aligned = all(stride % MASK_ALIGNMENT == 0 for stride in mask.stride()[:-1])
    if not is_aligned or mask.stride(-1) != 1:
        width = mask.shape[-1]
        mask = functional.pad(mask, (0, MASK_ALIGNMENT - width % MASK_ALIGNMENT))[..., :width]
    return mask.expand(query.shape[0], query.shape[1], query.shape[2], key.shape[2])
