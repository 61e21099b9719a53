"""A study's course as plotly's JSON, curves and cost: what is told by colour is told by symbol, dash or place as well.

Colours are roles ($ink, $accent, ...) that the page's style gives a value in light and in dark.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tmsearch.report.records import ReferenceScore, SpentResult, StudyPage, TrialRow
from tmsearch.report.sanitize import label

Chart = dict[str, Any]
_FAR_OFF = 1.6  # times what all but 3 of 100 results stay below: out of the picture
# state -> (dash, width, symbol where it ends, colour)
STATES: dict[str, tuple[str, float, str, str]] = {
    "pruned": ("solid", 1.0, "x-thin-open", "$faint"),
    "paused": ("dot", 1.3, "circle-open", "$muted"),
    "queued": ("dot", 1.3, "circle-open", "$muted"),
    "running": ("dashdot", 1.8, "diamond-open", "$second"),
    "finished": ("solid", 1.4, "circle", "$ink"),
    "failed": ("dash", 1.3, "triangle-up-open", "$warn"),
    "imported": ("longdash", 1.0, "square-open", "$muted"),
}


def curves(study: StudyPage) -> Chart | None:
    """Every configuration's WER by step, the leader stressed, the rungs as lines."""
    drawn = [line for line in study.lines if line.curve]
    if not drawn:
        return None
    traces = [_curves_of(state, [one for one in drawn if one.state == state and not one.leads]) for state in STATES]
    leader = [one for one in drawn if one.leads]
    if leader:
        trace = _curves_of(leader[0].state, leader)
        assert trace is not None
        trace |= {"name": f"best: trial {leader[0].number}", "line": {"color": "$accent", "width": 4}}
        trace["marker"] |= {"symbol": "star", "size": 12, "color": "$accent", "line": {"width": 0}}
        traces.append(trace)
    steps = sorted({step for one in drawn for step, _ in one.curve})
    wide = len(steps) > 1 and steps[-1] / steps[0] >= 4
    ticks = [rung.step for rung in study.rungs] or steps[:12]
    layout: Chart = {
        "xaxis": {
            "title": {"text": "step"},
            "type": "log" if wide else "linear",
            "tickmode": "array",
            "tickvals": ticks,
            "ticktext": [str(tick) for tick in ticks],
        },
        "yaxis": {"title": {"text": "WER"}, **heights([wer for one in drawn for _, wer in one.curve], study.zero_shot)},
        "shapes": [_upright(rung.step) for rung in study.rungs] + [_level(one.wer) for one in study.zero_shot],
        "annotations": named(study.zero_shot),
        "hovermode": "closest",
    }
    return {"data": [trace for trace in traces if trace], "layout": layout}


def _curves_of(state: str, lines: Sequence[TrialRow]) -> Chart | None:
    """All curves of one state as one trace, parted by gaps."""
    if not lines:
        return None
    dash, width, symbol, colour = STATES[state]
    x: list[int | None] = []
    y: list[float | None] = []
    text, symbols, sizes = [], [], []
    for one in lines:
        for place, (step, wer) in enumerate(one.curve):
            last = place == len(one.curve) - 1
            x.append(step)
            y.append(wer)
            text.append(hover(one, step, wer))
            symbols.append(symbol if last else "circle")
            sizes.append(8 if last else 4)
        x.append(None)
        y.append(None)
        text.append("")
        symbols.append("circle")
        sizes.append(0)
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": f"{state} ({len(lines)})",
        "x": x,
        "y": y,
        "text": text,
        "hovertemplate": "%{text}<extra></extra>",
        "line": {"color": colour, "width": width, "dash": dash},
        "marker": {
            "opacity": 1,
            "symbol": symbols,
            "size": sizes,
            "color": colour,
            "line": {"width": 1.5, "color": colour},
        },
    }


def hover(one: TrialRow, step: int, wer: float) -> str:
    knobs = "".join(f"<br>{label(name)} = {label(_short(value))}" for name, value in one.knobs.items())
    return f"<b>trial {one.number}</b>, {one.state}<br>step {step}: WER {wer:.3f}{knobs}"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def heights(values: Sequence[float], known: Sequence[ReferenceScore]) -> Chart:
    """From 0 to a little over what matters: one that diverged must not flatten the rest. The full range: zoom out."""
    usual = sorted(values)[: max(1, round(0.97 * len(values)))]
    top = max([*usual, *(one.wer for one in known)])
    if max(values) < _FAR_OFF * top:
        top = max(top, *values)
    low = min([*values, *(one.wer for one in known)])
    return {"range": [max(0.0, low - 0.15 * (top - low)), top + 0.06 * (top - low or top or 1.0)]}


def _upright(step: int) -> Chart:
    return {
        "type": "line",
        "xref": "x",
        "yref": "paper",
        "x0": step,
        "x1": step,
        "y0": 0,
        "y1": 1,
        "layer": "below",
        "line": {"color": "$rule", "width": 1, "dash": "dot"},
    }


def _level(wer: float) -> Chart:
    return {
        "type": "line",
        "xref": "paper",
        "yref": "y",
        "x0": 0,
        "x1": 1,
        "y0": wer,
        "y1": wer,
        "layer": "below",
        "line": {"color": "$muted", "width": 1.2, "dash": "dash"},
    }


def named(known: Sequence[ReferenceScore]) -> list[Chart]:
    """What the dashed lines are: the lowest is named below its line, so that two close ones can be read."""
    lowest = min((one.wer for one in known), default=0.0) if len(known) > 1 else None
    return [
        {
            "xref": "paper",
            "yref": "y",
            "x": 1,
            "y": one.wer,
            "text": label(one.name),
            "showarrow": False,
            "xanchor": "right",
            "yanchor": "top" if one.wer == lowest else "bottom",
            "font": {"size": 11, "color": "$muted"},
        }
        for one in known
    ]


def spending(spent: Sequence[SpentResult], zero_shot: Sequence[ReferenceScore]) -> Chart | None:
    """Each result at the GPU time spent until then, and the lowest WER so far."""
    if not spent:
        return None
    unit, name = (3600.0, "hours") if spent[-1].seconds > 7200 else (60.0, "minutes")
    lowest, best = [], float("inf")
    for one in spent:
        best = min(best, one.wer)
        lowest.append(best)
    x = [one.seconds / unit for one in spent]
    text = [f"trial {one.number}, step {one.step}<br>WER {one.wer:.3f}" for one in spent]
    points: Chart = {
        "type": "scatter",
        "mode": "markers",
        "name": "a result",
        "x": x,
        "y": [one.wer for one in spent],
        "text": text,
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {"symbol": "circle-open", "size": 7, "color": "$muted"},
    }
    so_far: Chart = {
        "type": "scatter",
        "mode": "lines",
        "name": "lowest so far",
        "x": x,
        "y": lowest,
        "line": {"shape": "hv", "color": "$accent", "width": 3},
        "hovertemplate": f"after %{{x:.1f}} {name}: WER %{{y:.3f}}<extra></extra>",
    }
    layout: Chart = {
        "xaxis": {"title": {"text": f"{name} spent"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": "WER"}, **heights([one.wer for one in spent], zero_shot)},
        "shapes": [_level(one.wer) for one in zero_shot],
        "annotations": named(zero_shot),
    }
    return {"data": [points, so_far], "layout": layout}
