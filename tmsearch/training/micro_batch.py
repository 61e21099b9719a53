"""How many clips go through the model at once, in training and in an evaluation: measured once for a model and a
device."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from tmsearch import devices
from tmsearch.config import TrainConfig
from tmsearch.evaluation import evaluate
from tmsearch.features.dataset import Speech
from tmsearch.model.context import FRAMES_PER_POSITION
from tmsearch.model.decoding import Decoder
from tmsearch.model.forward import MicroBatch
from tmsearch.model.kernels import fused
from tmsearch.model.tokens import prompt_ids
from tmsearch.training.state import TrainState
from tmsearch.training.train import ModelCache

# Of a GPU's memory; the rest is for what a probe does not see: fragments, other processes' contexts.
SAFE_SHARE = 0.85
_STEPS = 2  # AdamW's moments are made in the first one


@dataclass(frozen=True)
class BatchLimits:
    """Clips that go through the model at once."""

    micro_batch: int  # of a training forward pass
    eval_batch: int  # decoded together


def device_name() -> str:
    """The GPU's name, cpu, or mps (Apple's): a study keeps the limits that it found for each."""
    device = devices.device()
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def find(config: TrainConfig, speech: Speech, model_cache: ModelCache, workers: int = 1) -> BatchLimits:
    """The largest numbers of clips, halving batch_size and eval_batch_size, with which a step and an evaluation fit in
    SAFE_SHARE of the GPU's memory; on a CPU, and on Apple's GPU, which shares its memory, both as they are.

    Nothing of it enters a training: the model is handed on as it was loaded.

    Args:
        config: What is trained.
        speech: Its clips; the longest and the longest text decide.
        model_cache: Where the model comes from. The state that it kept is lost.
        workers: How many share the GPU, whose memory is divided among them.
    """
    clips = min(config.micro_batch_size or config.batch_size, config.batch_size)
    device = devices.device()
    if device.type != "cuda":
        return BatchLimits(clips, config.eval_batch_size)
    return measure(config, speech, model_cache, device, memory_limit(device, workers))


def measure(
    config: TrainConfig, speech: Speech, model_cache: ModelCache, device: torch.device, limit: float
) -> BatchLimits:
    """What `find` finds where `limit` bytes may be filled."""
    try:
        return _tried(Probe(config, speech, model_cache, device), config, limit)
    finally:  # the probe's own tensors are gone by now
        model_cache.whisper(config)
        devices.free_memory()


def _tried(probe: Probe, config: TrainConfig, limit: float) -> BatchLimits:
    clips = min(config.micro_batch_size or config.batch_size, config.batch_size)
    micro_batch = largest(clips, lambda count: probe.step_peak(count) <= limit)
    eval_batch = largest(config.eval_batch_size, lambda count: probe.evaluation_peak(count) <= limit)
    return BatchLimits(micro_batch, eval_batch)


def memory_limit(device: torch.device, workers: int = 1) -> float:
    """Bytes of the GPU that one of `workers` may fill: what is free or its own, and no more than its share."""
    free, total = torch.cuda.mem_get_info(device)
    return SAFE_SHARE * min(free + torch.cuda.memory_reserved(device), total / max(1, workers))


def largest(clips: int, fits: Callable[[int], bool]) -> int:
    """`clips`, or the first of its halves that fits; 1 where none does."""
    while clips > 1:
        try:
            if fits(clips):
                return clips
        except RuntimeError as error:
            if not devices.is_out_of_memory(error):
                raise
        devices.free_memory()
        clips = devices.halve(clips)
    return 1


class Probe:
    """A training that is thrown away, to see what its steps and an evaluation take.

    The weights that it changes are those of `model_cache`, which puts them back when it hands the model on.
    """

    def __init__(self, config: TrainConfig, speech: Speech, model_cache: ModelCache, device: torch.device) -> None:
        # A step that happens to skip a layer takes less than the others.
        self._config = dataclasses.replace(config, stochastic_depth=0.0)
        self._speech = speech
        self._device = device
        model_cache.layers.clear()  # they would be beside those that are probed
        self._state = TrainState(self._config, speech, model_cache.whisper(config), device)
        self._state.stepper.captured = None  # graphs are made where there is memory besides what is probed here
        self._frames = FRAMES_PER_POSITION * self._state.batches.context_rule.max_positions
        self._n_mels = self._state.batches.extractor.feature_size

    def step_peak(self, clips: int) -> int:
        """Peak bytes of a whole step of the longest clips, `clips` a forward pass.

        Where that is less than the batch, its second backward pass meets all gradients of the first, and a third their
        sums, which may be in another format.
        """
        torch.cuda.reset_peak_memory_stats(self._device)
        for step in range(1, _STEPS + 1):
            self._state.stepper.launch(step, self._batch(clips))
        torch.cuda.synchronize(self._device)
        return torch.cuda.max_memory_allocated(self._device)

    def _batch(self, clips: int) -> Iterator[MicroBatch]:
        """As many micro-batches as can be told apart by what they take: up to three."""
        batches = self._state.batches
        longest = batches.longest_row()
        inputs = torch.tensor([longest] * clips)  # [clips, tokens]
        labels = inputs.flatten()  # [clips * tokens]
        passes = min(3, math.ceil(self._config.batch_size / clips))
        for _ in range(passes):
            mels = torch.zeros(clips, self._n_mels, self._frames, device=self._device)  # [clips, n_mels, frames]
            yield MicroBatch((mels,), inputs, torch.arange(len(labels)), labels, passes * len(labels))

    def evaluation_peak(self, clips: int) -> int:
        """Peak bytes of an evaluation that decodes `clips` of the longest clips together, the training's state kept."""
        whisper = self._state.whisper
        names = self._speech.split.validation
        tokens = evaluate.token_limit(whisper, self._speech, names)
        rule = self._state.batches.context_rule
        mels = torch.zeros(min(clips, len(names)), self._n_mels, self._frames)  # [clips, n_mels, frames]
        prompt = prompt_ids(whisper, self._speech.language, self._speech.task)
        torch.cuda.reset_peak_memory_stats(self._device)
        whisper.model.train(False)
        in_place = self._state.stepper.scored_weights()
        width = whisper.model.config.d_model
        layers = fused.layers_for(self._config, self._device, width)
        with in_place, devices.autocast(self._config, self._device, width):
            decoder = Decoder(whisper, layers)
            try:
                decoder.greedy([mels], prompt, tokens, rule.silence)
            finally:
                decoder.release()
        torch.cuda.synchronize(self._device)
        return torch.cuda.max_memory_allocated(self._device)
