"""A study as its report shows it: the ledger's summary and Optuna's figures as the page's records."""

from __future__ import annotations

import datetime
import json
import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from search import imported
from search.dashboard import importances
from search.paths import study_folder, trial_folder
from search.records import IMPORTED, Configuration, code_versions
from search.schedulers import racing
from search.space.distributions import Choice
from search.space.search_space import Space
from search.storage import timeline
from search.storage.ledger import Ledger
from search.study import Summary
from tmsearch.cli.services import report_answer
from tmsearch.cli.services.plan import data_line
from tmsearch.cli.view import intervals
from tmsearch.cli.view.format import model_of, searched_knobs, short_value
from tmsearch.config import TrainConfig
from tmsearch.evaluation.scores import baseline_folder
from tmsearch.model import sizes
from tmsearch.recipe import versions as libraries
from tmsearch.report.matched_pairs import MatchCandidate, MatchedPairs, match_pairs
from tmsearch.report.records import (
    JudgedRung,
    KnobImportances,
    KnobSlices,
    KnobWeight,
    ReferenceScore,
    SpentResult,
    StudyPage,
    TrialRow,
)
from tmsearch.trial.facts import StudyFacts


def collect_report(ledger: Ledger, summary: Summary) -> StudyPage:
    """The page's record of a study."""
    space = Space.from_json(dict(summary.record.space))
    facts = StudyFacts.from_json(summary.facts)
    rows = _rows(summary, facts)
    comparable = None if facts.confirms else importances.comparable_results(summary.history)
    recorded_results = timeline.recorded_results(ledger)
    zero_shot = tuple(
        ReferenceScore(
            f"untrained {short_value(model)}",
            baseline.wer,
            intervals.bounds(intervals.baseline_interval(facts, model)),
        )
        for model, baseline in facts.baselines.items()
    )
    return StudyPage(
        name=summary.record.name,
        created=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        state=_state(summary),
        data=_data(summary, facts),
        answer=report_answer.answer(ledger.storage, summary, rows),
        trials=tuple(rows.values()),
        rungs=_rungs(space, summary),
        zero_shot=zero_shot,
        results=tuple(
            SpentResult(result.spent, result.value, result.number, result.step) for result in recorded_results
        ),
        importances=_importances(facts, space, comparable),
        matched=_matched_pairs(space, facts, summary.record.space["data"].get("fold", 0), comparable),
        slices=_slices(space, comparable, rows),
        environment=_environment(summary, facts, recorded_results),
        space=yaml.safe_dump(dict(summary.record.space), sort_keys=False, allow_unicode=True),
        notes=_notes(summary),
    )


def _rows(summary: Summary, facts: StudyFacts) -> dict[int, TrialRow]:
    """Every configuration by number; imported ones with what of them is on the study's scale."""
    best, found = summary.best, {}
    for one in imported.rescale_imported(summary.history):
        known = one.origin == IMPORTED and one.failure is None
        params = one.params or {}
        names = [*summary.record.space["search"], *(name for name in racing.REPLICATE if facts.confirms)]
        found[one.number] = TrialRow(
            number=one.number,
            state=IMPORTED if known else one.state,
            knobs={name: params[name] for name in names if name in params},
            knobs_text=searched_knobs(summary.record.space, one.params),
            curve=tuple((step, value) for step, value in one.curve.items() if math.isfinite(value)),
            seconds=one.seconds,
            interval=intervals.bounds(intervals.interval(facts, one)) if one.rungs and not known else None,
            reason=one.reason or "",
            is_best=best is not None and best.number == one.number,
        )
    return found


def _state(summary: Summary) -> str:
    counts = ", ".join(f"{count} {state}" for state, count in summary.counts.items())
    mine = len(imported.without_imported(summary.history))
    ended = sum(one.ended for one in imported.without_imported(summary.history))
    total = max(summary.record.trials, mine)
    if not summary.history:
        return f"Nothing has started yet; {total} configurations are planned."
    if ended < total:
        return f"Not finished: {ended} of {total} configurations have ended ({counts})."
    return f"Finished: {total} configurations ({counts})."


def _data(summary: Summary, facts: StudyFacts) -> str:
    """Of which speech, and how it is divided."""
    if facts.data is None:
        return ""
    line = data_line(summary.record.space["data"]["dataset"], facts.data).removeprefix("data ")
    return f"Data: {line}."


def _rungs(space: Space, summary: Summary) -> tuple[JudgedRung, ...]:
    own, found = imported.without_imported(summary.history), []
    for step in space.budget.rungs:
        here = [one for one in own if step in one.curve and math.isfinite(one.curve[step])]
        if here:
            values = [one.curve[step] for one in here]
            on = sum(one.steps > step or one.target > step for one in here)
            found.append(JudgedRung(step, len(here), on, min(values), statistics.median(values)))
    return tuple(found)


def _importances(facts: StudyFacts, space: Space, comparable: importances.ComparableResults | None) -> KnobImportances:
    if facts.confirms:
        return KnobImportances(
            (), "", f"A confirmation varies seeds and no knobs: see `tmsearch report {facts.confirms.of}`."
        )
    found = importances.importances(space, comparable)
    how = (
        f"{importances.EVALUATOR} over {found.configurations} configurations by their WER at {found.where}: how far "
        f"the best {found.best} lie from all of them, knob by knob, as shares. Error bars are 95 % intervals over "
        f"{importances.RESAMPLES} bootstrap resamples; a knob whose bar stays left of the red stroke, which 95 of 100 "
        "shuffles of the results stay below, may matter by chance alone."
    )
    weights = [KnobWeight(one.name, one.share, one.low, one.high, one.chance) for one in found.knobs]
    return KnobImportances(tuple(weights), how, f"{found.why[:1].upper()}{found.why[1:]}." if found.why else "")


def _slices(
    space: Space, comparable: importances.ComparableResults | None, rows: Mapping[int, TrialRow]
) -> KnobSlices | None:
    if comparable is None or not space.search:
        return None
    results = tuple((rows[configuration.number], value) for configuration, value in comparable.results)
    fixed = str(space.train.get("model", TrainConfig.model))
    names = {str(row.knobs.get("model", fixed)) for row, _ in results}
    models = {name: sizes.parameters(name) for name in names}
    order = sorted(models.items(), key=lambda one: (one[1] or 0.0, one[0]))
    return KnobSlices(comparable.where, results, tuple(order), importances.slices(space, comparable, "WER"))


def _matched_pairs(
    space: Space, facts: StudyFacts, fold: int, comparable: importances.ComparableResults | None
) -> tuple[MatchedPairs, ...]:
    """One value against the other, for every knob that is searched over two; not where there are too few pairs."""
    if comparable is None:
        return ()
    comparisons = []
    for knob, choices in space.search.items():
        if not isinstance(choices, Choice) or len(choices.values) != 2:
            continue
        # true against false, other values in the order of the space file
        first, second = sorted(choices.values, key=lambda value: value is not True)
        candidates = _candidates(space, comparable, knob, first, second)
        names = (_value_name(first), _value_name(second))
        comparison = match_pairs(knob, names, candidates, facts.words.get(fold, ()))
        if comparison is not None:
            comparisons.append(comparison)
    return tuple(comparisons)


def _value_name(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _candidates(
    space: Space, comparable: importances.ComparableResults, knob: str, first: Any, second: Any
) -> list[MatchCandidate]:
    """The comparable configurations that have one of two values of a knob."""
    candidates = []
    for configuration, _ in comparable.results:
        params = configuration.params or {}
        errors = configuration.errors(comparable.step)
        if errors is None or knob not in params or params[knob] not in (first, second):
            continue
        knobs = {name: params[name] for name in space.search if name not in (knob, "model") and name in params}
        model = "" if knob == "model" else str(params.get("model", TrainConfig.model))
        candidates.append(MatchCandidate(configuration.number, params[knob] == first, model, knobs, errors))
    return candidates


def _notes(summary: Summary) -> tuple[str, ...]:
    found = []
    noise = imported.repeat_noise(summary.history)
    if noise is not None:
        found.append(
            f"Imported trainings of one recipe differ by {noise.deviation:.4f} in WER (standard deviation of "
            f"{noise.runs}): a difference of that size is nothing."
        )
    foreign = sum(one.origin == IMPORTED for one in summary.history)
    if foreign:
        found.append(f"{foreign} configurations were trained elsewhere; none of them can be the best.")
    code = code_versions(summary.history)
    if len(code) > 1:
        by = ", ".join(f"{count} results by {name}" for name, count in code.items())
        found.append(f"The code changed midway: {by}.")
    if summary.record.stop_reason:
        found.append(f"Stopped: {summary.record.stop_reason}")
    return tuple(found)


def _environment(
    summary: Summary, facts: StudyFacts, recorded_results: tuple[timeline.RecordedResult, ...]
) -> tuple[tuple[str, str], ...]:
    hosts: dict[str, int] = {}
    for one in recorded_results:
        hosts[one.host] = hosts.get(one.host, 0) + 1
    found = [
        ("study made by", f"tmsearch {summary.record.version}, seed {summary.record.seed}"),
        ("code of results", ", ".join(f"{name} ({count})" for name, count in code_versions(summary.history).items())),
        ("trained on", ", ".join(f"{host} ({count} results)" for host, count in hosts.items())),
        ("at work now", ", ".join(one.display_name for one in summary.workers if one.alive)),
        ("devices", ", ".join(facts.devices)),
        ("threads a training", str(facts.threads or "")),
        ("models", ", ".join(f"{short_value(name)} ({_size(name)})" for name in facts.baselines)),
        ("data's fingerprint", facts.data.fingerprint if facts.data else ""),
        ("space's fingerprint", summary.record.fingerprint),
        ("this page", ", ".join(f"{name} {version}" for name, version in libraries().items())),
    ]
    return tuple((name, value) for name, value in found if value)


def _size(model: str) -> str:
    millions = sizes.parameters(model)
    return f"{millions:.3g} M parameters" if millions else "of unknown size"


def best_folder(ledger: Ledger, one: Configuration) -> tuple[Path, Path]:
    """Where the tables of clips are: of the configuration, and of its model untrained."""
    top = study_folder(ledger.storage.folder, ledger.study)
    return trial_folder(top, one.number), baseline_folder(top, model_of(one))
