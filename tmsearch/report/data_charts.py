"""Charts of recordings as plotly's JSON: durations, levels, noise, and where their energy lies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tmsearch.data_quality.health import Health
from tmsearch.data_quality.signal import spectrum_frequencies
from tmsearch.report.charts import Chart

_MOST_BINS = 24
_DEPTH = 90.0  # dB below its peak that the spectrum is drawn


def histograms(health: Health) -> dict[str, Chart]:
    """By name: durations, levels, snr, bandwidth, pace."""
    clips = health.clips
    return {
        "durations": _histogram([clip.seconds for clip in clips], "duration, s"),
        "levels": _histogram([clip.rms for clip in clips], "level (RMS), dBFS"),
        "snr": _histogram([clip.snr for clip in clips], "signal to noise, dB"),
        "bandwidth": _histogram([clip.bandwidth for clip in clips], "99 % of the energy below, Hz"),
        "pace": _histogram([clip.pace for clip in clips], "words per second"),
    }


def _histogram(values: Sequence[float], title: str) -> Chart:
    counts, edges = np.histogram(values, bins=min(_MOST_BINS, max(6, len(values) // 4)))
    bin_texts = []
    for low, high, count in zip(edges, edges[1:], counts, strict=False):
        bin_texts.append(f"{low:.4g} to {high:.4g}: {count}")
    bars: Chart = {
        "type": "bar",
        "x": ((edges[:-1] + edges[1:]) / 2).tolist(),
        "y": counts.tolist(),
        "text": bin_texts,
        "width": np.diff(edges).tolist(),
        "textposition": "none",
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {"color": "$accent", "line": {"color": "$paper", "width": 1}},
        "showlegend": False,
    }
    layout: Chart = {
        "xaxis": {"title": {"text": title}},
        "yaxis": {"title": {"text": "clips"}, "rangemode": "tozero"},
        "bargap": 0,
        "height": 230,
    }
    return {"data": [bars], "layout": layout}


def spectrum(health: Health) -> Chart:
    """The long-term average spectrum, its peak at 0 dB; mains hum shows at multiples of 50 or 60 Hz."""
    level = 10 * np.log10(np.maximum(health.spectrum, 1e-30))  # [513], dB
    level = np.maximum(level - level.max(), -_DEPTH)
    line: Chart = {
        "type": "scatter",
        "mode": "lines",
        "x": spectrum_frequencies().round(1).tolist()[1:],
        "y": level.round(2).tolist()[1:],
        "line": {"color": "$accent", "width": 2},
        "hovertemplate": "%{x:.0f} Hz: %{y:.1f} dB<extra></extra>",
        "showlegend": False,
        "name": "average of all clips",
    }
    layout: Chart = {
        "xaxis": {
            "title": {"text": "frequency, Hz"},
            "type": "log",
            "tickmode": "array",
            "tickvals": [20, 50, 100, 200, 500, 1000, 2000, 4000, 8000],
            "ticktext": ["20", "50", "100", "200", "500", "1k", "2k", "4k", "8k"],
        },
        "yaxis": {"title": {"text": "dB below the peak"}},
        "height": 300,
    }
    return {"data": [line], "layout": layout}
