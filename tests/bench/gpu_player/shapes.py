"""The dimensions of Whispers that are played."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shapes:
    """A Whisper's dimensions."""

    d_model: int
    encoder_layers: int
    decoder_layers: int
    heads: int
    n_mels: int
    vocabulary: int


SHAPES = {
    "large-v3": Shapes(1280, 32, 32, 20, 128, 51_866),
    "turbo": Shapes(1280, 32, 4, 20, 128, 51_866),
    "distil-large-v3": Shapes(1280, 32, 2, 20, 128, 51_866),
    "medium": Shapes(1024, 24, 24, 16, 80, 51_865),
    "small": Shapes(768, 12, 12, 12, 80, 51_865),
}
