"""One optimizer step of a Whisper: forward, loss, gradients, AdamW; free of audio libraries, for the GPU benchmark.

Dimension words in shape comments: clips, tokens (decoder inputs), labels.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch

from tmsearch import devices
from tmsearch.config import TrainConfig
from tmsearch.model import forward, trainable
from tmsearch.model.attention import Layout
from tmsearch.model.forward import MicroBatch
from tmsearch.model.kernels.trained_layers import KeptLayers
from tmsearch.model.whisper import Whisper
from tmsearch.training.optim import optimizer
from tmsearch.training.optim.average import WeightAverage
from tmsearch.training.token_table import TokenTable


@dataclass(frozen=True)
class PendingStep:
    """An optimizer step that was launched; the device may still be working on it."""

    step: int
    learning_rate: float  # of the layers at the output
    measured: torch.Tensor  # [2]: the batch's mean loss, the gradient's norm


class Stepper:
    """A prepared model and its optimizer. Nothing here waits for the device."""

    def __init__(
        self, whisper: Whisper, config: TrainConfig, device: torch.device, kept: KeptLayers | None = None
    ) -> None:
        """`whisper` is prepared as `config` says; `kept` are the layers of its last training, which may serve."""
        self.model = whisper.model
        self.config = config
        self.device = device
        self.weights = trainable.trainable_parameters(whisper)
        made = (kept or KeptLayers()).get(whisper.model, config, device)
        self._kernels = made.kernels
        self._layers = made.layers
        self.captured = made.captured  # None: layers are launched in every step
        self.optimizer = optimizer.adamw(whisper, config, self._kernels)
        self.average = WeightAverage(self.weights, config.average_share) if config.average_share else None
        self.token_table = TokenTable(whisper.model, self._kernels)
        self.before_update: Callable[[], None] | None = None  # waits until a checkpoint's tensors may be changed

    def launch(self, step: int, batch: Iterable[MicroBatch]) -> PendingStep:
        """Launches optimizer step `step`, counted from 1, over the micro-batches of one batch."""
        if not self.model.training:  # it asks each of a thousand modules
            self.model.train()
        self.optimizer.zero_grad(set_to_none=True)  # of a step that was abandoned, as where memory ran out
        if self._kernels is not None:
            self._kernels.refresh()
        learning_rate = optimizer.set_rates(self.optimizer, self.config, step)
        loss = torch.zeros((), device=self.device)
        for micro_batch in batch:
            loss += self.backward(micro_batch)
        norm = optimizer.clip(self.optimizer, self.weights.values(), self.config.max_grad_norm or math.inf)
        if self.before_update is not None:
            self.before_update()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(step)
        return PendingStep(step, learning_rate, torch.stack([loss, norm.float()]))

    @contextlib.contextmanager
    def scored_weights(self) -> Iterator[None]:
        """The model as it is scored and exported: with its averaged weights, where they are averaged."""
        if self.average is None:
            yield
            return
        if self.before_update is not None:
            self.before_update()  # what is overwritten may still be on its way into a checkpoint
        with self.average.in_place():
            yield

    def backward(self, micro_batch: MicroBatch) -> torch.Tensor:
        """Adds the gradients of `micro_batch`; returns its share of the batch's mean loss, a scalar on the device."""
        inputs = devices.copied(micro_batch.decoder_inputs, self.device)
        embedded = self.token_table.embed(inputs)  # [clips, tokens, d_model]
        with devices.autocast(self.config, self.device, self.model.config.d_model):
            mels = [devices.copied(mels, self.device) for mels in micro_batch.mels]
            rows, layout = forward.embed(self.model, mels, self.config.context_silence, micro_batch.places)
            is_whole = len(micro_batch.labels) == micro_batch.batch_label_count
            states = self._through_layers(rows, embedded, layout, is_whole)  # [clips, tokens, d_model]
            labelled = devices.copied(micro_batch.label_positions, self.device)
            hidden = states.flatten(0, 1).index_select(0, labelled)  # [labels, d_model]
            labels = devices.copied(micro_batch.labels, self.device)
            loss, gradient = self.token_table.loss(
                hidden, labels, micro_batch.batch_label_count, self.config.label_smoothing
            )
        if hidden.requires_grad:  # not when every adapted layer happened to be skipped
            hidden.backward(gradient)  # type: ignore[no-untyped-call]
        self.token_table.add_gradient(inputs, embedded)
        return loss

    def _through_layers(
        self, rows: torch.Tensor, embedded: torch.Tensor, layout: Layout, is_whole: bool
    ) -> torch.Tensor:
        """The decoder's last states [clips, tokens, d_model]; by graphs, if the batch `is_whole` and they can be had.

        `rows` [rows, d_model] are what forward.embed gave with `layout`, `embedded` [clips, tokens, d_model].
        """
        if self.captured is not None and is_whole:
            states = self.captured.run(rows, embedded, layout)
            if states is not None:
                return states
        encoded = forward.encode_rows(self.model, rows, layout, self._layers)
        return forward.decode(self.model, embedded, encoded, self._layers)
