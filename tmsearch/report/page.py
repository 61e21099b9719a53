"""A page put together: one HTML file with its style, its program, its charts' data and a kept plotting library."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from tmsearch.data_quality.health import Health
from tmsearch.evaluation.alignment import confusions
from tmsearch.report import charts, data_charts, knob_charts, sanitize
from tmsearch.report.charts import Chart
from tmsearch.report.clip_cards import ClipCard
from tmsearch.report.matched_pairs import MatchedPairs
from tmsearch.report.records import SpentResult, StudyPage

GENERATOR = "tmsearch report"  # in the page's head: what may be written over
CONFUSIONS = 25  # pairs of words that are listed
# Plotly brings the style of its maps along unless an element has this name already; the page has no map.
_UNWANTED_STYLE = re.compile(r'document\.getElementById\("([0-9a-f]{64})"\)')


@dataclass(frozen=True)
class ScoredClips:
    """The best configuration's clips; `why` where there are none or where they cannot be played."""

    clips: tuple[ClipCard, ...] = ()
    where: str = ""
    why: str = ""


@dataclass(frozen=True)
class DoubtfulTranscripts:
    """Transcripts that an untrained model disagrees with most; `how` says what that is worth."""

    clips: tuple[ClipCard, ...] = ()
    how: str = ""


def study_page(
    study: StudyPage,
    heard: ScoredClips,
    health: Health | None,
    health_why: str,
    paired: MatchedPairs | None,
    paired_why: str,
) -> str:
    """A study's page as HTML."""
    drawn: dict[str, Chart | None] = {
        "curves": charts.curves(study),
        "spending": charts.spending(study.spent, study.zero_shot),
        "weights": knob_charts.weights(study.mattered),
        "pairs": knob_charts.pairs(paired) if paired else None,
    }
    if study.slices:
        drawn["by_rate"] = knob_charts.by_rate(study.slices)
        drawn["by_model"] = knob_charts.by_model(study.slices)
        drawn["every_knob"] = knob_charts.every_knob(study.slices)
    found = confusions(one.heard for one in heard.clips)
    return _rendered(
        "study.html.j2",
        drawn | (_health_charts(health) if health else {}),
        study=study,
        heard=heard,
        health=health,
        health_why=health_why,
        paired=paired,
        paired_why=paired_why,
        confusions=found[:CONFUSIONS],
        improvements=_improvements(study),
        confusions_left=len(found) - len(found[:CONFUSIONS]),
    )


def _improvements(study: StudyPage) -> list[SpentResult]:
    """The results that were the lowest so far."""
    found: list[SpentResult] = []
    for one in study.spent:
        if not found or one.wer < found[-1].wer:
            found.append(one)
    return found


def dataset_page(
    name: str, made: str, health: Health, odd: Sequence[ClipCard], doubts: DoubtfulTranscripts | None
) -> str:
    """A dataset's page as HTML."""
    return _rendered(
        "dataset.html.j2", _health_charts(health), name=name, made=made, health=health, odd=odd, doubts=doubts
    )


def _health_charts(health: Health) -> dict[str, Chart | None]:
    return {**data_charts.histograms(health), "spectrum": data_charts.spectrum(health)}


def _rendered(template: str, drawn: Mapping[str, Chart | None], **given: Any) -> str:
    """The template with its parts; a policy in its head lets no program run but the page's own."""
    kept = {name: chart for name, chart in drawn.items() if chart}
    style, program = _file("report.css"), _file("report.js")
    plotly = _plotly() if kept else ""
    scripts = [script for script in (plotly, program) if script]
    return (
        _environment()
        .get_template(template)
        .render(
            policy=_policy(style, scripts),
            generator=GENERATOR,
            style=Markup(style),
            scripts=[Markup(script) for script in scripts],
            stubs=_UNWANTED_STYLE.findall(plotly),
            charts=kept,
            charts_json=Markup(sanitize.script_json(kept)),
            **given,
        )
    )


def _policy(style: str, scripts: Sequence[str]) -> str:
    """Programs and styles by their hash, pictures and sounds from the file itself, and nothing from anywhere else.

    Plotly fills a style element that is empty, and gives single elements a style: that is allowed, as a style without
    a source to load from can do no harm.
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
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def _file(name: str) -> str:
    return (resources.files("tmsearch.report") / "files" / name).read_text(encoding="utf-8").strip()


@lru_cache(maxsize=1)
def _plotly() -> str:
    """plotly.js as its Python package brings it."""
    script = (resources.files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")
    # In a file "</script" would end the element; the library's text has none, and this keeps it so.
    return script.replace("</script", "<\\/script").replace("\r\n", "\n").strip()


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    """Every value is escaped; what hides in text is shown, also where a filter forgets to ask for it."""
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("tmsearch.report", "files"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else sanitize.visible("" if value is None else value),
    )
    made.filters |= {
        "rate": sanitize.rate,
        "signed": sanitize.signed,
        "span": sanitize.span,
        "duration": sanitize.duration,
        "short": sanitize.shortened,
    }
    return made
