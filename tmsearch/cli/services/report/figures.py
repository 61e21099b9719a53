"""A study as its report shows it: the ledger's summary and Optuna's figures as the page's records."""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import statistics
from collections import Counter
from collections.abc import Mapping
from typing import Any

import yaml

from search import imported, study
from search.dashboard import importances
from search.records import IMPORTED, Configuration, code_versions
from search.samplers import repeats
from search.schedulers import racing
from search.space.distributions import Choice
from search.space.search_space import Space
from search.storage import timeline
from search.storage.database import Storage
from search.study import Summary
from tmsearch.cli.services.plan import data_line
from tmsearch.cli.services.report import answer
from tmsearch.cli.services.report.records import StudyFigures
from tmsearch.cli.view import intervals
from tmsearch.cli.view.format import searched_knobs, short_value
from tmsearch.config import TrainConfig
from tmsearch.model_sizes import millions_of_parameters
from tmsearch.recipe import versions as libraries
from tmsearch.report.matched_pairs import MatchCandidate, match_pairs
from tmsearch.report.records import (
    JudgedRung,
    KnobImportances,
    KnobSlice,
    KnobSlices,
    KnobWeight,
    MatchedPairs,
    ReferenceScore,
    SpentResult,
    StudyPage,
    TrialRow,
)
from tmsearch.trial.facts import StudyFacts


def collect(storage: Storage, name: str) -> StudyFigures:
    """What the ledger holds of a study now.

    What needs the errors by clip of every result is made first: they take more memory than all else, and plots, which
    import much, come after them.
    """
    summary = study.summarize(study.open_study(storage, name))
    facts = StudyFacts.from_json(summary.facts)
    space = Space.from_json(dict(summary.record.space))
    rows = _rows(summary, facts)
    first_lines = answer.answer(storage, summary, rows)
    matched = _matched_pairs(space, facts, _comparable(summary, facts))
    summary = dataclasses.replace(summary, history=tuple(map(_without_errors, summary.history)))
    comparable = _comparable(summary, facts)
    recorded_results = timeline.recorded_results(study.open_study(storage, name))
    page = StudyPage(
        name=name,
        created=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        state=_state(summary),
        data=_data(summary, facts),
        answer=first_lines,
        trials=tuple(rows.values()),
        rungs=_rungs(space, summary),
        zero_shot=_zero_shot(facts, summary.record.objective),
        results=tuple(
            SpentResult(result.spent, result.value, result.number, result.step) for result in recorded_results
        ),
        importances=_importances(facts, space, comparable),
        matched=matched,
        slices=_slices(space, comparable, rows),
        environment=_environment(summary, facts, recorded_results),
        space=yaml.safe_dump(dict(summary.record.space), sort_keys=False, allow_unicode=True),
        notes=_notes(summary),
        measure=summary.record.measure,
    )
    return StudyFigures(page, summary.record, facts, summary.best)


def _comparable(summary: Summary, facts: StudyFacts) -> importances.ComparableResults | None:
    return None if facts.confirms else importances.comparable_results(summary.history)


def _without_errors(trial: Configuration) -> Configuration:
    """The trial without its errors by clip."""
    rungs = []
    for rung in trial.rungs:
        metrics = {name: rung.metrics[name] for name in rung.metrics if name != "errors"}
        rungs.append(dataclasses.replace(rung, metrics=metrics))
    return dataclasses.replace(trial, rungs=tuple(rungs))


def _rows(summary: Summary, facts: StudyFacts) -> dict[int, TrialRow]:
    """Every configuration by number; imported ones with what of them is on the study's scale."""
    names = list(summary.record.space["search"])
    if facts.confirms:
        names += racing.REPLICATE
    best = summary.best.number if summary.best else None
    rows = {}
    trials = imported.rescale_imported(summary.history)
    known = intervals.last_intervals(facts, [trial for trial in trials if not _is_imported(trial)])
    for trial in trials:
        is_imported = _is_imported(trial)
        params = trial.params or {}
        rows[trial.number] = TrialRow(
            number=trial.number,
            state=IMPORTED if is_imported else trial.state,
            knobs={name: params[name] for name in names if name in params},
            knobs_text=searched_knobs(summary.record.space, trial.params),
            curve=tuple((step, value) for step, value in trial.curve.items() if math.isfinite(value)),
            seconds=trial.seconds,
            interval=intervals.bounds(known.get(trial.number)),
            reason=trial.reason or "",
            is_best=trial.number == best,
        )
    return rows


def _is_imported(trial: Configuration) -> bool:
    """Whether it was trained elsewhere, with results of its own."""
    return trial.origin == IMPORTED and trial.failure is None


def _zero_shot(facts: StudyFacts, objective: str) -> tuple[ReferenceScore, ...]:
    scores = []
    for model, baseline in facts.baselines.items():
        bounds = intervals.bounds(intervals.baseline_interval(facts, model))
        scores.append(ReferenceScore(f"untrained {short_value(model)}", baseline.rate(objective), bounds))
    return tuple(scores)


def _state(summary: Summary) -> str:
    counts = ", ".join(f"{count} {state}" for state, count in summary.counts.items())
    trials = imported.without_imported(summary.history)
    ended = sum(trial.ended for trial in trials)
    total = summary.total
    if not summary.history:
        return f"Nothing has started yet; {total} configurations are planned."
    if ended < total:
        return f"Not finished: {ended} of {total} configurations have ended ({counts})."
    return f"Finished: {total} configurations ({counts})."


def _data(summary: Summary, facts: StudyFacts) -> str:
    """The dataset and its split, in a sentence."""
    if facts.data is None:
        return ""
    line = data_line(summary.record.space["data"]["dataset"], facts.data).removeprefix("data ")
    return f"Data: {line}."


def _rungs(space: Space, summary: Summary) -> tuple[JudgedRung, ...]:
    trials = imported.without_imported(summary.history)
    rungs = []
    for step in space.budget.rungs:
        judged = [trial for trial in trials if math.isfinite(trial.curve.get(step, math.nan))]
        if judged:
            values = [trial.curve[step] for trial in judged]
            promoted = sum(trial.steps > step or trial.target > step for trial in judged)
            rungs.append(JudgedRung(step, len(judged), promoted, min(values), statistics.median(values)))
    return tuple(rungs)


def _importances(facts: StudyFacts, space: Space, comparable: importances.ComparableResults | None) -> KnobImportances:
    if facts.confirms:
        reason = f"A confirmation varies seeds and no knobs: see `tmsearch report {facts.confirms.of}`."
        return KnobImportances((), "", reason)
    result = importances.importances(space, comparable)
    how = (
        f"{importances.EVALUATOR} over {result.configurations} configurations by their "
        f"{space.budget.measure} at {result.where}: how far the best {result.best} lie from all of them, "
        "knob by knob, as shares. Error bars are 95 % intervals over "
        f"{importances.RESAMPLES} bootstrap resamples; a knob whose bar stays left of the red stroke, which 95 of 100 "
        "shuffles of the results stay below, may matter by chance alone."
    )
    weights = [KnobWeight(knob.name, knob.share, knob.low, knob.high, knob.chance) for knob in result.knobs]
    reason = result.why
    if reason:
        reason = f"{reason[:1].upper()}{reason[1:]}."
    return KnobImportances(tuple(weights), how, reason)


def _slices(
    space: Space, comparable: importances.ComparableResults | None, rows: Mapping[int, TrialRow]
) -> KnobSlices | None:
    if comparable is None or not space.search:
        return None
    results = tuple((rows[trial.number], value) for trial, value in comparable.results)
    fixed_model = str(space.train.get("model", TrainConfig.model))
    names = {str(row.knobs.get("model", fixed_model)) for row, _ in results}
    sizes_by_name = {name: millions_of_parameters(name) for name in names}
    smallest_first = sorted(sizes_by_name.items(), key=lambda item: (item[1] or 0.0, item[0]))
    knobs = []
    for drawn in importances.slices(space, comparable):
        knobs.append(KnobSlice(drawn.name, drawn.is_log, drawn.choices, drawn.points))
    return KnobSlices(comparable.where, results, tuple(smallest_first), tuple(knobs), space.budget.measure)


def _matched_pairs(
    space: Space, facts: StudyFacts, comparable: importances.ComparableResults | None
) -> tuple[MatchedPairs, ...]:
    """One value against the other, for every knob that is searched over two; not where there are too few pairs."""
    if comparable is None:
        return ()
    words = facts.words.get(space.data.get("fold", 0), ())
    comparisons = []
    for knob, choices in space.search.items():
        if not isinstance(choices, Choice) or len(choices.values) != 2:
            continue
        # true against false, other values in the order of the space file
        first, second = sorted(choices.values, key=lambda value: value is not True)
        candidates = _candidates(space, comparable, knob, first, second)
        comparison = match_pairs(knob, (_value_name(first), _value_name(second)), candidates, words)
        if comparison is not None:
            comparisons.append(comparison)
    return tuple(comparisons)


def _value_name(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _candidates(
    space: Space, comparable: importances.ComparableResults, knob: str, first: Any, second: Any
) -> list[MatchCandidate]:
    """The comparable trials that have one of two values of a knob."""
    candidates = []
    for trial, _ in comparable.results:
        params = trial.params or {}
        errors = trial.errors(comparable.step)
        if errors is None or knob not in params or params[knob] not in (first, second):
            continue
        knobs = {name: params[name] for name in space.search if name not in (knob, "model") and name in params}
        model = "" if knob == "model" else str(params.get("model", TrainConfig.model))
        candidates.append(MatchCandidate(trial.number, params[knob] == first, model, knobs, errors))
    return candidates


def _notes(summary: Summary) -> tuple[str, ...]:
    """Sentences on how the results came about."""
    notes = []
    if summary.record.objective != "wer":
        notes.append(
            f"This study minimises {summary.record.measure}; single clips are shown with their WER, which is beside it."
        )
    noise = imported.repeat_noise(summary.history)
    if noise is not None:
        notes.append(
            f"Imported trainings of one recipe differ by {noise.deviation:.4f} in {summary.record.measure} "
            f"(standard deviation of {noise.runs}): a difference of that size is nothing."
        )
    imported_count = sum(trial.origin == IMPORTED for trial in summary.history)
    if imported_count:
        notes.append(f"{imported_count} configurations were trained elsewhere; none of them can be the best.")
    repeated = repeats.remark(Space.from_json(dict(summary.record.space)).search, summary.history)
    if repeated:
        notes.append(f"{repeated[0].upper()}{repeated[1:]}.")
    versions = code_versions(summary.history)
    if len(versions) > 1:
        counts = ", ".join(f"{count} results by {version}" for version, count in versions.items())
        notes.append(f"The code changed midway: {counts}.")
    if summary.record.stop_reason:
        notes.append(f"Stopped: {summary.record.stop_reason}")
    return tuple(notes)


def _environment(
    summary: Summary, facts: StudyFacts, recorded_results: tuple[timeline.RecordedResult, ...]
) -> tuple[tuple[str, str], ...]:
    """What the study ran on and with: labels and values, without those that are not known."""
    hosts = Counter(result.host for result in recorded_results)
    versions = code_versions(summary.history)
    rows = [
        ("study made by", f"tmsearch {summary.record.version}, seed {summary.record.seed}"),
        ("code of results", ", ".join(f"{version} ({count})" for version, count in versions.items())),
        ("trained on", ", ".join(f"{host} ({count} results)" for host, count in hosts.items())),
        ("at work now", ", ".join(worker.display_name for worker in summary.workers if worker.alive)),
        ("devices", ", ".join(facts.devices)),
        ("threads a training", str(facts.threads or "")),
        ("models", ", ".join(f"{short_value(name)} ({_size(name)})" for name in facts.baselines)),
        ("data's fingerprint", facts.data.fingerprint if facts.data else ""),
        ("space's fingerprint", summary.record.fingerprint),
        ("this page", ", ".join(f"{name} {version}" for name, version in libraries().items())),
    ]
    return tuple((label, value) for label, value in rows if value)


def _size(model: str) -> str:
    millions = millions_of_parameters(model)
    if not millions:
        return "of unknown size"
    return f"{millions:.3g} M parameters"
