"""Spectrograms and learning curves as PNG: drawn without a screen, equal bytes for equal input."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from tmsearch.data.audio_file import SAMPLE_RATE, Samples

DOTS = 80  # per inch
TOP_HZ = 4_000  # throat speech ends near 1 kHz: drawn up to 8 kHz it would be a thin line
_WINDOW = 400  # samples, 25 ms, as in Whisper's log-mels
_HOP = 160  # samples, 10 ms
_RANGE = 70.0  # dB below the loudest point that the colours cover


def spectrogram(samples: Samples, *, width: float = 6.4, height: float = 2.2, axes: bool = True) -> bytes:
    """Power in dB over time in seconds and frequency up to 4 kHz.

    Args:
        samples: [n], 16 kHz mono; shorter clips than one window are padded with zeros.
        width: inches of 80 dots.
        height: inches of 80 dots.
        axes: whether to draw axes with their labels.
    """
    padded = np.pad(samples, (0, max(0, _WINDOW - len(samples))))
    frequencies, power = power_density(padded)
    drawn = frequencies <= TOP_HZ
    frequencies = frequencies[drawn]  # [bins], Hz
    level = 10 * np.log10(np.maximum(power[drawn], 1e-20))  # [bins, frames], dB
    loudest = max(float(level.max()), -120.0)
    figure = Figure(figsize=(width, height), dpi=DOTS, layout="constrained" if axes else None)
    plot = figure.add_subplot() if axes else figure.add_axes((0.0, 0.0, 1.0, 1.0))
    plot.imshow(
        level,
        origin="lower",
        aspect="auto",
        cmap="cividis",  # its lightness rises evenly, so it also reads without colour
        vmin=loudest - _RANGE,
        vmax=loudest,
        extent=(0.0, len(padded) / SAMPLE_RATE, float(frequencies[0]) / 1000, float(frequencies[-1]) / 1000),
    )
    if axes:
        plot.set_xlabel("time, s")
        plot.set_ylabel("frequency, kHz")
    else:
        plot.set_axis_off()
    return _png(figure)


def power_density(samples: Samples) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Frequencies in Hz, [bins], and power at each of them over time, [bins, frames].

    Equal to scipy.signal.spectrogram but for rounding, whose import takes more than a second.
    """
    windows = np.lib.stride_tricks.sliding_window_view(samples.astype(np.float64), _WINDOW)[::_HOP]
    shape = _taper()
    spectra = np.fft.rfft((windows - windows.mean(axis=1, keepdims=True)) * shape, axis=1)
    power = np.abs(spectra) ** 2 / (SAMPLE_RATE * np.sum(shape**2))  # [frames, bins]
    power[:, 1:-1] *= 2  # what negative frequencies hold
    frequencies = np.arange(power.shape[1], dtype=np.float64) * (SAMPLE_RATE / _WINDOW)
    return frequencies, power.T


def _taper() -> npt.NDArray[np.float64]:
    """A periodic Tukey window of which a quarter is slope: scipy's default."""
    from_an_end = np.minimum(np.arange(_WINDOW), _WINDOW - np.arange(_WINDOW))  # samples
    return (1 - np.cos(np.pi * np.minimum(1.0, from_an_end / (_WINDOW / 8)))) / 2


def learning_curve(curve: Mapping[int, float], zero_shot: float | None, title: str) -> bytes:
    """WER by step; `zero_shot`, the untrained checkpoint's WER, is a dashed line."""
    figure = Figure(figsize=(6.4, 3.2), dpi=DOTS, layout="constrained")
    plot = figure.add_subplot()
    steps = sorted(curve)
    plot.plot(steps, [curve[step] for step in steps], marker="o", color="black")
    if zero_shot is not None:
        plot.axhline(zero_shot, linestyle="--", color="grey")
        plot.annotate("untrained", (steps[0] if steps else 0, zero_shot), textcoords="offset points", xytext=(0, 4))
    plot.set_ylim(bottom=0)
    plot.set_xlabel("step")
    plot.set_ylabel("WER on the validation clips")
    plot.set_title(title, parse_math=False)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
