"""A trained Whisper as a Hugging Face folder, and as a model again from a checkpoint."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import torch

from tmsearch import devices
from tmsearch.config import TrainConfig
from tmsearch.model import tokens, trainable
from tmsearch.model import whisper as model
from tmsearch.model.whisper import Whisper
from tmsearch.training import checkpoints, train
from tmsearch.training.checkpoints import CheckpointError

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def load_weights(config: TrainConfig, checkpoint: Path) -> Whisper:
    """The model as `config` had trained it at `checkpoint`, on the CPU, with its adapters.

    Raises InputError, and checkpoints.Broken for a damaged checkpoint or one of another config.
    """
    saved = checkpoints.load(checkpoint, groups={"weights"})
    if saved.state.get("config") != train.fingerprint(config):
        raise CheckpointError(f"{checkpoint}: made with another config")
    whisper = model.load(config)
    trainable.prepare(whisper, config)
    trainable.set_weights(whisper, saved.tensors["weights"])
    whisper.model.train(False)
    return whisper


def rounded(whisper: Whisper, dtype: str) -> Whisper:
    """The model as its folder of `dtype` will hold it, adapters merged, back in float32 to be scored: a copy."""
    adapted = trainable.merge_adapters(whisper)
    whole = dataclasses.replace(adapted, model=copy.deepcopy(adapted.model))
    if dtype != "float32":
        devices.move(whole.model, whole.model.device, DTYPES[dtype])
        devices.move(whole.model, whole.model.device, torch.float32)
    whole.model.train(False)
    return whole


def export(
    whisper: Whisper, folder: Path, dtype: str = "float32", *, language: str | None = None, task: str | None = None
) -> None:
    """Saves model, tokenizer, feature extractor and generation config so that `pipeline(model=folder)` transcribes.

    Adapters are merged, in a copy. `language` and `task`, if given,
    become what a multilingual model does unasked. `dtype` is one of DTYPES.
    """
    adapted = trainable.merge_adapters(whisper)
    whole = dataclasses.replace(adapted, model=copy.deepcopy(adapted.model))
    devices.move(whole.model, torch.device("cpu"), DTYPES[dtype])
    whole.model.train(False)
    if whisper.is_multilingual and language is not None:
        tokens.prompt_ids(whisper, language, task or "transcribe")  # raises InputError for what the model can't do
        said: Any = whole.model.generation_config  # declares neither attribute, reads both
        said.language, said.task = tokens.language_code(language), task or "transcribe"
    folder.mkdir(parents=True, exist_ok=True)
    whole.model.save_pretrained(folder)
    # Both as files of their own, which faster-whisper and older versions of transformers look for.
    whisper.tokenizer.save_pretrained(folder)
    whisper.extractor.save_pretrained(folder)
