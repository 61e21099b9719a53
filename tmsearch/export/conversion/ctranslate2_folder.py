"""A Whisper as a folder of CTranslate2, which faster-whisper reads: by CTranslate2's own converter."""

from __future__ import annotations

from pathlib import Path

from transformers.utils import logging as hub_logging

from tmsearch.errors import InputError, is_disk_problem
from tmsearch.formatting import first_line
from tmsearch.model.whisper import Whisper


def write(whisper: Whisper, model: Path, folder: Path, dtype: str) -> None:
    """Writes model.bin, config.json (with alignment heads, suppressed tokens and languages) and the vocabulary.

    Beside them stand tokenizer.json and preprocessor_config.json: without the first faster-whisper would fetch another
    tokenizer, without the second it would make 80 mel bins for any model.

    Args:
        whisper: The model or its outline: tokenizer and feature extractor are used.
        model: Its folder.
        folder: Where to write.
        dtype: Of the weights, as CTranslate2 calls it.

    Raises:
        InputError: The converter refuses the model.
    """
    from ctranslate2.converters import TransformersConverter

    hub_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    converted = folder / "converted"  # the converter makes its folder itself
    converter = TransformersConverter(str(model), load_as_float16=dtype == "float16", low_cpu_mem_usage=True)
    try:
        converter.convert(str(converted), quantization=dtype)
    except Exception as error:  # the converter's own, of any class
        if is_disk_problem(error):
            raise
        raise InputError(f"{model}: ctranslate2 does not convert it: {first_line(error, 200)}") from error
    for file in converted.iterdir():
        file.rename(folder / file.name)
    converted.rmdir()
    whisper.tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    whisper.extractor.to_json_file(folder / "preprocessor_config.json")
