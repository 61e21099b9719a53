"""One update of a Whisper's weights: forward, loss, gradients, AdamW; nothing here waits for the device."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn
from transformers import WhisperForConditionalGeneration

from tmsearch import devices
from tmsearch.config import TrainConfig
from tmsearch.model import forward, trainable
from tmsearch.model.forward import MicroBatch, TokenTable
from tmsearch.model.whisper import Whisper
from tmsearch.training import optimizer


@dataclass(frozen=True)
class PendingStep:
    """An update that the device may still be at: `measured` is the batch's mean loss and the gradient's norm."""

    step: int
    learning_rate: float  # of the layers at the output
    measured: torch.Tensor  # [2]


class Stepper:
    """A prepared model with its optimiser."""

    def __init__(self, whisper: Whisper, config: TrainConfig, device: torch.device) -> None:
        self.model, self.config, self.device = whisper.model, config, device
        self.weights = trainable.trainable_parameters(whisper)
        self.optimizer = optimizer.adamw(whisper, config)
        self.token_table = TokenTable(whisper.model)
        self._hidden = torch.compile(_hidden, dynamic=False) if devices.uses_compile(config, device) else _hidden

    def launch(self, step: int, batch: Iterable[MicroBatch]) -> PendingStep:
        """Update number `step`, from 1, over the micro-batches of one batch."""
        self.model.train()
        rate = optimizer.set_rates(self.optimizer, self.config, step)
        loss = torch.zeros((), device=self.device)
        for part in batch:
            loss += self.backward(part)
        norm = nn.utils.clip_grad_norm_(self.weights.values(), self.config.max_grad_norm or math.inf)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return PendingStep(step, rate, torch.stack([loss, norm.float()]))

    def backward(self, part: MicroBatch) -> torch.Tensor:
        """Adds the gradients of `part`; its share of the batch's loss."""
        inputs = part.decoder_inputs.to(self.device, non_blocking=True)
        embedded = self.token_table.embed(inputs)
        with devices.autocast(self.config, self.device, self.model.config.d_model):
            mels = [run.to(self.device, non_blocking=True) for run in part.mels]
            states = self._hidden(self.model, mels, embedded, self.config.context_silence)
            hidden = states.flatten(0, 1).index_select(0, part.label_positions.to(self.device, non_blocking=True))
            labels = part.labels.to(self.device, non_blocking=True)
            loss, gradient = self.token_table.loss(hidden, labels, part.batch_label_count, self.config.label_smoothing)
        if hidden.requires_grad:  # not when every adapted layer happened to be skipped
            hidden.backward(gradient)  # type: ignore[no-untyped-call]
        self.token_table.add_gradient(inputs, embedded)
        return loss


def _hidden(
    model: WhisperForConditionalGeneration, mels: list[torch.Tensor], embedded: torch.Tensor, silence: bool
) -> torch.Tensor:
    """The decoder's last states: everything between log-mels and vocabulary, which one graph can hold."""
    return forward.decode(model, embedded, forward.encode(model, mels, silence))
