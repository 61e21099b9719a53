"""A study as its report shows it: the ledger's summary and Optuna's figures as the page's records."""

from __future__ import annotations

import datetime
import math
import statistics
from collections.abc import Mapping
from pathlib import Path

import yaml

from search import imported, study
from search.dashboard import importances
from search.records import IMPORTED, Configuration, code_versions
from search.schedulers import racing
from search.space.search_space import Space
from search.storage import timeline
from search.storage.claims import Ledger
from search.study import Summary
from tmsearch.cli.services import report_answer
from tmsearch.cli.services.plan import data_line
from tmsearch.cli.view import intervals
from tmsearch.cli.view.format import model_of, searched_knobs, short_value
from tmsearch.config import TrainConfig
from tmsearch.evaluation.scores import baseline_folder
from tmsearch.model_sizes import millions_of_parameters
from tmsearch.recipe import versions as libraries
from tmsearch.report.matched_pairs import MatchCandidate
from tmsearch.report.records import (
    KnobImportances,
    KnobSlices,
    KnobWeight,
    ReferenceScore,
    RungSummary,
    SpentResult,
    StudyPage,
    TrialRow,
)
from tmsearch.trial.facts import StudyFacts

SWITCH = "normalize_audio"


def collect_report(ledger: Ledger, summary: Summary) -> tuple[StudyPage, list[MatchCandidate]]:
    """The page's record of a study, and what a comparison of normalised with other audio may pair."""
    space = Space.from_json(dict(summary.record.space))
    facts = StudyFacts.from_json(summary.facts)
    lines = _lines(summary, facts)
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
    found = StudyPage(
        name=summary.record.name,
        made=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        state=_state(summary),
        data=_data(summary, facts),
        answer=report_answer.answer(ledger.storage, summary, lines),
        lines=tuple(lines.values()),
        rungs=_rungs(space, summary),
        zero_shot=zero_shot,
        spent=tuple(SpentResult(one.spent, one.value, one.number, one.step) for one in recorded_results),
        mattered=_mattered(facts, space, comparable),
        slices=_slices(space, summary, comparable, lines),
        environment=_environment(summary, facts, recorded_results),
        space=yaml.safe_dump(dict(summary.record.space), sort_keys=False, allow_unicode=True),
        notes=_notes(summary),
    )
    return found, _candidates(space, comparable)


def _lines(summary: Summary, facts: StudyFacts) -> dict[int, TrialRow]:
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
            what=searched_knobs(summary.record.space, one.params),
            curve=tuple((step, value) for step, value in one.curve.items() if math.isfinite(value)),
            seconds=one.seconds,
            interval=intervals.bounds(intervals.interval(facts, one)) if one.rungs and not known else None,
            reason=one.reason or "",
            leads=best is not None and best.number == one.number,
        )
    return found


def _state(summary: Summary) -> str:
    counts = ", ".join(f"{count} {state}" for state, count in summary.counts.items())
    mine = len(imported.without_imported(summary.history))
    ended = sum(one.ended for one in imported.without_imported(summary.history))
    total = max(summary.record.trials, mine)
    if not summary.history:
        return f"Nothing has begun yet; {total} configurations are to be tried."
    if ended < total:
        return f"Not finished: {ended} of {total} configurations have ended ({counts})."
    return f"Finished: {total} configurations ({counts})."


def _data(summary: Summary, facts: StudyFacts) -> str:
    """Of which speech, and how it is divided."""
    if facts.data is None:
        return ""
    line = data_line(summary.record.space["data"]["dataset"], facts.data).removeprefix("data ")
    return f"Data: {line}."


def _rungs(space: Space, summary: Summary) -> tuple[RungSummary, ...]:
    own, found = imported.without_imported(summary.history), []
    for step in space.budget.rungs:
        here = [one for one in own if step in one.curve and math.isfinite(one.curve[step])]
        if here:
            values = [one.curve[step] for one in here]
            on = sum(one.steps > step or one.target > step for one in here)
            found.append(RungSummary(step, len(here), on, min(values), statistics.median(values)))
    return tuple(found)


def _mattered(facts: StudyFacts, space: Space, comparable: importances.ComparableResults | None) -> KnobImportances:
    if facts.confirms:
        return KnobImportances(
            (), "", f"A confirmation varies seeds and no knobs: see `tmsearch report {facts.confirms.of}`."
        )
    found = importances.importances(space, comparable)
    how = (
        f"{importances.EVALUATOR} over {found.configurations} configurations by their WER at {found.where}: how far "
        f"the best {found.best} lie from all of them, knob by knob, as shares. Whiskers are 95 % intervals over "
        f"{importances.RESAMPLES} bootstrap resamples; a knob whose bar stays left of the red stroke, which 95 of 100 "
        "shuffles of the results stay below, is not told from chance."
    )
    weights = [KnobWeight(one.name, one.share, one.low, one.high, one.chance) for one in found.knobs]
    return KnobImportances(tuple(weights), how, f"{found.why[:1].upper()}{found.why[1:]}." if found.why else "")


def _slices(
    space: Space, summary: Summary, comparable: importances.ComparableResults | None, lines: Mapping[int, TrialRow]
) -> KnobSlices | None:
    if comparable is None or not space.search:
        return None
    results = tuple((lines[one.number], value) for one, value in comparable.results)
    fixed = str(space.train.get("model", TrainConfig.model))
    names = {str(line.knobs.get("model", fixed)) for line, _ in results}
    models = {name: millions_of_parameters(name) for name in names}
    order = sorted(models.items(), key=lambda one: (one[1] or 0.0, one[0]))
    return KnobSlices(comparable.where, results, tuple(order), importances.slices(space, comparable, "WER"))


def _candidates(space: Space, comparable: importances.ComparableResults | None) -> list[MatchCandidate]:
    """None where the switch is not searched."""
    if comparable is None or SWITCH not in space.search:
        return []
    found = []
    for one, _ in comparable.results:
        params, errors = one.params or {}, one.errors(comparable.step)
        if errors is not None and SWITCH in params:
            knobs = {name: params[name] for name in space.search if name not in (SWITCH, "model") and name in params}
            on = params[SWITCH] not in (False, "none")
            model = str(params.get("model", TrainConfig.model))
            found.append(MatchCandidate(one.number, on, model, knobs, errors))
    return found


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
    millions = millions_of_parameters(model)
    return f"{millions:.3g} M parameters" if millions else "of unknown size"


def best_folder(ledger: Ledger, one: Configuration) -> tuple[Path, Path]:
    """Where the tables of clips are: of the configuration, and of its model untrained."""
    top = study.study_folder(ledger.storage, ledger.study)
    return study.trial_folder(top, one.number), baseline_folder(top, model_of(one))
