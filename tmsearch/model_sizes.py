"""Published Whisper sizes: parameters and recommended learning rates, looked up by a model's name or folder."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tmsearch.demo.paths import DEMO
from tmsearch.errors import InputError


@dataclass(frozen=True)
class ModelSize:
    """One published size; `d_model` identifies it in a folder whose name does not."""

    name: str
    millions: float  # of parameters
    learning_rate: float | None  # recommended peak rate of a full fine-tune; None: no recipe is known
    d_model: int | None = None


@dataclass(frozen=True)
class Dimensions:
    """Of a published Whisper, as its config.json on the hub has them; the fields are those of ModelInfo."""

    parameters: int
    d_model: int
    encoder_layers: int
    decoder_layers: int
    n_mels: int
    vocab_size: int

    @property
    def encoder_ffn_dim(self) -> int:
        return 4 * self.d_model

    @property
    def decoder_ffn_dim(self) -> int:
        return 4 * self.d_model


# A model is of the first size whose name its own contains. Parameters are from the checkpoints' own pages on the hub.
# Rates are 1/40 of the pre-training rate, the centre that fine-tuning recipes for Whisper agree on; large-v2 and
# large-v3 were pre-trained longer and take 5e-6.
MODEL_SIZES = (
    ModelSize("distil-large", 756.0, None),
    ModelSize("distil-medium", 394.0, None),
    ModelSize("distil-small", 166.0, None),
    ModelSize("turbo", 809.0, None),
    ModelSize("large-v3", 1550.0, 5e-6, d_model=1280),
    ModelSize("large-v2", 1550.0, 5e-6),
    ModelSize("large", 1550.0, 4.4e-6),
    ModelSize("medium", 769.0, 6.25e-6, d_model=1024),
    ModelSize("small", 244.0, 1.25e-5, d_model=768),
    ModelSize("base", 74.0, 2.5e-5, d_model=512),
    ModelSize("tiny", 39.0, 3.75e-5, d_model=384),
    # Rates measured on the demo corpus, 120 steps of batch 16 at rates from 1e-5 to 1e-2 (2026-11-23).
    ModelSize("demo/micro", 1.351296, 4e-4),
    ModelSize("demo/nano", 0.3904, 1e-3),
)
# By the names of MODEL_SIZES; parameters as counted in the weights.
DIMENSIONS = {
    "distil-large-v3": Dimensions(756_405_760, 1280, 32, 2, 128, 51_866),
    "turbo": Dimensions(808_878_080, 1280, 32, 4, 128, 51_866),
    "large-v3": Dimensions(1_543_490_560, 1280, 32, 32, 128, 51_866),
    "medium": Dimensions(763_857_920, 1024, 24, 24, 80, 51_865),
    "small": Dimensions(241_734_912, 768, 12, 12, 80, 51_865),
    "base": Dimensions(72_593_920, 512, 6, 6, 80, 51_865),
    "tiny": Dimensions(37_760_640, 384, 4, 4, 80, 51_865),
}
# The sizes that a first space file chooses from, smallest first.
BASIC_SIZES = tuple(size for size in reversed(MODEL_SIZES) if size.d_model is not None)
# The middle, on a log scale, of the range that LoRA recipes use: 5e-5 to 2e-3.
LORA_LEARNING_RATE = math.sqrt(5e-5 * 2e-3)
_LONGEST_HEADER = 100_000_000  # bytes that safetensors allows


def millions_of_parameters(model: str) -> float | None:
    """Counted in a folder's (or an embedded model's) weights, else known by the checkpoint's name; None: unknown."""
    folder = DEMO / model.removeprefix("demo/") if model.startswith("demo/") else Path(model)
    counted = _count_parameters(folder / "model.safetensors")
    if counted:
        return counted / 1e6
    matching = _matching(model)
    return matching[0].millions if matching else None


def dimensions(model: str) -> Dimensions | None:
    """Of a published checkpoint, by its name; None: unknown."""
    return next((shape for name, shape in DIMENSIONS.items() if name in model.lower()), None)


def recommended_learning_rate(params: Mapping[str, Any]) -> float:
    """The centre of published recipes for `params["model"]`: for LoRA, by a folder's d_model, or by the name.

    Raises InputError for a model of unknown size.
    """
    model = str(params["model"])
    if params.get("lora_r"):
        return LORA_LEARNING_RATE
    config_file = Path(model) / "config.json"
    width = None
    if config_file.is_file():
        from tmsearch.foreign import parsers, plain_files  # only here: `--help` shows rates without reading a file
        from tmsearch.foreign.plain_files import ForeignFileError

        try:
            config = parsers.parse_json(plain_files.read_text(config_file))
        except ForeignFileError as error:
            raise InputError(f"{error.at(str(config_file))}; fetch the model again") from None
        width = config.get("d_model") if isinstance(config, dict) else None
    by_width = [size for size in MODEL_SIZES if width is not None and size.d_model == width]
    for size in (*by_width, *_matching(model)):
        if size.learning_rate is not None:
            return size.learning_rate
    raise InputError(
        f"{model}: no recommended learning_rate is known for a model of this size; "
        "give search.learning_rate as absolute low and high, without `times`"
    )


def _matching(model: str) -> list[ModelSize]:
    return [size for size in MODEL_SIZES if size.name in model.lower()]


def _count_parameters(file: Path) -> int | None:
    """From the header of a safetensors file, which lists every tensor's shape."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(min(length, _LONGEST_HEADER)))
        shapes = [tensor["shape"] for name, tensor in header.items() if name != "__metadata__"]
        return sum(int(math.prod(shape)) for shape in shapes)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
