"""Pictures of a clip and of a training, as PNG: drawn without a screen, small, equal for equal input."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
import scipy.signal
from matplotlib.figure import Figure

from tmsearch.data.audio_file import SAMPLE_RATE, Samples

DOTS = 80  # an inch
_WINDOW, _HOP = 400, 160  # samples: 25 ms every 10 ms, as Whisper's own log-mels
_RANGE = 70.0  # dB below the loudest that are still told apart
TOP_HZ = 4_000  # throat speech ends near 1 kHz: up to 8 kHz, a picture of this height would show a line


def spectrogram(samples: Samples, *, width: float = 6.4, height: float = 2.2, axes: bool = True) -> bytes:
    """Samples [n], 16 kHz mono: power in dB over time in s and frequency to 4 kHz.

    Sizes are inches of 80 dots.
    """
    padded = np.pad(samples, (0, max(0, _WINDOW - len(samples))))
    frequencies, _, power = scipy.signal.spectrogram(padded, SAMPLE_RATE, nperseg=_WINDOW, noverlap=_WINDOW - _HOP)
    shown = frequencies <= TOP_HZ
    frequencies, power = frequencies[shown], power[shown]
    level = 10 * np.log10(np.maximum(power, 1e-20))
    top = max(float(level.max()), -120.0)
    figure = Figure(figsize=(width, height), dpi=DOTS, layout="constrained" if axes else None)
    where = figure.add_subplot() if axes else figure.add_axes((0.0, 0.0, 1.0, 1.0))
    where.imshow(
        level,
        origin="lower",
        aspect="auto",
        cmap="cividis",  # told apart without colour, too: its lightness rises evenly
        vmin=top - _RANGE,
        vmax=top,
        extent=(0.0, len(padded) / SAMPLE_RATE, float(frequencies[0]) / 1000, float(frequencies[-1]) / 1000),
    )
    if axes:
        where.set_xlabel("time, s")
        where.set_ylabel("frequency, kHz")
    else:
        where.set_axis_off()
    return _png(figure)


def learning_curve(curve: Mapping[int, float], zero_shot: float | None, title: str) -> bytes:
    """WER by step, with the untrained checkpoint's as a dashed line."""
    figure = Figure(figsize=(6.4, 3.2), dpi=DOTS, layout="constrained")
    where = figure.add_subplot()
    steps = sorted(curve)
    where.plot(steps, [curve[step] for step in steps], marker="o", color="black")
    if zero_shot is not None:
        where.axhline(zero_shot, linestyle="--", color="grey")
        where.annotate("untrained", (steps[0] if steps else 0, zero_shot), textcoords="offset points", xytext=(0, 4))
    where.set_ylim(bottom=0)
    where.set_xlabel("step")
    where.set_ylabel("WER on the validation clips")
    where.set_title(title, parse_math=False)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    held = io.BytesIO()
    figure.savefig(held, format="png", metadata={"Software": None})
    return held.getvalue()
