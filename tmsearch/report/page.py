"""The page of a study or a dataset: one HTML file with its style, its script, its charts' data and plotly.js."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from tmsearch import formatting
from tmsearch.data_quality.health import Health
from tmsearch.evaluation.alignment import confusions
from tmsearch.report import charts, data_charts, knob_charts, sanitize
from tmsearch.report.charts import Chart
from tmsearch.report.clip_cards import ClipCard
from tmsearch.report.records import GENERATOR, SpentResult, StudyPage

_PART = 100_000  # characters of a long text that are written at once
MOST_CONFUSIONS = 25  # pairs of words that are listed
# Plotly adds the style of its maps unless an element has this id already; the page has no map.
_UNWANTED_STYLE = re.compile(r'document\.getElementById\("([0-9a-f]{64})"\)')


@dataclass(frozen=True)
class ScoredClips:
    """The best configuration's clips; `problem` says why there are none or why they cannot be played."""

    clips: tuple[ClipCard, ...] = ()
    intro: str = ""
    problem: str = ""


@dataclass(frozen=True)
class DoubtfulTranscripts:
    """Transcripts that an untrained model disagrees with most; `intro` says what that is worth."""

    clips: tuple[ClipCard, ...] = ()
    intro: str = ""


def study_page(study: StudyPage, scored: ScoredClips, health: Health | None, health_problem: str) -> Iterator[bytes]:
    """A study's page as HTML in UTF-8, piece by piece; `health_problem` says why there is no `health`."""
    drawn: dict[str, Chart | None] = {
        "curves": charts.curves(study),
        "spending": charts.spending(study.results, study.zero_shot, study.measure),
        "weights": knob_charts.weights(study.importances),
    }
    for comparison in study.matched:
        drawn[f"pairs_{comparison.knob}"] = knob_charts.pairs(comparison, study.measure)
    if study.slices:
        drawn["by_rate"] = knob_charts.by_rate(study.slices)
        drawn["by_model"] = knob_charts.by_model(study.slices)
        drawn["every_knob"] = knob_charts.every_knob(study.slices)
    if health:
        drawn |= _health_charts(health)
    word_pairs = confusions(card.alignment for card in scored.clips)
    return _render(
        "study.html.j2",
        drawn,
        study=study,
        scored=scored,
        health=health,
        health_problem=health_problem,
        most_pairs=knob_charts.MOST_PAIRS,
        confusions=word_pairs[:MOST_CONFUSIONS],
        more_confusions=max(0, len(word_pairs) - MOST_CONFUSIONS),
        improvements=_improvements(study.results),
    )


def _improvements(results: Sequence[SpentResult]) -> list[SpentResult]:
    """The results that were the lowest so far."""
    improvements: list[SpentResult] = []
    for result in results:
        if not improvements or result.wer < improvements[-1].wer:
            improvements.append(result)
    return improvements


def dataset_page(
    name: str, created: str, health: Health, odd: Sequence[ClipCard], doubtful: DoubtfulTranscripts | None
) -> Iterator[bytes]:
    """A dataset's page as HTML in UTF-8, piece by piece; `odd` are clips that something is odd about."""
    drawn = _health_charts(health)
    return _render("dataset.html.j2", drawn, name=name, created=created, health=health, odd=odd, doubtful=doubtful)


def _health_charts(health: Health) -> dict[str, Chart | None]:
    return {**data_charts.histograms(health), "spectrum": data_charts.spectrum(health)}


def _render(template: str, drawn: Mapping[str, Chart | None], **values: Any) -> Iterator[bytes]:
    """The template with its parts; the policy in its head lets no script run but the page's own.

    Piece by piece: as one text a page of 30 MB takes 60, two bytes a character for the sake of one arrow.
    """
    present = {name: chart for name, chart in drawn.items() if chart}
    style = _file("report.css")
    plotly = _plotly() if present else ""
    scripts = [script for script in (plotly, _file("report.js")) if script]
    pieces = (
        _environment()
        .get_template(template)
        .generate(
            policy=_policy(style, scripts),
            generator=GENERATOR,
            style=Markup(style),
            scripts=map(_parts, scripts),
            stubs=_UNWANTED_STYLE.findall(plotly),
            charts=present,
            charts_json=_charts_json(present),
            **values,
        )
    )
    return (piece.encode() for piece in pieces)


def _charts_json(charts: Mapping[str, Chart]) -> Iterator[Markup]:
    """The charts by name as JSON, a chart at a time: those of thousands of configurations take megabytes each."""
    yield Markup("{")
    for position, (name, chart) in enumerate(charts.items()):
        yield Markup(f"{',' if position else ''}{sanitize.script_json(name)}:")
        yield from _parts(sanitize.script_json(chart))
    yield Markup("}")


def _parts(text: str) -> Iterator[Markup]:
    """A long text as it is, part by part: whole, it would be copied to be marked as safe and again to be encoded."""
    for start in range(0, len(text), _PART):
        yield Markup(text[start : start + _PART])


def _policy(style: str, scripts: Sequence[str]) -> str:
    """Scripts and styles by their hash, pictures and sounds from the file itself, and nothing from anywhere else.

    Plotly fills an empty style element and sets style attributes: both are allowed, since a style that cannot load
    anything does no harm.
    """
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {' '.join(map(_hash, scripts))}",
            f"style-src-elem {_hash(style)} {_hash('')}",
            "style-src-attr 'unsafe-inline'",
            "img-src data:",
            "media-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )


def _hash(content: str) -> str:
    digest = hashlib.sha256()
    for part in _parts(content):
        digest.update(part.encode())
    return f"'sha256-{base64.b64encode(digest.digest()).decode()}'"


def _file(name: str) -> str:
    return (resources.files("tmsearch.report") / "files" / name).read_text(encoding="utf-8").strip()


@lru_cache(maxsize=1)
def _plotly() -> str:
    """plotly.js from its Python package."""
    script = (resources.files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")
    # Inside a page "</script" would end the element. The library has none, and this keeps it so.
    return script.replace("</script", "<\\/script").replace("\r\n", "\n").strip()


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    """Templates whose values are all escaped, with invisible characters shown."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tmsearch.report", "files"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else sanitize.visible("" if value is None else value),
    )
    environment.filters |= {
        "rate": sanitize.rate,
        "signed": sanitize.signed,
        "span": sanitize.span,
        "duration": formatting.duration,
        "short": sanitize.shortened,
    }
    return environment
