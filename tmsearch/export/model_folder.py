"""A trained Whisper as a Hugging Face folder."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import torch

from tmsearch import devices
from tmsearch.files import follow_umask
from tmsearch.languages import code_if_known
from tmsearch.model import tokens, trainable
from tmsearch.model.whisper import Whisper

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def rounded(whisper: Whisper, dtype: str) -> Whisper:
    """A copy of the model as its folder of `dtype` will hold it, adapters merged, back in float32 to be scored."""
    copied = _merged_copy(whisper)
    if dtype != "float32":
        devices.move(copied.model, copied.model.device, DTYPES[dtype])
        devices.move(copied.model, copied.model.device, torch.float32)
    copied.model.train(False)
    return copied


def export(
    whisper: Whisper, folder: Path, dtype: str = "float32", *, language: str | None = None, task: str | None = None
) -> None:
    """Saves model, tokenizer, feature extractor and generation config so that `pipeline(model=folder)` transcribes.

    Adapters are merged, in a copy.

    Args:
        dtype: of the weights, a key of DTYPES.
        language: with `task`, what a multilingual model does by default.

    Raises:
        InputError: the model does not know the language or the task.
    """
    copied = _merged_copy(whisper)
    devices.move(copied.model, torch.device("cpu"), DTYPES[dtype])
    copied.model.train(False)
    if whisper.is_multilingual and language is not None:
        tokens.prompt_ids(whisper, language, task or "transcribe")  # raises InputError
        generation: Any = copied.model.generation_config  # declares neither attribute, reads both
        generation.language = code_if_known(language)
        generation.task = task or "transcribe"
    folder.mkdir(parents=True, exist_ok=True)
    copied.model.save_pretrained(folder)
    # Each writes files of its own, which faster-whisper and older versions of transformers look for.
    whisper.tokenizer.save_pretrained(folder)
    whisper.extractor.save_pretrained(folder)
    follow_umask(*(path for path in folder.iterdir() if path.is_file()))


def _merged_copy(whisper: Whisper) -> Whisper:
    merged = trainable.merge_adapters(whisper)
    return dataclasses.replace(merged, model=copy.deepcopy(merged.model))
