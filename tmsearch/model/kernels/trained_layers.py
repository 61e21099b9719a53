"""How a model's layers are run while it is trained, kept from one training to the next of the same model.

Casts of its weights, memory for their gradients and CUDA graphs are made for the tensors that a model has. They serve
each training that changes the same weights in the same way, whatever its numbers are.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from transformers import WhisperForConditionalGeneration

from tmsearch import devices
from tmsearch.config import TrainConfig
from tmsearch.model import layers
from tmsearch.model.kernels import captured, recorder
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
    makes_graphs = recorder.recorder_for(device) if captured.is_capturable(config) else None
    if kernels is not None and makes_graphs is not None:
        graphs = CapturedLayers(model, run, kernels, makes_graphs, captured.draws(config))
    return TrainedLayers(run, kernels, graphs)


class KeptLayers:
    """Those of the last training."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Drops them."""
        self._last: TrainedLayers | None = None
        self._settings: tuple[object, ...] = ()  # what they were made for
        self._weights: list[_Weight] = []  # likewise

    def get(self, model: WhisperForConditionalGeneration, config: TrainConfig, device: torch.device) -> TrainedLayers:
        """As `trained_layers`; those of the last training, where they serve this one."""
        settings = _settings(config, device, model.config.d_model)
        if self._last is None or self._settings != settings or not self._are_of(model):
            self.clear()  # their memory is needed
            self._last = trained_layers(model, config, device)
            self._settings = settings
            self._weights = [_Weight(weight) for weight in model.parameters()]  # by now laid side by side
        elif self._last.kernels is not None:
            self._last.kernels.drop_gradients()  # of a step that was abandoned
        return self._last

    def _are_of(self, model: WhisperForConditionalGeneration) -> bool:
        weights = list(model.parameters())
        if len(weights) != len(self._weights):
            return False
        return all(kept.is_still(weight) for kept, weight in zip(self._weights, weights, strict=True))


class _Weight:
    """A parameter and where its numbers were."""

    def __init__(self, weight: nn.Parameter) -> None:
        self._weight = weight
        self._place = weight.detach()
        self._is_trained = weight.requires_grad

    def is_still(self, weight: nn.Parameter) -> bool:
        """Whether `weight` is this one and was not moved, as to another format and back."""
        is_same = weight is self._weight and weight.requires_grad == self._is_trained
        return is_same and weight.dtype == self._place.dtype and weight.detach().is_set_to(self._place)


def _settings(config: TrainConfig, device: torch.device, width: int) -> tuple[object, ...]:
    """What layers are made by, besides the weights of a model of `width` (d_model)."""
    return (
        device,
        devices.uses_fused_kernels(config, device, width),
        devices.uses_compile(config, device),
        config.gradient_checkpointing,
        captured.draws(config),
        captured.is_capturable(config),
        bool(config.stochastic_depth),
    )
