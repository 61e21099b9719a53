"""A model folder converted for another runtime, into a new folder, as a whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from tmsearch.config import TrainConfig
from tmsearch.errors import InputError, describe_os_error
from tmsearch.export.conversion import ctranslate2_folder, ggml
from tmsearch.export.conversion.targets import TARGETS
from tmsearch.files import new_folder
from tmsearch.model import whisper as model
from tmsearch.model.whisper import Whisper

POSITIONS = 1500  # of 30 s, the window of every published size


def convert(folder: Path, name: str, output: Path, dtype: str) -> None:
    """Writes `output`, anew and as a whole, for the target `name`. `targets.check` must have passed.

    Raises:
        InputError: The model is damaged, is one that the runtime cannot read, or `output` has come to exist.
    """
    config = TrainConfig(model=str(folder))
    whisper = model.outline(config) if name == "ctranslate2" else model.load(config)
    if name != "onnx" and whisper.positions != POSITIONS:
        raise InputError(
            f"{whisper.name}: its encoder takes {whisper.seconds:g} s, {TARGETS[name].runtime} hears windows of 30 s; "
            "choose another --to"
        )
    if name == "ggml":
        ggml.check(whisper)
    try:
        with new_folder(output) as scratch:
            if name == "ctranslate2":
                ctranslate2_folder.write(whisper, folder, scratch, dtype)
            elif name == "ggml":
                ggml.write(whisper, scratch)
            else:
                _write_onnx(whisper, scratch)
    except FileExistsError:
        raise InputError(f"{output}: exists already; name another folder with --out, or delete it") from None
    except BlockingIOError:
        raise InputError(f"{output}: another export-model is writing it; wait for it, or name another") from None
    except PermissionError as error:
        raise InputError(f"{output}: {describe_os_error(error)}; name a folder with --out that you may make") from None


def _write_onnx(whisper: Whisper, folder: Path) -> None:
    """Both graphs, and what their readers look for beside them."""
    from tmsearch.export.conversion import onnx_graphs

    onnx_graphs.write(whisper, folder)
    whisper.model.config.save_pretrained(folder)
    whisper.model.generation_config.save_pretrained(folder)
    whisper.tokenizer.save_pretrained(folder)
    whisper.extractor.save_pretrained(folder)
    # Older tokenizers' files, which onnx-asr reads: the words, and the special tokens by themselves.
    added = whisper.tokenizer.get_added_vocab()
    words = {word: index for word, index in whisper.tokenizer.get_vocab().items() if word not in added}
    for file, ids in (("vocab.json", words), ("added_tokens.json", added)):
        (folder / file).write_text(_by_id(ids), encoding="utf-8")


def _by_id(ids: Mapping[str, int]) -> str:
    return json.dumps(dict(sorted(ids.items(), key=lambda item: item[1])), ensure_ascii=False)
