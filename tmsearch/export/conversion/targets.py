"""The runtimes that a model folder can be converted for, and what each needs; without torch."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path

from tmsearch.errors import InputError


@dataclass(frozen=True)
class Target:
    """A format, and the runtime that reads it."""

    runtime: str  # as people call it
    package: str  # which runs it here
    module: str  # of that package
    converter: str | None  # module that the conversion needs; None: none
    extra: str  # of tmsearch, which installs both
    dtypes: tuple[str, ...]  # of the weights that can be written, the usual one first

    @property
    def installation(self) -> str:
        return f"pip install 'tmsearch[{self.extra}]'"

    def missing_runtime(self) -> str | None:
        """What is to be installed before the runtime can be heard here; None where it is there."""
        if importlib.util.find_spec(self.module) is not None:
            return None
        return f"{self.package} is not installed; {self.installation}"


TARGETS = {
    "ctranslate2": Target(
        "faster-whisper", "faster-whisper", "faster_whisper", "ctranslate2", "faster-whisper", ("float16", "float32")
    ),
    "ggml": Target("whisper.cpp", "pywhispercpp", "pywhispercpp", None, "whisper-cpp", ("float16",)),
    "onnx": Target("onnxruntime", "onnxruntime", "onnxruntime", "onnx", "onnx", ("float32",)),
}


def check(folder: Path, name: str, output: Path, dtype: str | None) -> str:
    """The type of weights to write: `dtype`, or the target's usual one.

    Args:
        folder: The model folder.
        name: Key of TARGETS.
        output: The folder to be written.

    Raises:
        InputError: `folder` is no whole model, `output` exists, or this machine cannot convert so.
    """
    target = TARGETS[name]
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the one that `tmsearch train` wrote")
    if (folder / "adapter_config.json").is_file():
        raise InputError(
            f"{folder}: holds an adapter (adapter_config.json), which no runtime reads; give the folder that "
            "`tmsearch train` wrote, or merge the adapter into its model (peft: merge_and_unload) and save that"
        )
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder}: no config.json in it; give the model folder that `tmsearch train` wrote")
    if output.exists() or output.is_symlink():
        raise InputError(f"{output}: exists already; name another folder with --out, or delete it")
    if not output.absolute().parent.is_dir():
        raise InputError(f"{output}: no folder can be made there; name one in a folder that exists, with --out")
    if target.converter is not None and importlib.util.find_spec(target.converter) is None:
        raise InputError(f"--to {name}: {target.converter} is not installed; {target.installation}")
    if dtype is not None and dtype not in target.dtypes:
        raise InputError(
            f"--dtype {dtype}: {name} is written in {' or '.join(target.dtypes)}; give that, or leave it out"
        )
    return dtype or target.dtypes[0]


def language_and_task(folder: Path) -> tuple[str, str]:
    """What a model folder's generation config does by default: English, transcribed, where it says nothing."""
    file = folder / "generation_config.json"
    try:
        settings = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except ValueError:
        settings = {}
    if not isinstance(settings, dict):
        settings = {}
    return str(settings.get("language") or "en").strip("<|>"), str(settings.get("task") or "transcribe")
