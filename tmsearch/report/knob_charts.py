"""Charts of the knobs as plotly's JSON: importances, WER by knob, and one value against another in matched pairs."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from tmsearch.report.charts import Chart, hover_text, wer_range
from tmsearch.report.records import KnobImportances, KnobSlices, MatchedPairs, TrialRow
from tmsearch.report.sanitize import label

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "pentagon", "hexagon", "star-diamond", "hourglass")
COLOURS = ("$accent", "$second", "$warn", "$ink")
MOST_PAIRS = 24  # that are drawn
Results = Sequence[tuple[TrialRow, float]]  # with the WER at one rung


def weights(importances: KnobImportances) -> Chart | None:
    """Importances as bars with their intervals; an upright stroke is what chance reaches. None without importances."""
    drawn = list(reversed(importances.weights))
    if not drawn:
        return None
    names = [label(weight.name) for weight in drawn]
    bars: Chart = {
        "type": "bar",
        "orientation": "h",
        "name": "importance, 95 %",
        "y": names,
        "x": [weight.share for weight in drawn],
        "marker": {
            "color": ["$accent" if weight.above_chance else "$faint" for weight in drawn],
            "line": {"color": "$ink", "width": 1},
        },
        "error_x": _whiskers([(weight.share, weight.low, weight.high) for weight in drawn], "$ink"),
        "hovertemplate": "%{y}: %{x:.2f}<extra></extra>",
    }
    chance: Chart = {
        "type": "scatter",
        "mode": "markers",
        "name": "what chance reaches",
        "y": names,
        "x": [weight.chance for weight in drawn],
        "hovertemplate": "%{y}: chance reaches %{x:.2f}<extra></extra>",
        "marker": {"symbol": "line-ns-open", "size": 22, "color": "$warn", "line": {"width": 2.5, "color": "$warn"}},
    }
    layout: Chart = {
        "xaxis": {"title": {"text": "share of all importances"}, "range": [0, 1.02]},
        "yaxis": {"automargin": True},
        "height": 120 + 44 * len(drawn),
    }
    return {"data": [bars, chance], "layout": layout}


def by_rate(slices: KnobSlices) -> Chart | None:
    """WER by learning rate, models by symbol, filled where the audio is normalized; None if no rate is searched."""
    results = [(row, wer) for row, wer in slices.results if isinstance(row.knobs.get("learning_rate"), float)]
    if not results:
        return None
    searches_level = "normalize_audio" in results[0][0].knobs
    groups = defaultdict(list)
    for row, wer in results:
        groups[_model(row, slices), _is_normalized(row)].append((row, wer))
    traces = []
    for index, (model, _) in enumerate(slices.models):
        for is_normalized in (True, False):
            if not groups[model, is_normalized]:
                continue
            name = label(short_name(model))
            symbol = SYMBOLS[index % len(SYMBOLS)]
            if searches_level:
                name += ", normalized" if is_normalized else ", as recorded"
                symbol += "" if is_normalized else "-open"
            traces.append(_points(name, groups[model, is_normalized], symbol, index, slices.measure))
    layout: Chart = {
        "xaxis": {"title": {"text": "learning rate"}, "type": "log", "exponentformat": "power", "dtick": 1},
        "yaxis": _wer_axis(slices, results),
        "hovermode": "closest",
    }
    return {"data": traces, "layout": layout}


def short_name(model: str) -> str:
    """A model's name without its owner or folder."""
    return model.rstrip("/").rpartition("/")[2]


def _model(row: TrialRow, slices: KnobSlices) -> str:
    """The row's model; the study's only one where none is searched."""
    return str(row.knobs.get("model", slices.models[0][0]))


def _is_normalized(row: TrialRow) -> bool:
    """Whether the configuration brings clips to one level."""
    return row.knobs.get("normalize_audio", False) not in (False, "none", None)


def _wer_axis(slices: KnobSlices, results: Results) -> Chart:
    return {"title": {"text": f"{slices.measure} at {slices.rung}"}, **wer_range([wer for _, wer in results], ())}


def _points(name: str, results: Results, symbol: str, index: int, measure: str) -> Chart:
    """WER by learning rate of the results; the best configuration is larger."""
    colour = COLOURS[index % len(COLOURS)]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [row.knobs.get("learning_rate") for row, _ in results],
        "y": [wer for _, wer in results],
        "text": [hover_text(row, row.steps, row.wer or wer, measure) for row, wer in results],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {
            "opacity": 1,
            "symbol": symbol,
            "size": [14 if row.is_best else 9 for row, _ in results],
            "color": colour,
            "line": {"width": [3 if row.is_best else 1.4 for row, _ in results], "color": colour},
        },
    }


def by_model(slices: KnobSlices) -> Chart | None:
    """WER by model size: every configuration, and each model's median as a stroke; None with a single model."""
    if len(slices.models) < 2:
        return None
    groups = defaultdict(list)
    for row, wer in slices.results:
        groups[_model(row, slices)].append((row, wer))
    traces: list[Chart] = []
    ticks = []
    for index, (model, millions) in enumerate(slices.models):
        ticks.append(label(short_name(model)) + (f"<br>{millions:.3g} M" if millions else ""))
        results = groups[model]
        if not results:
            continue
        # Side by side in order of their numbers, so that no point hides another.
        offsets = [0.5 * ((number + 0.5) / len(results) - 0.5) for number in range(len(results))]
        points = _points(label(short_name(model)), results, SYMBOLS[index % len(SYMBOLS)], index, slices.measure)
        traces.append({**points, "x": [index + offset for offset in offsets], "showlegend": False})
        traces.append(_median_stroke(index, [wer for _, wer in results]))
    layout: Chart = {
        "xaxis": {
            "tickmode": "array",
            "tickvals": list(range(len(slices.models))),
            "ticktext": ticks,
            "zeroline": False,
            "range": [-0.55, len(slices.models) - 0.45],
        },
        "yaxis": _wer_axis(slices, slices.results),
        "hovermode": "closest",
    }
    return {"data": traces, "layout": layout}


def _median_stroke(index: int, values: Sequence[float]) -> Chart:
    median = statistics.median(values)
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [index - 0.32, index + 0.32],
        "y": [median, median],
        "line": {"color": "$ink", "width": 2.5},
        "name": "median",
        "showlegend": False,
        "hovertemplate": f"median of {len(values)}: {median:.3f}<extra></extra>",
    }


def every_knob(slices: KnobSlices) -> Chart | None:
    """The WERs by each searched knob, side by side on one scale; None where there are too few."""
    if not slices.knobs:
        return None
    count = len(slices.knobs)
    gap = 0.2 / count
    width = (1 - gap * (count - 1)) / count
    traces = []
    layout: Chart = {}
    for index, knob in enumerate(slices.knobs):
        number = str(index + 1) if index else ""  # of the axes, as plotly counts them
        values = [value for value, _ in knob.points]
        axis: Chart = {"title": {"text": label(knob.name)}, "anchor": f"y{number}", "zeroline": False}
        start = index * (width + gap)
        axis["domain"] = [start, min(1.0, start + width)]
        if knob.choices is not None:
            values = [_choice_name(value) for value in values]
            names = [_choice_name(choice) for choice in knob.choices]
            axis |= {"type": "category", "categoryorder": "array", "categoryarray": names}
        elif knob.is_log:
            axis |= {"type": "log", "exponentformat": "power", "dtick": 1}
        traces.append(_slice_points(values, [wer for _, wer in knob.points], number))
        layout[f"xaxis{number}"] = axis
        shared = {"matches": "y", "showticklabels": False} if index else {"title": {"text": slices.measure}}
        layout[f"yaxis{number}"] = {"anchor": f"x{number}", "zeroline": False, **shared}
    return {"data": traces, "layout": layout, "wide": 230 * count}


def _choice_name(value: Any) -> str:
    return label(short_name(str(value)))


def _slice_points(values: Sequence[Any], wers: Sequence[float], number: str) -> Chart:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": values,
        "y": wers,
        "xaxis": f"x{number}",
        "yaxis": f"y{number}",
        "marker": {"symbol": "circle-open", "size": 7, "color": "$accent", "line": {"width": 1.4}},
        "showlegend": False,
    }


def pairs(comparison: MatchedPairs, measure: str = "WER") -> Chart:
    """Each pair's difference with its interval over clips, and the mean with its own as a diamond."""
    ordered = sorted(comparison.pairs, key=lambda pair: pair.difference)
    # Evenly through their order, so that the chart does not choose.
    stride = max(1.0, (len(ordered) - 1) / (MOST_PAIRS - 1))
    drawn = [ordered[round(number * stride)] for number in range(min(MOST_PAIRS, len(ordered)))]
    names = [f"{pair.first} against {pair.second}" for pair in drawn]
    points: Chart = {
        "type": "scatter",
        "mode": "markers",
        "name": "a pair, 95 % over clips",
        "y": names,
        "x": [pair.difference for pair in drawn],
        "hovertemplate": "trials %{y}: %{x:+.3f}<extra></extra>",
        "marker": {"symbol": "circle-open", "size": 8, "color": "$ink"},
        "error_x": _whiskers([(pair.difference, pair.low, pair.high) for pair in drawn], "$muted"),
    }
    mean: Chart = {
        "type": "scatter",
        "mode": "markers",
        "name": "mean of all pairs, 95 %",
        "y": ["all"],
        "x": [comparison.difference],
        "hovertemplate": "all: %{x:+.3f}<extra></extra>",
        "marker": {"symbol": "diamond", "size": 14, "color": "$accent"},
        "error_x": _whiskers([(comparison.difference, comparison.low, comparison.high)], "$accent", 3),
    }
    first, second = (label(short_name(value)) for value in comparison.values)
    title = f"{measure} with {label(comparison.knob)} {first}, less {second}"
    layout: Chart = {
        "xaxis": {"title": {"text": title}, "zeroline": True},
        "yaxis": {"type": "category", "categoryarray": ["all", *names], "automargin": True},
        "height": 170 + 22 * len(drawn),
        "hovermode": "closest",
    }
    return {"data": [mean, points], "layout": layout}


def _whiskers(intervals: Sequence[tuple[float, float, float]], colour: str, thickness: float = 1.4) -> Chart:
    """Error bars of (value, low, high)."""
    return {
        "type": "data",
        "symmetric": False,
        "color": colour,
        "thickness": thickness,
        "width": 4,
        "array": [high - value for value, _, high in intervals],
        "arrayminus": [value - low for value, low, _ in intervals],
    }
