"""Every configuration's curve by step: for plotly, and as a picture where nothing but HTML is shown."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from search.records import IMPORTED, Configuration
from search.study import Summary
from tmsearch.cli.view.format import model_of, searched_knobs
from tmsearch.trial.facts import StudyFacts

if TYPE_CHECKING:
    import plotly.graph_objects as go

PLOTLY = "application/vnd.plotly.v1+json"
_WIDTH, _HEIGHT = 640, 300  # pixels of the picture
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 26, 36  # its margins
_BEST, _OTHER, _UNTRAINED = "#0b6e99", "#9aa0a6", "#b3541e"  # told apart by width and dashes, too
_DASHES = {"running": "dashdot", "paused": "dot", "queued": "dot", "failed": "dash", "pruned": "solid"}
_OUTLIER = 1.3  # times the worst value of an untrained model, or the median where none is known: cut off above


@dataclass(frozen=True)
class _Line:
    """One configuration's values by step."""

    number: int
    state: str
    steps: tuple[int, ...]
    values: tuple[float, ...]
    knobs: str
    is_best: bool


def figure(summary: Summary) -> go.Figure:
    """The curves as a plotly figure, which a notebook without plotly's renderer shows as a picture."""
    from tmsearch.api.view.curve_figure import CurveFigure

    return CurveFigure(plotly_json(summary), picture(summary))


def bundle(summary: Summary) -> dict[str, Any]:
    """The curves in every form that a notebook may show: the richest that it knows is shown."""
    return {PLOTLY: plotly_json(summary), "text/html": picture(summary), "text/plain": _title(summary)}


def plotly_json(summary: Summary) -> dict[str, Any]:
    """Data and layout for plotly; the best configuration is stressed, untrained models are level lines."""
    untrained = _untrained(summary)
    layout = {
        "title": {"text": _title(summary)},
        "xaxis": {"title": {"text": "step"}, "tickvals": list(_rungs(summary))},
        "yaxis": {"title": {"text": summary.record.measure}, "range": [0, _top(summary)]},
        "shapes": [_level(rate) for rate in untrained.values()],
        "annotations": [_level_name(model, rate) for model, rate in untrained.items()],
        "width": _WIDTH + 160,
        "height": _HEIGHT + 120,
    }
    return {"data": [_trace(line) for line in _lines(summary)], "layout": layout}


def _trace(line: _Line) -> dict[str, Any]:
    look = {"color": _OTHER, "width": 1.3, "dash": _DASHES.get(line.state, "solid")}
    if line.is_best:
        look = {"color": _BEST, "width": 3, "dash": "solid"}
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": f"best: trial {line.number}" if line.is_best else f"trial {line.number}",
        "x": list(line.steps),
        "y": list(line.values),
        "hovertext": f"trial {line.number}, {line.state}; {line.knobs}",
        "line": look,
        "showlegend": line.is_best,
    }


def _level(rate: float) -> dict[str, Any]:
    """A level line over the whole width."""
    dashed = {"dash": "dash", "width": 1, "color": _UNTRAINED}
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": rate, "y1": rate, "line": dashed}


def _level_name(model: str, rate: float) -> dict[str, Any]:
    text = f"{model}, untrained"
    return {"xref": "paper", "x": 0, "y": rate, "text": text, "showarrow": False, "yanchor": "bottom"}


@dataclass(frozen=True)
class _Axes:
    """Where values are in the picture, in pixels."""

    last_step: int
    top: float

    def x(self, step: float) -> float:
        return round(_LEFT + (_WIDTH - _LEFT - _RIGHT) * step / self.last_step, 1)

    def y(self, value: float) -> float:
        return round(_HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * min(value, self.top) / self.top, 1)


def picture(summary: Summary) -> str:
    """The curves as SVG, which any notebook shows, and pages that show notebooks without running anything."""
    rungs = _rungs(summary)
    axes = _Axes(max(rungs), _top(summary))
    parts = [_text(_LEFT, 16, _title(summary), "start"), *_grid(axes, rungs)]
    for model, rate in _untrained(summary).items():
        end = _WIDTH - _RIGHT
        parts.append(f'<path d="M{_LEFT} {axes.y(rate)}H{end}" stroke="{_UNTRAINED}" stroke-dasharray="5 4"/>')
        parts.append(_text(end, axes.y(rate) - 3, f"{model}, untrained", "end"))
    for line in sorted(_lines(summary), key=lambda line: line.is_best):
        parts += _drawn(line, axes)
    parts.append(_text(_WIDTH / 2, _HEIGHT - 4, "step"))
    size = f'viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}"'
    font = 'font-size="11" font-family="sans-serif"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font}>{"".join(parts)}</svg>'


def _grid(axes: _Axes, rungs: Sequence[int]) -> list[str]:
    """Rungs as upright lines, round values as level ones."""
    parts = []
    for step in rungs:
        parts.append(f'<path d="M{axes.x(step)} {_TOP}V{_HEIGHT - _BOTTOM}" stroke="#8883"/>')
        parts.append(_text(axes.x(step), _HEIGHT - _BOTTOM + 14, str(step)))
    for tick in _ticks(axes.top):
        parts.append(f'<path d="M{_LEFT} {axes.y(tick)}H{_WIDTH - _RIGHT}" stroke="#8883"/>')
        parts.append(_text(_LEFT - 6, axes.y(tick) + 4, f"{tick:g}", "end"))
    return parts


def _drawn(line: _Line, axes: _Axes) -> list[str]:
    points = [f"{axes.x(step)},{axes.y(value)}" for step, value in zip(line.steps, line.values, strict=True)]
    colour, width = (_BEST, 3) if line.is_best else (_OTHER, 1.3)
    x, _, y = points[-1].partition(",")
    name = html.escape(f"trial {line.number}: {line.knobs}")
    return [
        f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" stroke-width="{width}"/>',
        f'<circle cx="{x}" cy="{y}" r="{width + 1}" fill="{colour}"><title>{name}</title></circle>',
    ]


def _text(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="currentColor">{html.escape(text)}</text>'


def _title(summary: Summary) -> str:
    record = summary.record
    title = f"{record.name}: {record.measure} by step, {len(_lines(summary))} configurations"
    if summary.best is not None and summary.best.value is not None:
        title += f"; best: trial {summary.best.number}, {summary.best.value:.3f}"
    return title


def _lines(summary: Summary) -> list[_Line]:
    """The configurations that have a result; what was trained elsewhere counts other clips and is left out."""
    best = summary.best.number if summary.best else None
    return [_line(summary, trial, trial.number == best) for trial in summary.history if _is_shown(trial)]


def _is_shown(trial: Configuration) -> bool:
    return trial.origin != IMPORTED and any(math.isfinite(rung.value) for rung in trial.rungs)


def _line(summary: Summary, trial: Configuration, is_best: bool) -> _Line:
    finite = {step: value for step, value in trial.curve.items() if math.isfinite(value)}
    knobs = searched_knobs(summary.record.space, trial.params)
    return _Line(trial.number, trial.state, tuple(finite), tuple(finite.values()), knobs, is_best)


def _rungs(summary: Summary) -> Sequence[int]:
    return tuple(summary.record.space["budget"]["rungs"])


def _untrained(summary: Summary) -> dict[str, float]:
    """What the untouched checkpoints score, by model, of those that a configuration with a result trains."""
    baselines = StudyFacts.from_json(summary.facts).baselines
    trained = {model_of(trial) for trial in summary.history if _is_shown(trial)}
    rates = {model: baseline.rate(summary.record.objective) for model, baseline in baselines.items()}
    return {model.rpartition("/")[2]: rate for model, rate in rates.items() if model in trained}


def _top(summary: Summary) -> float:
    """The highest value that is shown: a diverged training must not flatten the others."""
    values = sorted(value for line in _lines(summary) for value in line.values)
    if not values:
        return 1.0
    usual = max([values[len(values) // 2], *_untrained(summary).values()])
    return min(values[-1], _OUTLIER * usual) * 1.05 if values[-1] > 0 else 1.0


def _ticks(top: float) -> list[float]:
    """Round values from 0 up to `top`, four to nine of them."""
    unit = 10.0 ** math.floor(math.log10(top))
    step = next(unit * part for part in (0.2, 0.25, 0.5, 1, 2) if top / (unit * part) < 8)
    return [round(step * index, 6) for index in range(int(top / step) + 1)]
