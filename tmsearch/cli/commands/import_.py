"""The command import: hand-run trainings as configurations of a study."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from search import imported, study
from search.errors import UserError
from search.exit_codes import DONE
from search.imported import COMPARES, MEASURE
from search.records import IMPORTED, Rung, State
from search.space import search_space as spaces
from search.space.errors import Location
from search.space.knobs import check
from search.space.search_space import Space
from search.storage import entries
from search.storage.database import Storage, open_storage
from search.storage.entries import Entry
from search.storage.ledger import Ledger
from tmsearch.cli.services.create import check_and_create
from tmsearch.cli.services.knobs import TRAIN, absolute, load_space, with_new_defaults
from tmsearch.errors import InputError
from tmsearch.importers import hand_runs
from tmsearch.importers.record import HandRun, in_fractions
from tmsearch.trial.facts import StudyFacts

# What a log's WER is in the study: ours, or the raw one that counts case and punctuation.
_MEASURES = {"raw": "wer_raw", "normalised": "value"}
# A training on clips that are fewer or more by this share says little of the study's data.
_SIMILAR_SIZE = 0.1


def import_logs(arguments: argparse.Namespace) -> int:
    """Enter every training that the logs hold and the study does not have yet."""
    given = spaces.values(arguments.set, TRAIN, "import --set", budget=("max_steps",))
    if "model" in given:
        given["model"] = absolute(given["model"])
    # All logs are read and checked before anything is written.
    runs = []
    for log in map(Path, arguments.logs):
        runs += [(log, run) for run in hand_runs.read(log, TRAIN)]
    runs = [(log, in_fractions(run, log, arguments.percent)) for log, run in runs]
    for log, run in runs:
        if run.measure is None and arguments.wer is None:
            raise UserError(
                f"{log}: --wer: the log does not say whether case and punctuation count in its WER; "
                "give --wer raw or --wer normalised"
            )
    ledger = _open_or_create(open_storage(arguments.storage), arguments)
    space = Space.from_json(dict(ledger.record().space))
    facts = StudyFacts.from_json(ledger.facts())
    run_entries = []
    remarks = {}
    for log, run in runs:
        params = {**_checked_params(run, log), **given}
        run_entry, run_remarks = entry_of(run, space, facts, params, arguments.wer)
        run_entries.append(run_entry)
        remarks[run_entry.key] = [*_still_open(run.remarks, given), *run_remarks]
    _enter(ledger, run_entries, remarks, replace=bool(given))
    return DONE


def _still_open(run_remarks: Sequence[str], given: Mapping[str, Any]) -> list[str]:
    """The remarks of a log's reader but those on knobs that a person gave."""
    return [remark for remark in run_remarks if remark.partition(" ")[0] not in given]


def _open_or_create(storage: Storage, arguments: argparse.Namespace) -> Ledger:
    if arguments.space is None or arguments.study in study.names(storage):
        return study.open_study(storage, arguments.study)
    return check_and_create(storage, with_new_defaults(load_space(arguments.space, (), arguments.study))[0])


def _checked_params(run: HandRun, log: Path) -> dict[str, Any]:
    """The log's values in the knobs' own types; raises UserError at the log's key."""
    location = Location(str(log))
    return {name: check(TRAIN[name], value, location.at(name)) for name, value in run.params.items()}


def _enter(
    ledger: Ledger, run_entries: Sequence[Entry], remarks: Mapping[str, Sequence[str]], *, replace: bool
) -> None:
    """Write the entries and print what became of each, then what the study's noise is.

    With `replace` an entry that says something else than before takes the place of the former one.
    """
    for run_entry, number, outcome in entries.enter(ledger, run_entries, replace=replace):
        if outcome == "known":
            print(f"trial {number}: already imported")
            continue
        wer = ""
        if run_entry.rungs:
            wer = f", WER {run_entry.rungs[-1].value:.3f} at step {run_entry.rungs[-1].step}"
        print(f"trial {number}: {run_entry.state}{wer}; {run_entry.reason}")
        for remark in remarks[run_entry.key]:
            print(f"  {remark}")
    noise = imported.repeat_noise(ledger.history())
    if noise is not None:
        print(
            f"noise: trainings of one recipe differ by {noise.deviation:.4f} in WER (standard deviation of "
            f"{noise.runs} trainings, {noise.degrees_of_freedom} degrees of freedom)"
        )


def entry_of(
    run: HandRun, space: Space, facts: StudyFacts, params: Mapping[str, Any], wer: str | None
) -> tuple[Entry, list[str]]:
    """A hand-run training as the ledger takes it, and remarks for a person.

    Args:
        run: the training, its WERs as fractions.
        space: the study's.
        facts: the study's.
        params: the run's knobs, those of the log and those that a person added.
        wer: what the WER counts where the log does not say: raw or normalised.
    """
    remarks = []
    measure = _MEASURES[run.measure or str(wer)]
    drawn, missing = _drawn(space, params)
    if missing:
        remarks.append(f"the search does not start from it: {missing}")
    difference = _difference(run, space, facts, params)
    if difference:
        remarks.append(f"kept for the record, not compared: {difference}")
    elif measure != "value":
        remarks.append("its WER counts case and punctuation: the search uses it once trials of its own relate the two")
    rungs = []
    for step, value in run.curve:
        if math.isfinite(value) and step > 0:
            compares = not difference and not missing and step in space.budget.rungs
            rungs.append(Rung(step, value, {MEASURE: measure, COMPARES: compares, "log": run.name}))
    state, failure, reason = _ending(run, params.get("max_steps"))
    # A configuration with a part missing in `drawn` is left out by every sampler.
    knobs = {name: value for name, value in params.items() if name != "max_steps"}
    return Entry(run.digest[:32], IMPORTED, drawn, knobs, state, tuple(rungs), reason, failure), remarks


def _ending(run: HandRun, max_steps: int | None) -> tuple[State, str | None, str]:
    """How a training ended: its state, kind of failure, and reason in words."""
    if run.ending == "finished":
        return "finished", None, run.reason
    if run.ending == "diverged":
        return "failed", "diverged", run.reason
    reason = run.reason
    if run.ending == "unknown" and max_steps:
        reason = f"trained by hand, {run.last_step} of {max_steps} steps"
        if run.last_step >= max_steps:
            return "finished", None, reason
    elif run.ending == "unknown":
        reason = f"{run.reason}; --set max_steps=N says of how many"
    return "failed", "crashed", reason


def _drawn(space: Space, params: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """The searched knobs' values as drawn, and why the search cannot start from them; empty where it can."""
    searched = {name: params[name] for name in space.search if name in params}
    try:
        drawn = space.drawn_from_start(searched, TRAIN, Location("the log"))
    except (UserError, InputError) as error:
        return {}, str(error)
    missing = [name for name in space.search if name not in params]
    if missing:
        return drawn, f"the log does not say {', '.join(missing)}; --set {missing[0]}=VALUE does"
    different = [
        f"{name} is {params[name]}, the study holds {value}"
        for name, value in space.train.items()
        if name in params and params[name] != value
    ]
    return drawn, "; ".join(different)


def _difference(run: HandRun, space: Space, facts: StudyFacts, params: Mapping[str, Any]) -> str:
    """Why the run's values do not compare with the study's; empty where they do, as far as the log says."""
    if space.budget.objective != "wer":
        return f"its WER is not what the study minimises, {space.budget.measure}"
    max_steps = params.get("max_steps")
    if max_steps is None:
        return "the log does not say max_steps, which the schedule depends on; --set max_steps=N does"
    if max_steps != space.budget.max_steps:
        return f"its schedule spans {max_steps} steps, the study's {space.budget.max_steps}"
    dataset = run.data.get("dataset")
    if dataset is not None and dataset != space.data["dataset"]:
        return f"it was trained on {dataset}"
    run_clips = run.data.get("train_clips")
    study_clips = len(facts.known_data.train)
    if run_clips is not None and abs(run_clips - study_clips) > _SIMILAR_SIZE * study_clips:
        return f"it was trained on {run_clips} clips, the study's trials are on {study_clips}"
    return ""
