"""Charts of what mattered as plotly's JSON: importances, WER by knob, a switch on against off."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence

from tmsearch.report.charts import Chart, heights, hover
from tmsearch.report.matched_pairs import MatchedPairs
from tmsearch.report.records import KnobImportances, KnobSlices, TrialRow
from tmsearch.report.sanitize import label

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "pentagon", "hexagon", "star-diamond", "hourglass")
PAIRS = 24  # that are drawn


def weights(mattered: KnobImportances) -> Chart | None:
    """Importances as bars with their intervals; an upright stroke is what chance reaches."""
    shown = list(reversed(mattered.weights))
    if not shown:
        return None
    names = [label(one.name) for one in shown]
    bars: Chart = {
        "type": "bar",
        "orientation": "h",
        "name": "importance, 95 %",
        "y": names,
        "x": [one.share for one in shown],
        "marker": {
            "color": ["$accent" if one.told else "$faint" for one in shown],
            "line": {"color": "$ink", "width": 1},
        },
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [one.high - one.share for one in shown],
            "arrayminus": [one.share - one.low for one in shown],
            "color": "$ink",
            "thickness": 1.4,
            "width": 5,
        },
        "hovertemplate": "%{y}: %{x:.2f}<extra></extra>",
    }
    luck: Chart = {
        "type": "scatter",
        "mode": "markers",
        "name": "what chance reaches",
        "y": names,
        "x": [one.chance for one in shown],
        "hovertemplate": "%{y}: chance reaches %{x:.2f}<extra></extra>",
        "marker": {"symbol": "line-ns-open", "size": 22, "color": "$warn", "line": {"width": 2.5, "color": "$warn"}},
    }
    layout: Chart = {
        "xaxis": {"title": {"text": "share of all importances"}, "range": [0, 1.02]},
        "yaxis": {"automargin": True},
        "height": 120 + 44 * len(shown),
    }
    return {"data": [bars, luck], "layout": layout}


def by_rate(slices: KnobSlices) -> Chart | None:
    """WER by learning rate, models by symbol; filled where the audio is normalised."""
    found = [(line, wer) for line, wer in slices.results if isinstance(line.knobs.get("learning_rate"), float)]
    if not found or "learning_rate" not in found[0][0].knobs:
        return None
    names = [name for name, _ in slices.models]
    traces = []
    for place, model in enumerate(names):
        for on in (True, False):
            here = [(line, wer) for line, wer in found if _model(line, names) == model and normalised(line) is on]
            if here:
                symbol = SYMBOLS[place % len(SYMBOLS)]
                title = label(brief(model)) + (", normalised" if on else ", as recorded" if _searches(found) else "")
                traces.append(_points(title, here, symbol if on or not _searches(found) else f"{symbol}-open", place))
    layout: Chart = {
        "xaxis": {"title": {"text": "learning rate"}, "type": "log", "exponentformat": "power", "dtick": 1},
        "yaxis": {"title": {"text": f"WER at {slices.where}"}, **heights([wer for _, wer in found], ())},
        "hovermode": "closest",
    }
    return {"data": traces, "layout": layout}


def brief(name: str) -> str:
    """A model by its last name."""
    return name.rstrip("/").rpartition("/")[2]


def _model(line: TrialRow, names: Sequence[str]) -> str:
    return str(line.knobs.get("model", names[0]))


def _searches(found: Sequence[tuple[TrialRow, float]]) -> bool:
    return "normalize_audio" in found[0][0].knobs


def normalised(line: TrialRow) -> bool:
    """Whether the configuration brings clips to one level."""
    return line.knobs.get("normalize_audio", False) not in (False, "none", None)


def _points(name: str, found: Sequence[tuple[TrialRow, float]], symbol: str, place: int) -> Chart:
    colour = ("$accent", "$second", "$warn", "$ink")[place % 4]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [line.knobs["learning_rate"] for line, _ in found],
        "y": [wer for _, wer in found],
        "text": [hover(line, line.steps, line.wer or wer) for line, wer in found],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {
            "opacity": 1,
            "symbol": symbol,
            "size": [14 if line.leads else 9 for line, _ in found],
            "color": colour,
            "line": {"width": [3 if line.leads else 1.4 for line, _ in found], "color": colour},
        },
    }


def by_model(slices: KnobSlices) -> Chart | None:
    """WER by model size: every configuration, and each model's median as a stroke."""
    names = [name for name, _ in slices.models]
    if len(names) < 2:
        return None
    traces = []
    ticks = [label(brief(name)) + (f"<br>{million:.3g} M" if million else "") for name, million in slices.models]
    for place, name in enumerate(names):
        found = [(line, wer) for line, wer in slices.results if _model(line, names) == name]
        if not found:
            continue
        # Side by side, in order of their numbers: nothing hides behind another.
        aside = [place + 0.5 * ((index + 0.5) / len(found) - 0.5) for index in range(len(found))]
        trace = _points(label(brief(name)), found, SYMBOLS[place % len(SYMBOLS)], place)
        middle = statistics.median(wer for _, wer in found)
        traces += [
            {**trace, "x": aside, "showlegend": False},
            {
                "type": "scatter",
                "mode": "lines",
                "x": [place - 0.32, place + 0.32],
                "y": [middle, middle],
                "line": {"color": "$ink", "width": 2.5},
                "name": "median",
                "showlegend": False,
                "hovertemplate": f"median of {len(found)}: {middle:.3f}<extra></extra>",
            },
        ]
    values = [wer for _, wer in slices.results]
    layout: Chart = {
        "xaxis": {
            "tickmode": "array",
            "tickvals": list(range(len(names))),
            "ticktext": ticks,
            "zeroline": False,
            "range": [-0.55, len(names) - 0.45],
        },
        "yaxis": {"title": {"text": f"WER at {slices.where}"}, **heights(values, ())},
        "hovermode": "closest",
    }
    return {"data": traces, "layout": layout}


def every_knob(slices: KnobSlices) -> Chart | None:
    """What optuna.visualization draws, in the page's colours."""
    if not slices.every:
        return None
    figure: Chart = json.loads(slices.every)
    for trace in figure["data"]:
        trace["marker"] = {"symbol": "circle-open", "size": 7, "color": "$accent", "line": {"width": 1.4}}
        trace["showlegend"] = False
        if isinstance(trace["x"], list) and all(isinstance(value, str) for value in trace["x"]):
            trace["x"] = [label(brief(value.strip("'"))) for value in trace["x"]]
    layout = {key: value for key, value in figure["layout"].items() if key.startswith(("xaxis", "yaxis"))}
    for axis in layout.values():
        if axis.get("type") == "log":
            axis |= {"exponentformat": "power", "dtick": 1}
        axis |= {"zeroline": False}
        axis.pop("categoryarray", None)
    return {"data": figure["data"], "layout": layout, "wide": 230 * len(figure["data"])}


def pairs(found: MatchedPairs) -> Chart:
    """Each pair's difference with its interval over clips, and the mean with its own, as a diamond."""
    order = sorted(found.pairs, key=lambda one: one.difference)
    step = max(1.0, (len(order) - 1) / (PAIRS - 1))  # every so many: the picture must not choose
    kept = [order[round(place * step)] for place in range(min(PAIRS, len(order)))]
    names = [f"{one.on} against {one.off}" for one in kept]
    each: Chart = {
        "type": "scatter",
        "mode": "markers",
        "name": "a pair, 95 % over clips",
        "y": names,
        "x": [one.difference for one in kept],
        "hovertemplate": "trials %{y}: %{x:+.3f}<extra></extra>",
        "marker": {"symbol": "circle-open", "size": 8, "color": "$ink"},
        "error_x": _whiskers([(one.difference, one.low, one.high) for one in kept], "$muted"),
    }
    mean: Chart = {
        "type": "scatter",
        "mode": "markers",
        "name": "mean of all pairs, 95 %",
        "y": ["all"],
        "x": [found.difference],
        "hovertemplate": "all: %{x:+.3f}<extra></extra>",
        "marker": {"symbol": "diamond", "size": 14, "color": "$accent"},
        "error_x": _whiskers([(found.difference, found.low, found.high)], "$accent", 3),
    }
    layout: Chart = {
        "xaxis": {"title": {"text": "WER, normalised less as recorded"}, "zeroline": True},
        "yaxis": {"type": "category", "categoryarray": ["all", *names], "automargin": True},
        "height": 170 + 22 * len(kept),
        "hovermode": "closest",
    }
    return {"data": [mean, each], "layout": layout}


def _whiskers(found: Sequence[tuple[float, float, float]], colour: str, thickness: float = 1.4) -> Chart:
    return {
        "type": "data",
        "symmetric": False,
        "color": colour,
        "thickness": thickness,
        "width": 4,
        "array": [high - middle for middle, _, high in found],
        "arrayminus": [middle - low for middle, low, _ in found],
    }
