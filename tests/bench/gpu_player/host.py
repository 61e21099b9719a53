"""The host's own time for a training step: many narrow layers on the CPU, so that arithmetic takes next to nothing.

What is timed is Python, torch's dispatcher and autograd. A CUDA launch costs about what so small a CPU kernel does.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from tests.bench.gpu_player import workload
from tests.bench.gpu_player.shapes import Shapes
from tmsearch import devices
from tmsearch.config import TrainConfig
from tmsearch.model import attention
from tmsearch.model.forward import MicroBatch
from tmsearch.model.kernels import captured
from tmsearch.model.kernels.captured import CapturedLayers
from tmsearch.training.step import Stepper

NARROW = Shapes(d_model=8, encoder_layers=32, decoder_layers=32, heads=2, n_mels=16, vocabulary=600)
POSITIONS = 20
TOKENS = 5
CPU = torch.device("cpu")


class _NoGraph:
    def replay(self) -> None:
        """Nothing: what the host does for it is one call of the driver, which is not timed here."""


class _HostRecorder:
    """A recorder.Recorder: what is recorded is run, and a replay does nothing."""

    def __init__(self, device: torch.device) -> None:
        pass

    def record(self, work: Callable[[], Any]) -> tuple[Any, _NoGraph]:
        return work(), _NoGraph()

    def has_room(self) -> bool:
        return True


def milliseconds(
    config: TrainConfig, groups: int, layers: int = 32, steps: int = 7, is_captured: bool = False
) -> dict[str, float]:
    """Medians over `steps` steps of batches in `groups` lengths: of the whole step, and of its gradients.

    With `is_captured` the layers are replayed from graphs in all steps that count.

    Attention is the GPU's: one launch for all clips, of an operator that does next to nothing. So are the kernels that
    join several operations, compiled for this CPU unless `config` compiles nothing.
    """
    devices.uses_fused_kernels = lambda config, device, width: config.compile is not False  # type: ignore[assignment]
    untyped: Any = attention
    untyped.is_packed = lambda layer, device: True
    untyped.varlen_attn = lambda query, key, value, *ends, scale: _varlen(query, key, value, scale)
    torch.set_num_threads(1)
    shapes = dataclasses.replace(NARROW, encoder_layers=layers, decoder_layers=layers)
    stepper = Stepper(workload.whisper(shapes, config, CPU, POSITIONS), config, CPU)
    if is_captured:
        assert stepper._kernels is not None
        stepper.captured = CapturedLayers(stepper.model, stepper._layers, stepper._kernels, _HostRecorder(CPU))
        shape_graphs: Any = captured._ShapeGraphs
        shape_graphs._is_like = lambda graphs, given, expected: True  # a replay that does nothing gives nothing
    warm = 1 + is_captured
    part = _micro_batch(config.batch_size, groups)
    spent: list[float] = []
    backward = stepper.backward

    def timed(micro_batch: MicroBatch) -> torch.Tensor:
        started = time.process_time()
        loss = backward(micro_batch)
        spent.append(time.process_time() - started)
        return loss

    stepper.backward = timed  # type: ignore[method-assign]
    whole = []
    for number in range(1, steps + warm + 1):
        started = time.process_time()
        stepper.launch(number, [part])
        whole.append(time.process_time() - started)
    assert not is_captured or (stepper.captured is not None and stepper.captured._graphs)
    return {"step": 1e3 * statistics.median(whole[warm:]), "gradients": 1e3 * statistics.median(spent[warm:])}


@torch.library.custom_op("tmsearch_bench::varlen", mutates_args=())
def _varlen(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor:
    """Shaped as attention, and called as torch's own operator for clips of any lengths is: through Python."""
    return torch.zeros_like(query)


@torch.library.custom_op("tmsearch_bench::varlen_backward", mutates_args=())
def _varlen_backward(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.zeros_like(query), torch.zeros_like(key), torch.zeros_like(value)


def _keep(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.save_for_backward(*inputs[:3])


def _gradients(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    return (*_varlen_backward(*ctx.saved_tensors), None)


_varlen.register_autograd(_gradients, setup_context=_keep)


def _micro_batch(clips: int, groups: int) -> MicroBatch:
    """`clips` clips in groups of lengths that differ."""
    mels = []
    for index in range(groups):
        size = clips // groups + (index < clips % groups)
        mels.append(torch.randn(size, NARROW.n_mels, 2 * (1 + index)))  # [clips, n_mels, frames]
    labels = clips * TOKENS
    inputs = torch.zeros(clips, TOKENS, dtype=torch.long)
    return MicroBatch(tuple(mels), inputs, torch.arange(labels), torch.zeros(labels, dtype=torch.long), labels)
