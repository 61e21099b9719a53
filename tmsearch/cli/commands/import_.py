"""The command import: hand-run trainings as configurations of a study."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search import imported, study
from search.errors import UserError
from search.imported import COMPARES, MEASURE
from search.records import IMPORTED, Rung
from search.space import search_space as spaces
from search.space.errors import Location
from search.space.knobs import check
from search.space.search_space import Space
from search.storage import entries
from search.storage.database import Storage, open_storage
from search.storage.entries import Entry
from search.storage.ledger import Ledger
from tmsearch.cli.commands.run import created
from tmsearch.cli.services.knobs import TRAIN, absolute, load_space
from tmsearch.errors import InputError
from tmsearch.importers import hand_runs
from tmsearch.importers.record import HandRun, in_fractions
from tmsearch.trial.facts import StudyFacts

# A validation WER in a log counts case and punctuation, or it is our own kind.
_MEASURES = {"raw": "wer_raw", "normalised": "value"}
# Trained on so many more or fewer clips, it says little of this data.
_ALIKE = 0.1


def import_logs(arguments: argparse.Namespace) -> int:
    """Enter every training that the logs tell of and the study does not have yet."""
    given = _given(arguments.set)
    read = [(Path(log), run) for log in arguments.logs for run in hand_runs.read(Path(log), TRAIN)]
    # All are looked at before anything is written.
    runs = [(file, in_fractions(run, file, arguments.percent)) for file, run in read]
    for file, run in runs:
        if run.measure is None and arguments.wer is None:
            raise UserError(
                f"{file}: --wer: the log does not tell whether case and punctuation count in its WER; "
                "say --wer raw or --wer normalised"
            )
    storage = open_storage(arguments.storage)
    ledger = _ledger(storage, arguments)
    space = Space.from_json(dict(ledger.record().space))
    facts, wanted, remarks = StudyFacts.from_json(ledger.facts()), [], {}
    for file, run in runs:
        one, said = entry(run, space, facts, {**_checked(run, file), **given}, arguments.wer)
        wanted.append(one)
        remarks[one.key] = said
    return _entered(ledger, wanted, remarks)


def _entered(ledger: Ledger, wanted: list[Entry], remarks: Mapping[str, list[str]]) -> int:
    for one, number, new in entries.enter(ledger, wanted):
        wer = f", WER {one.rungs[-1].value:.3f} at step {one.rungs[-1].step}" if one.rungs else ""
        print(f"trial {number}: {one.state}{wer}; {one.reason}" if new else f"trial {number}: known already")
        for line in remarks[one.key] if new else ():
            print(f"  {line}")
    found = imported.repeat_noise(ledger.history())
    if found is not None:
        print(
            f"noise: trainings of one recipe differ by {found.deviation:.4f} in WER (standard deviation of "
            f"{found.runs} trainings, {found.degrees_of_freedom} degrees of freedom)"
        )
    return 0


def _given(values: list[str]) -> dict[str, Any]:
    """What a person says of the runs that their logs do not tell."""
    found = spaces.values(values, TRAIN, "tmsearch import --set")
    return {**found, "model": absolute(found["model"])} if "model" in found else found


def _ledger(storage: Storage, arguments: argparse.Namespace) -> Ledger:
    if arguments.space is None or arguments.study in study.names(storage):
        return study.open_study(storage, arguments.study)
    return created(storage, load_space(arguments.space, (), arguments.study))


def _checked(run: HandRun, file: Path) -> dict[str, Any]:
    """The log's values in the knobs' own types; raises UserError at the log's key."""
    place = Location(str(file))
    return {name: check(TRAIN[name], value, place.at(name)) for name, value in run.params.items()}


def entry(
    run: HandRun, space: Space, facts: StudyFacts, params: Mapping[str, Any], wer: str | None
) -> tuple[Entry, list[str]]:
    """The run as the ledger takes it, and what a person should know of it."""
    remarks = []
    measure = _MEASURES[run.measure or str(wer)]
    drawn, missing = _drawn(space, params)
    if missing:
        remarks.append(f"the search does not start from it: {missing}")
    unlike = _unlike(run, space, facts, params)
    if unlike:
        remarks.append(f"kept for the record and for noise, not compared: {unlike}")
    elif measure != "value":
        remarks.append("its WER counts case and punctuation: the search reads it once trials of its own relate the two")
    compares = not unlike and not missing
    rungs = tuple(
        Rung(step, wer, {MEASURE: measure, COMPARES: compares and step in space.budget.rungs, "log": run.name})
        for step, wer in run.curve
        if math.isfinite(wer) and step > 0
    )
    state, failure = ("finished", None) if run.ending == "finished" else ("failed", "crashed")
    if run.ending == "diverged":
        failure = "diverged"
    reason = run.reason if run.ending != "unknown" else f"{run.reason}; --set max_steps=N says of how many"
    if run.ending == "unknown" and params.get("max_steps"):
        whole = run.last_step >= params["max_steps"]
        state, failure = ("finished", None) if whole else ("failed", "crashed")
        reason = f"trained by hand, {run.last_step} of {params['max_steps']} steps"
    kept = {name: value for name, value in params.items() if name != "max_steps"}
    # What is not told is not in `drawn`: no sampler takes a configuration with a part missing.
    return Entry(run.digest[:32], IMPORTED, drawn, kept, state, rungs, reason, failure), remarks  # type: ignore[arg-type]


def _drawn(space: Space, params: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """The searched knobs' values as drawn, and why they are not all there."""
    told = {name: params[name] for name in space.search if name in params}
    untold = [name for name in space.search if name not in params]
    other = [
        f"{name} is {params[name]}, the study holds {value}"
        for name, value in space.train.items()
        if name in params and params[name] != value
    ]
    try:
        drawn = space.drawn_from_start(told, TRAIN, Location("the log"))
    except (UserError, InputError) as error:
        return {}, str(error)
    if untold:
        return drawn, f"the log does not tell {', '.join(untold)}; --set {untold[0]}=VALUE does"
    return drawn, "; ".join(other)


def _unlike(run: HandRun, space: Space, facts: StudyFacts, params: Mapping[str, Any]) -> str:
    """Why its values do not compare with the study's; nothing where they do, as far as the log tells."""
    most, dataset = params.get("max_steps"), run.data.get("dataset")
    if most is not None and most != space.budget.max_steps:
        return f"its schedule spans {most} steps, the study's {space.budget.max_steps}"
    if most is None:
        return "the log does not tell max_steps, which the schedule depends on; --set max_steps=N does"
    if dataset is not None and dataset != space.data["dataset"]:
        return f"it was trained on {dataset}"
    clips, mine = run.data.get("train_clips"), len(facts.known_data.train)
    if clips is not None and abs(clips - mine) > _ALIKE * mine:
        return f"it was trained on {clips} clips, the study's trials are on {mine}"
    return ""
