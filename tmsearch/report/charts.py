"""A study's course as plotly's JSON: learning curves, and WER against time spent.

Colours are roles ($ink, $accent, ...) to which the page's style sheet gives values, light and dark. Whatever colour
says, symbol, dash or position say as well.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from tmsearch.report.records import ReferenceScore, SpentResult, StudyPage, TrialRow
from tmsearch.report.sanitize import label

Chart = dict[str, Any]
_OUTLIER = 1.6  # times the height below which 97 of 100 results lie: what is higher is out of the picture
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
    """Every configuration's WER by step, the best one stressed, rungs as upright lines; None without a result."""
    rows = [row for row in study.trials if row.curve]
    if not rows:
        return None
    traces = []
    for state in STATES:
        of_state = [row for row in rows if row.state == state and not row.is_best]
        if of_state:
            traces.append(_curves_of(state, of_state, study.measure))
    for row in rows:
        if row.is_best:
            traces.append(_best_curve(row, study.measure))
    values = [wer for row in rows for _, wer in row.curve]
    layout: Chart = {
        "xaxis": _step_axis(study, rows),
        "yaxis": {"title": {"text": study.measure}, **wer_range(values, study.zero_shot)},
        "shapes": [_upright(rung.step) for rung in study.rungs] + [_level(score.wer) for score in study.zero_shot],
        "annotations": level_names(study.zero_shot),
        "hovermode": "closest",
    }
    return {"data": traces, "layout": layout}


def _step_axis(study: StudyPage, rows: Sequence[TrialRow]) -> Chart:
    steps = sorted({step for row in rows for step, _ in row.curve})
    is_wide = len(steps) > 1 and steps[-1] / steps[0] >= 4
    ticks = [rung.step for rung in study.rungs] or steps[:12]
    return {
        "title": {"text": "step"},
        "type": "log" if is_wide else "linear",
        "tickmode": "array",
        "tickvals": ticks,
        "ticktext": [str(tick) for tick in ticks],
    }


def _curves_of(state: str, rows: Sequence[TrialRow], measure: str) -> Chart:
    """All curves of one state as one trace, separated by gaps."""
    dash, width, symbol, colour = STATES[state]
    x: list[int | None] = []
    y: list[float | None] = []
    text, symbols, sizes = [], [], []
    for row in rows:
        for step, wer in row.curve:
            is_last = step == row.steps
            x.append(step)
            y.append(wer)
            text.append(hover_text(row, step, wer, measure))
            symbols.append(symbol if is_last else "circle")
            sizes.append(8 if is_last else 4)
        x.append(None)
        y.append(None)
        text.append("")
        symbols.append("circle")
        sizes.append(0)
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": f"{state} ({len(rows)})",
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


def _best_curve(row: TrialRow, measure: str) -> Chart:
    trace = _curves_of(row.state, [row], measure)
    trace["name"] = f"best: trial {row.number}"
    trace["line"] = {"color": "$accent", "width": 4}
    trace["marker"] |= {"symbol": "star", "size": 12, "color": "$accent", "line": {"width": 0}}
    return trace


def hover_text(row: TrialRow, step: int, wer: float, measure: str = "WER") -> str:
    """What a point of a trial says when the pointer is on it."""
    knobs = "".join(f"<br>{label(name)} = {label(_short(value))}" for name, value in row.knobs.items())
    return f"<b>trial {row.number}</b>, {row.state}<br>step {step}: {measure} {wer:.3f}{knobs}"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def wer_range(values: Sequence[float], references: Sequence[ReferenceScore]) -> Chart:
    """An axis from the lowest value to a little over the usual ones: a diverged trial must not flatten the others.

    Zooming out shows the full range.
    """
    levels = [reference.wer for reference in references]
    usual = sorted(values)[: max(1, round(0.97 * len(values)))]
    top = max([*usual, *levels])
    if max(values) < _OUTLIER * top:
        top = max(top, *values)
    low = min([*values, *levels])
    return {"range": [max(0.0, low - 0.15 * (top - low)), top + 0.06 * (top - low or top or 1.0)]}


def _upright(step: int) -> Chart:
    line = {"color": "$rule", "width": 1, "dash": "dot"}
    ends = {"x0": step, "x1": step, "y0": 0, "y1": 1}
    return {"type": "line", "xref": "x", "yref": "paper", **ends, "layer": "below", "line": line}


def _level(wer: float) -> Chart:
    line = {"color": "$muted", "width": 1.2, "dash": "dash"}
    ends = {"x0": 0, "x1": 1, "y0": wer, "y1": wer}
    return {"type": "line", "xref": "paper", "yref": "y", **ends, "layer": "below", "line": line}


def level_names(references: Sequence[ReferenceScore]) -> list[Chart]:
    """Names of the dashed lines. The lowest of several stands below its line, so that two close ones can be read."""
    lowest = min((reference.wer for reference in references), default=0.0) if len(references) > 1 else None
    annotations: list[Chart] = []
    for reference in references:
        annotations.append(
            {
                "xref": "paper",
                "yref": "y",
                "x": 1,
                "y": reference.wer,
                "text": label(reference.name),
                "showarrow": False,
                "xanchor": "right",
                "yanchor": "top" if reference.wer == lowest else "bottom",
                "font": {"size": 11, "color": "$muted"},
            }
        )
    return annotations


def spending(results: Sequence[SpentResult], zero_shot: Sequence[ReferenceScore], measure: str = "WER") -> Chart | None:
    """Each result at the GPU time spent until then, and the lowest WER so far; None without a result."""
    if not results:
        return None
    unit, name = (3600.0, "hours") if results[-1].seconds > 7200 else (60.0, "minutes")
    times = [result.seconds / unit for result in results]
    values = [result.wer for result in results]
    points: Chart = {
        "type": "scatter",
        "mode": "markers",
        "name": "a result",
        "x": times,
        "y": values,
        "text": [f"trial {result.number}, step {result.step}<br>{measure} {result.wer:.3f}" for result in results],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {"symbol": "circle-open", "size": 7, "color": "$muted"},
    }
    lowest: Chart = {
        "type": "scatter",
        "mode": "lines",
        "name": "lowest so far",
        "x": times,
        "y": list(itertools.accumulate(values, min)),
        "line": {"shape": "hv", "color": "$accent", "width": 3},
        "hovertemplate": f"after %{{x:.1f}} {name}: {measure} %{{y:.3f}}<extra></extra>",
    }
    layout: Chart = {
        "xaxis": {"title": {"text": f"{name} spent"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": measure}, **wer_range(values, zero_shot)},
        "shapes": [_level(score.wer) for score in zero_shot],
        "annotations": level_names(zero_shot),
    }
    return {"data": [points, lowest], "layout": layout}
