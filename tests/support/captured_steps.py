"""Training steps of a toy Whisper as a GPU makes them, by graphs of a recorder on the CPU or launched."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.support import toy_whisper
from tests.support.recorder import CpuRecorder
from tests.support.varlen import by_mask
from tmsearch.model import attention, forward, trainable
from tmsearch.model import whisper as model
from tmsearch.model.kernels import captured, formulas
from tmsearch.model.kernels.captured import CapturedLayers
from tmsearch.model.kernels.fused import FusedKernels
from tmsearch.model.layers import eager_layers
from tmsearch.training import step
from tmsearch.training.optim import mixed_precision
from tmsearch.training.step import Stepper
from tmsearch.training.token_table import TokenTable

CPU = torch.device("cpu")


def pretend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets steps be those of a GPU: all clips at once, kernels as the functions that they are compiled from."""
    monkeypatch.setattr(attention, "varlen_attn", by_mask)
    monkeypatch.setattr(attention, "is_packed", lambda layer, device: True)
    monkeypatch.setattr(formulas, "compiled", lambda function: function)
    monkeypatch.setattr(mixed_precision, "compiled_update", lambda: mixed_precision.update)
    monkeypatch.setattr(step.devices, "uses_fused_kernels", lambda config, device, width: True)
    monkeypatch.setattr(captured, "ROWS_STEP", 64)
    monkeypatch.setattr(captured, "TOKENS_STEP", 4)


def micro_batch(
    seed: int, tokens: int = 7, frames: tuple[int, int] = (60, 120), labels: int | None = None
) -> forward.MicroBatch:
    """Three clips: two of the first length, one of the second."""
    generator = torch.Generator().manual_seed(seed)
    mels = tuple(
        torch.randn(clips, 80, length, generator=generator) for clips, length in zip((2, 1), frames, strict=True)
    )
    inputs = torch.randint(0, 250, (3, tokens), generator=generator)  # [clips, tokens]
    count = 3 * tokens
    return forward.MicroBatch(mels, inputs, torch.arange(count), inputs.flatten() + 1, labels or count)


def stepper(toy: Any, recorder: CpuRecorder | None, exact: bool = False, **knobs: Any) -> Stepper:
    """A Stepper with graphs by `recorder`, None: without; in float64 where `exact`."""
    config = toy_whisper.config(toy, **{"precision": "float32" if exact else "bf16", "learning_rate": 1e-3, **knobs})
    whisper = model.load(config)
    torch.manual_seed(3)
    trainable.prepare(whisper, config)
    for name, weight in whisper.model.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(std=0.1)  # new adapters are zeros, before which nothing matters
    if exact:
        whisper.model.double()
    made = Stepper(whisper, config, CPU)
    if exact:
        made._kernels = FusedKernels(torch.float64)
        made._kernels.prepare(made.model, config.gradient_checkpointing)
        made.token_table = TokenTable(made.model)
        made._layers = eager_layers(made._kernels)
    made.model.train()
    if recorder is not None:
        draws = captured.draws(config)
        made.captured = CapturedLayers(made.model, made._layers, made._kernels, recorder, draws)
    return made


BATCHES = [
    micro_batch(0),
    micro_batch(1),  # captured
    micro_batch(2, tokens=6),  # fewer tokens, the same shape
    micro_batch(3, frames=(58, 110)),  # fewer rows, the same shape
    micro_batch(4),
]
