"""How large a model is, without loading it: counted in a folder's weights, else known by its name."""

from __future__ import annotations

import json
import math
from pathlib import Path

DEMO = Path(__file__).parents[1] / "demo"
_LONGEST_HEADER = 100_000_000  # bytes that safetensors allows

# Millions of parameters, from the checkpoints' own pages on the hub; longer names first.
_BY_NAME = {
    "distil-large": 756.0,
    "distil-medium": 394.0,
    "distil-small": 166.0,
    "turbo": 809.0,
    "large": 1550.0,
    "medium": 769.0,
    "small": 244.0,
    "base": 74.0,
    "tiny": 39.0,
}


def parameters(model: str) -> float | None:
    """Millions of parameters of a folder, of demo/micro, or of a checkpoint of a known name; None: not known."""
    folder = DEMO / model.removeprefix("demo/") if model.startswith("demo/") else Path(model)
    counted = _counted(folder / "model.safetensors")
    return counted or next((size for part, size in _BY_NAME.items() if part in model.lower()), None)


def _counted(file: Path) -> float | None:
    """By the header of a safetensors file, which lists every tensor's shape."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(min(length, _LONGEST_HEADER)))
        shapes = [one["shape"] for name, one in header.items() if name != "__metadata__"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return float(sum(math.prod(shape) for shape in shapes)) / 1e6
