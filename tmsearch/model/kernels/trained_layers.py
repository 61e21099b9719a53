"""How a model's layers are run while it is trained, kept from one training to the next of the same model.

Casts of its weights, memory for their gradients and CUDA graphs are made for the tensors that a model has. They serve
each training that changes the same weights in the same way, whatever its numbers are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import WhisperForConditionalGeneration

from tmsearch import devices
from tmsearch.config import TrainConfig
from tmsearch.model import layers
from tmsearch.model.kernels import captured
from tmsearch.model.kernels.captured import CapturedLayers
from tmsearch.model.kernels.fused import FusedKernels
from tmsearch.model.layers import Layers


@dataclass(frozen=True)
class TrainedLayers:
    """What a training step runs a model's layers by."""

    layers: Layers
    kernels: FusedKernels | None  # None: the modules' own, or compiled ones
    captured: CapturedLayers | None  # None: layers are launched in every step


def trained_layers(model: WhisperForConditionalGeneration, config: TrainConfig, device: torch.device) -> TrainedLayers:
    """For `model`, which is on `device` and prepared as `config` says."""
    kernels = None
    run = layers.EAGER
    if devices.uses_fused_kernels(config, device, model.config.d_model):
        kernels = FusedKernels()
        kernels.prepare(model, config.gradient_checkpointing)
        run = layers.eager_layers(kernels)
    if devices.uses_compile(config, device):
        run = layers.compiled_layers()
    if config.gradient_checkpointing:
        run = layers.recomputed(run, draws=captured.draws(config))
    graphs = None
    recorder = captured.recorder_for(device) if captured.is_capturable(config) else None
    if kernels is not None and recorder is not None:
        graphs = CapturedLayers(model, run, kernels, recorder)
    return TrainedLayers(run, kernels, graphs)


class KeptLayers:
    """Those of the last training."""

    def __init__(self) -> None:
        self._last: TrainedLayers | None = None
        self._made_for: tuple[object, ...] = ()

    def get(self, model: WhisperForConditionalGeneration, config: TrainConfig, device: torch.device) -> TrainedLayers:
        """As `trained_layers`; those of the last training, where they serve this one."""
        if self._last is None or self._made_for != _needs(model, config, device):
            self.clear()  # their memory is needed
            self._last = trained_layers(model, config, device)
            self._made_for = _needs(model, config, device)  # weights may have been laid side by side
        elif self._last.kernels is not None:
            self._last.kernels.drop_gradients()  # of a step that was abandoned
        return self._last

    def clear(self) -> None:
        """Drops them."""
        self._last = None
        self._made_for = ()


def _needs(model: WhisperForConditionalGeneration, config: TrainConfig, device: torch.device) -> tuple[object, ...]:
    """What layers are made for: equal where those of one training serve another."""
    width = model.config.d_model
    return (
        model,
        device,
        devices.uses_fused_kernels(config, device, width),
        devices.uses_compile(config, device),
        config.gradient_checkpointing,
        captured.draws(config),
        captured.is_capturable(config),
        bool(config.stochastic_depth),
        # Tensors by themselves and by where their numbers are: a model that was moved has them elsewhere.
        tuple((id(weight), weight.data_ptr(), weight.dtype, weight.requires_grad) for weight in model.parameters()),
    )
