"""A clip's sound and pictures, each encoded once for all that show it: the report, the dashboard and TensorBoard."""

from __future__ import annotations

from functools import cached_property

from tmsearch.data.audio_file import Samples
from tmsearch.media import sounds


class ClipMedia:
    """Encodes a clip on first use. `samples` [n] are 16 kHz mono."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    @cached_property
    def mp3(self) -> bytes:
        return sounds.mp3(self.samples)

    @cached_property
    def wav(self) -> bytes:
        return sounds.wav(self.samples)

    @cached_property
    def spectrogram(self) -> bytes:
        """PNG with axes."""
        from tmsearch.media import images  # importing matplotlib takes a second

        return images.spectrogram(self.samples)

    @cached_property
    def thumbnail(self) -> bytes:
        """PNG of 320 x 72 dots without axes."""
        from tmsearch.media import images

        return images.spectrogram(self.samples, width=4.0, height=0.9, axes=False)
