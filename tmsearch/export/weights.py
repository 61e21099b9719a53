"""The models of confirm's trainings: kept as weights alone, scored on the locked test split, once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from tmsearch import devices
from tmsearch.config import TrainConfig
from tmsearch.evaluation import evaluate
from tmsearch.evaluation.scores import Scores
from tmsearch.features.dataset import Speech
from tmsearch.model import trainable
from tmsearch.model import whisper as model
from tmsearch.model.whisper import Whisper
from tmsearch.training.checkpoints import CheckpointError

WEIGHTS = "weights.safetensors"


def keep(checkpoint: Path, folder: Path) -> None:
    """Keeps what `checkpoint` trained as `folder`/weights.safetensors, which no sweep of checkpoints takes away."""
    folder.mkdir(parents=True, exist_ok=True)
    scratch = folder / f".{WEIGHTS}.{os.getpid()}"
    scratch.unlink(missing_ok=True)
    try:  # a second name of the same file: no byte is copied, and the checkpoint may go
        os.link(checkpoint / WEIGHTS, scratch)
    except OSError:  # a file system without hard links
        shutil.copyfile(checkpoint / WEIGHTS, scratch)
    scratch.replace(folder / WEIGHTS)


def read(file: Path) -> Mapping[str, torch.Tensor]:
    """Trained weights by name; raises Broken where the file is missing or damaged."""
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file}: {error}") from error


def whisper(config: TrainConfig, weights: Mapping[str, torch.Tensor]) -> Whisper:
    """The model that `config` trained to `weights`, on the CPU; raises Broken where they are another config's."""
    loaded = model.load(config)
    trainable.prepare(loaded, config)
    trainable.set_weights(loaded, dict(weights))
    loaded.model.train(False)
    return loaded


def put(loaded: Whisper, weights: Mapping[str, torch.Tensor]) -> None:
    """Other weights into a model that `whisper` made."""
    trainable.set_weights(loaded, dict(weights))


def on_test(config: TrainConfig, folder: Path, speech: Speech) -> Scores:
    """The model kept in `folder` scored on the locked test split, at the study's own context."""
    tuned = whisper(config, read(folder / WEIGHTS))
    devices.move(tuned.model, devices.device())
    scores, _ = evaluate.evaluate(tuned, speech, speech.split.test, config)
    return scores
