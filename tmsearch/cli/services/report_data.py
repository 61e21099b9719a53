"""A study as its report shows it: the ledger's summary and Optuna's figures as the page's records."""

from __future__ import annotations

import datetime
import json
import math
import statistics
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from search import imported
from search.dashboard import importances
from search.paths import trial_folder
from search.records import IMPORTED, Configuration, code_versions
from search.samplers import repeats
from search.schedulers import racing
from search.space.distributions import Choice
from search.space.search_space import Space
from search.storage import ownership, timeline
from search.storage.ledger import Ledger
from search.study import Summary
from tmsearch.cli.services import report_answer
from tmsearch.cli.services.plan import data_line
from tmsearch.cli.view import intervals
from tmsearch.cli.view.format import model_of, searched_knobs, short_value
from tmsearch.config import TrainConfig
from tmsearch.evaluation.scores import baseline_folder
from tmsearch.model_sizes import millions_of_parameters
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
    return StudyPage(
        name=summary.record.name,
        created=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        state=_state(summary),
        data=_data(summary, facts),
        answer=report_answer.answer(ledger.storage, summary, rows),
        trials=tuple(rows.values()),
        rungs=_rungs(space, summary),
        zero_shot=_zero_shot(facts, summary.record.objective),
        results=tuple(
            SpentResult(result.spent, result.value, result.number, result.step) for result in recorded_results
        ),
        importances=_importances(facts, space, comparable),
        matched=_matched_pairs(space, facts, comparable),
        slices=_slices(space, comparable, rows),
        environment=_environment(summary, facts, recorded_results),
        space=yaml.safe_dump(dict(summary.record.space), sort_keys=False, allow_unicode=True),
        notes=_notes(summary),
        measure=summary.record.measure,
    )


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
    slices = importances.slices(space, comparable, space.budget.measure)
    return KnobSlices(comparable.where, results, tuple(smallest_first), slices, space.budget.measure)


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


def score_folders(ledger: Ledger, trial: Configuration) -> tuple[Path, Path]:
    """Where the tables of clips are: of the trial, and of its untrained model."""
    folder = ownership.checked_folder(ledger)
    return trial_folder(folder, trial.number), baseline_folder(folder, model_of(trial))
