"""The command doctor: it finds what is wrong with this machine, or with a study, and repairs a study."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from search import study
from search.doctor import CheckCheckpoint, Diagnosis, Doctor
from search.errors import RunError, UserError
from search.exit_codes import DONE, FAILED
from search.paths import study_folder
from search.records import Configuration
from search.space.errors import printable
from search.space.search_space import Space
from search.storage import ownership
from search.storage.database import NETWORK_FILESYSTEMS, filesystem_type, open_storage
from search.storage.ledger import Ledger
from tmsearch.cli.commands.show import print_json
from tmsearch.cli.services.annotator import StudyAnnotator
from tmsearch.cli.services.run_study import cache_folder
from tmsearch.errors import CheckpointError, InputError
from tmsearch.machine.survey import Folder, survey
from tmsearch.recipe import trial_recipe
from tmsearch.trial.facts import StudyFacts


def doctor(arguments: argparse.Namespace) -> int:
    """Say what is wrong with this machine, or with a study, and repair that; FAILED where something stays wrong."""
    if arguments.study is None:
        if arguments.repair:
            raise UserError("--repair: a study can be repaired, a machine cannot; name the study")
        return _examine_machine(arguments)
    return _examine_study(arguments)


def _examine_machine(arguments: argparse.Namespace) -> int:
    storage = open_storage(arguments.storage)
    studies_type = filesystem_type(storage.folder)
    refused = "SQLite is refused on it" if storage.is_sqlite and studies_type in NETWORK_FILESYSTEMS else None
    cache = cache_folder()
    folders = [
        Folder("studies", storage.folder, studies_type, refused),
        Folder("cache", cache, filesystem_type(cache)),
    ]
    findings = survey(folders)
    rows = []
    for finding in findings:
        rows.append({"name": finding.name, "state": finding.state, "said": finding.text})
    exit_code = FAILED if any(finding.state == "bad" for finding in findings) else DONE
    if arguments.json:
        facts = {finding.name: dict(finding.facts) for finding in findings}
        print_json({"study": None, "findings": rows, "facts": facts})
        return exit_code
    _print_rows(rows)
    return exit_code


def _examine_study(arguments: argparse.Namespace) -> int:
    ledger = study.open_study(open_storage(arguments.storage), arguments.study)
    folder = study_folder(ledger.storage.folder, arguments.study)
    annotator = StudyAnnotator(ledger, print)
    diagnoses = Doctor(ledger, folder, checkpoint_check(ledger), annotator, ownership.foreign(ledger)).examine()
    repaired: list[Diagnosis] = []
    if arguments.repair:
        diagnoses, repaired = _repair(diagnoses)
    unrepaired = [diagnosis for diagnosis in diagnoses if diagnosis.state == "bad" and diagnosis not in repaired]
    exit_code = FAILED if unrepaired else DONE
    rows = []
    for diagnosis in diagnoses:
        state = "mended" if diagnosis in repaired else diagnosis.state
        rows.append({"name": diagnosis.name, "state": state, "said": diagnosis.message})
    if arguments.json:
        print_json({"study": arguments.study, "findings": rows})
        return exit_code
    _print_rows(rows)
    if any(diagnosis.repair for diagnosis in unrepaired) and not arguments.repair:
        print(f"`tmsearch doctor {arguments.study} --repair` repairs what can be repaired")
    return exit_code


def _print_rows(rows: Sequence[Mapping[str, str]]) -> None:
    for row in rows:
        print(f"{row['state']:<7} {row['name']:<12} {printable(row['said'])}")


def _repair(diagnoses: Sequence[Diagnosis]) -> tuple[list[Diagnosis], list[Diagnosis]]:
    """Make every repair; returns the diagnoses, with the reason where a repair failed, and those that are repaired."""
    examined = []
    repaired = []
    for diagnosis in diagnoses:
        if diagnosis.repair is not None:
            try:
                diagnosis.repair()
                repaired.append(diagnosis)
            except RunError as error:
                diagnosis = Diagnosis(diagnosis.name, "bad", f"{diagnosis.message}; {error}")
        examined.append(diagnosis)
    return examined, repaired


def checkpoint_check(ledger: Ledger) -> CheckCheckpoint:
    """What tells why a trial cannot resume from a checkpoint, as its training would find."""
    record = ledger.record()
    space = Space.from_json(dict(record.space))
    facts = StudyFacts.from_json(ledger.facts())

    def identity(trial: Configuration) -> Mapping[str, str]:
        """Of the trial's training; empty where it cannot be told."""
        from tmsearch.training.state import identity_on

        if trial.params is None or facts.data is None:
            return {}
        data = facts.data.normalized(space.data)
        fingerprint = facts.data.training_fingerprint
        try:
            recipe = trial_recipe(
                data,
                trial.params,
                seed=record.seed,
                max_steps=space.budget.max_steps,
                threads=facts.threads or 1,
                fingerprint=fingerprint,
            )
        except (TypeError, ValueError, InputError):  # of a version with other knobs: the next run says so
            return {}
        return identity_on(recipe.train, fingerprint)

    def problem(checkpoint: Path, trial: Configuration) -> str | None:
        from tmsearch.training import checkpoints

        try:
            checkpoints.verify(checkpoint, identity(trial))
        except CheckpointError as error:
            return str(error).removeprefix(f"{checkpoint}: ")
        return None

    return problem
