"""Where a clip is quiet before and after its speech, by its own log-mel and on the safe side.

Dimension words in shape comments: bins (of the log-mel), frames (mel, 10 ms).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tmsearch.data.audio_file import Samples
from tmsearch.features.augment import LOG_MEL_PER_DB
from tmsearch.model.context import FRAMES_PER_POSITION

# Between speech and what is called quiet, seconds: longer than a stop's closure, a fading vowel or a breath that
# belongs to a word.
MARGIN_SECONDS = 0.5
_FRAMES_PER_SECOND = 100
# The floor of a bin, and of all bins together, is what they are below in this share of the clip's frames.
_FLOOR_SHARE = 0.1
_SMOOTH_FRAMES = 10
# A frame belongs to the speech if its bins rise above the floor by this on average, or by a share of how far the
# clip's louder frames rise, where that is more. Steady noise varies by .4 dB once averaged over bins and frames.
_RISE_DB = 1.0
_RISE_SHARE = 0.15
_LOUD_SHARE = 0.9
# A clip whose louder frames rise by less than this has speech that cannot be told from its noise.
_LEAST_RISE_DB = 2.5


class QuietEdges(NamedTuple):
    """Positions of the encoder, 20 ms each."""

    lead: int  # quiet ones in front
    end: int  # where the quiet behind the speech starts


def quiet_edges(mel: Samples) -> QuietEdges:
    """How much is quiet in front of a clip's speech and behind it; nothing where that cannot be told.

    Args:
        mel: The clip's log-mel as Whisper's extractor scales it, without padding, [bins, frames].
    """
    frames = mel.shape[1]
    nothing = QuietEdges(0, -(-frames // FRAMES_PER_POSITION))
    if frames < 2 * _SMOOTH_FRAMES:
        return nothing
    rise = _rise(mel)
    loud = float(np.quantile(rise, _LOUD_SHARE))
    if loud < _LEAST_RISE_DB:
        return nothing
    speech = np.flatnonzero(rise > max(_RISE_DB, _RISE_SHARE * loud))
    margin = round(MARGIN_SECONDS * _FRAMES_PER_SECOND)
    lead = max(0, int(speech[0]) - margin) // FRAMES_PER_POSITION
    end = -(-min(frames, int(speech[-1]) + 1 + margin) // FRAMES_PER_POSITION)
    return QuietEdges(lead, end)


def _rise(mel: Samples) -> npt.NDArray[np.float64]:
    """How far each frame is above the floors of its bins, decibels, smoothed, [frames].

    By bins and in decibels, so that a hum in a few of them, however loud, hides no whisper in the others.
    """
    decibels = mel.astype(np.float64) / LOG_MEL_PER_DB  # [bins, frames]
    floors = np.quantile(decibels, _FLOOR_SHARE, axis=1, keepdims=True)  # [bins, 1]
    by_frame = np.maximum(decibels - floors, 0.0).mean(axis=0)  # [frames]
    padded = np.pad(by_frame, _SMOOTH_FRAMES // 2, mode="reflect")[: len(by_frame) + _SMOOTH_FRAMES - 1]
    smoothed = np.convolve(padded, np.ones(_SMOOTH_FRAMES) / _SMOOTH_FRAMES, mode="valid")  # [frames]
    rise: npt.NDArray[np.float64] = smoothed - np.quantile(smoothed, _FLOOR_SHARE)
    return rise
