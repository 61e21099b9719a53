"""A trained Whisper as a Hugging Face folder."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

from tmsearch import devices
from tmsearch.errors import InputError
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
    _complete_generation(copied)
    if whisper.is_multilingual and language is not None:
        tokens.prompt_ids(whisper, language, task or "transcribe")  # raises InputError
        generation: Any = copied.model.generation_config  # declares none of these attributes, reads them all
        code = code_if_known(language)
        generation.language = code
        generation.task = task or "transcribe"
        generation.lang_to_id = {f"<|{code}|>": tokens.special_id(whisper, f"<|{code}|>"), **generation.lang_to_id}
    folder.mkdir(parents=True, exist_ok=True)
    copied.model.save_pretrained(folder)
    # Each writes files of its own, which faster-whisper and older versions of transformers look for.
    whisper.tokenizer.save_pretrained(folder)
    whisper.extractor.save_pretrained(folder)
    follow_umask(*(path for path in folder.iterdir() if path.is_file()))


def _complete_generation(whisper: Whisper) -> None:
    """Give the generation config all that `generate` needs to start from the prompt that the model was trained with.

    A checkpoint without generation_config.json, or with one of an early version or of another checkpoint, lacks it:
    then the model would write `<|notimestamps|>` itself, or `generate` refuse its language.
    """
    generation: Any = whisper.model.generation_config  # declares none of these attributes, reads them all
    generation._from_model_config = None  # else `generate` makes it anew from config.json, which has no such fields
    generation.is_multilingual = whisper.is_multilingual
    generation.decoder_start_token_id = tokens.special_id(whisper, "<|startoftranscript|>")
    generation.no_timestamps_token_id = tokens.special_id(whisper, "<|notimestamps|>")
    generation.eos_token_id = tokens.special_id(whisper, "<|endoftext|>")
    if generation.pad_token_id is None:
        generation.pad_token_id = generation.eos_token_id
    if generation.max_length is None and generation.max_new_tokens is None:
        generation.max_length = whisper.model.config.max_target_positions
    if whisper.is_multilingual:
        generation.task_to_id = _ids(whisper, {task: f"<|{task}|>" for task in ("transcribe", "translate")})
        names = [f"<|{code}|>" for code in TO_LANGUAGE_CODE.values()]
        names += getattr(generation, "lang_to_id", None) or {}
        generation.lang_to_id = _ids(whisper, {name: name for name in names})


def _ids(whisper: Whisper, special_tokens: Mapping[str, str]) -> dict[str, int]:
    """The ids of those special tokens that the checkpoint has, by the same keys."""
    ids = {}
    for key, token in special_tokens.items():
        with contextlib.suppress(InputError):
            ids[key] = tokens.special_id(whisper, token)
    return ids


def _merged_copy(whisper: Whisper) -> Whisper:
    merged = trainable.merge_adapters(whisper)
    return dataclasses.replace(merged, model=copy.deepcopy(merged.model))
