"""A clip as a sound file that browsers play."""

from __future__ import annotations

import io

import numpy as np
import soundfile

from tmsearch.data.audio_file import SAMPLE_RATE, Samples

# From 0 (best) to 1. Throat speech has next to nothing above 4 kHz: at this level a clip of 3 s takes 12 kB.
_COMPRESSION = 0.7


def wav(samples: Samples) -> bytes:
    """Samples [n], 16 kHz mono, as a WAV file of 16 bits."""
    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(samples, -1.0, 1.0), SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def mp3(samples: Samples) -> bytes:
    """Samples [n], 16 kHz mono, as an MP3 file; equal samples give equal bytes."""
    buffer = io.BytesIO()
    with soundfile.SoundFile(
        buffer, "w", SAMPLE_RATE, 1, format="MP3", subtype="MPEG_LAYER_III", compression_level=_COMPRESSION
    ) as file:
        file.write(np.clip(samples, -1.0, 1.0))
    return buffer.getvalue()
