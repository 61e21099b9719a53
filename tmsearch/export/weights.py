"""Weights-only files of finished trainings: kept beside a trial, read back into a model."""

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
from tmsearch.errors import CheckpointError
from tmsearch.evaluation import evaluate
from tmsearch.evaluation.scores import Scores
from tmsearch.features.dataset import Speech
from tmsearch.files import replacing
from tmsearch.model import trainable
from tmsearch.model import whisper as model
from tmsearch.model.whisper import Whisper
from tmsearch.training import tensor_file
from tmsearch.training.checkpoints import AVERAGE, SUFFIX

WEIGHTS = "weights.safetensors"


def keep(checkpoint: Path, folder: Path) -> None:
    """Keeps what `checkpoint` trained as `folder`/weights.safetensors, which no clean-up of checkpoints deletes.

    Where the training averages its weights, those are kept that were scored: the average.
    """
    average = checkpoint / f"{AVERAGE}{SUFFIX}"
    source = average if average.is_file() else checkpoint / WEIGHTS
    with replacing(folder / WEIGHTS) as scratch:
        try:  # a second name of the same file: no byte is copied, and the checkpoint may be deleted
            os.link(source, scratch)
        except OSError:  # a file system without hard links
            shutil.copyfile(source, scratch)


def keep_trained(weights: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Keeps trained weights, which lie on the CPU, as `keep` does those of a checkpoint."""
    with replacing(folder / WEIGHTS) as scratch:
        tensor_file.write(scratch, weights)


def read(file: Path) -> Mapping[str, torch.Tensor]:
    """Trained weights by name; raises CheckpointError where the file is missing or damaged."""
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file}: {error}") from error


def trained_model(config: TrainConfig, weights: Mapping[str, torch.Tensor]) -> Whisper:
    """The model that `config` trained to `weights`, on the CPU, with its adapters.

    Raises CheckpointError where the weights are another configuration's.
    """
    whisper = model.load(config)
    trainable.prepare(whisper, config)
    trainable.set_weights(whisper, weights)
    whisper.model.train(False)
    return whisper


def score_on_test(config: TrainConfig, folder: Path, speech: Speech) -> Scores:
    """Scores of the weights kept in `folder` on the locked test split, at the study's own context."""
    whisper = trained_model(config, read(folder / WEIGHTS))
    devices.move(whisper.model, devices.device())
    scores, _ = evaluate.evaluate(whisper, speech, speech.split.test, config)
    return scores
