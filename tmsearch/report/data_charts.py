"""Charts of recordings as plotly's JSON: how long, how loud, how clean, and where their energy lies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tmsearch.data_quality.health import Health
from tmsearch.data_quality.signal import spectrum_frequencies
from tmsearch.report.charts import Chart

_BINS = 24
_DEEP = 90.0  # dB below its peak that the spectrum is shown


def histograms(health: Health) -> dict[str, Chart]:
    """By name: duration, level, SNR, bandwidth, pace."""
    clips = health.clips
    return {
        "durations": _histogram([one.seconds for one in clips], "duration, s"),
        "levels": _histogram([one.rms for one in clips], "level (RMS), dBFS"),
        "snr": _histogram([one.snr for one in clips], "signal to noise, dB"),
        "bandwidth": _histogram([one.bandwidth for one in clips], "99 % of the energy below, Hz"),
        "pace": _histogram([one.pace for one in clips], "words a second"),
    }


def _histogram(values: Sequence[float], title: str) -> Chart:
    counts, edges = np.histogram(values, bins=min(_BINS, max(6, len(values) // 4)))
    spans = [f"{low:.4g} to {high:.4g}: {count}" for low, high, count in zip(edges, edges[1:], counts, strict=False)]
    bars: Chart = {
        "type": "bar",
        "x": ((edges[:-1] + edges[1:]) / 2).tolist(),
        "y": counts.tolist(),
        "text": spans,
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
    """The long-term average spectrum, its peak at 0 dB; multiples of 50 and 60 Hz are where mains hum."""
    level = 10 * np.log10(np.maximum(health.spectrum, 1e-30))
    level = np.maximum(level - level.max(), -_DEEP)
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
    ticks = [20, 50, 100, 200, 500, 1000, 2000, 4000, 8000]
    layout: Chart = {
        "xaxis": {
            "title": {"text": "frequency, Hz"},
            "type": "log",
            "tickmode": "array",
            "tickvals": ticks,
            "ticktext": ["20", "50", "100", "200", "500", "1k", "2k", "4k", "8k"],
        },
        "yaxis": {"title": {"text": "dB below the peak"}},
        "height": 300,
    }
    return {"data": [line], "layout": layout}
