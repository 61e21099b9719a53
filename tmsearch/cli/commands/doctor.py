"""The command doctor: it finds what is wrong with a study, and repairs it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from search import study
from search.doctor import Diagnosis, Doctor
from search.exit_codes import DONE, FAILED
from search.paths import study_folder
from search.space.errors import printable
from search.storage.database import open_storage
from tmsearch.cli.commands.show import print_json
from tmsearch.cli.services.annotator import StudyAnnotator


def doctor(arguments: argparse.Namespace) -> int:
    """Say what is wrong with a study, and repair what can be repaired; FAILED where something stays wrong."""
    ledger = study.open_study(open_storage(arguments.storage), arguments.study)
    folder = study_folder(ledger.storage.folder, arguments.study)
    diagnoses = Doctor(ledger, folder, checkpoint_problem, StudyAnnotator(ledger, print)).examine()
    repaired = _repair(diagnoses) if arguments.repair else []
    unrepaired = [diagnosis for diagnosis in diagnoses if diagnosis.state == "bad" and diagnosis not in repaired]
    exit_code = FAILED if unrepaired else DONE
    rows = []
    for diagnosis in diagnoses:
        state = "mended" if diagnosis in repaired else diagnosis.state
        rows.append({"name": diagnosis.name, "state": state, "said": diagnosis.message})
    if arguments.json:
        print_json({"study": arguments.study, "findings": rows})
        return exit_code
    for row in rows:
        print(f"{row['state']:<7} {row['name']:<12} {printable(row['said'])}")
    if any(diagnosis.repair for diagnosis in unrepaired) and not arguments.repair:
        print(f"`tmsearch doctor {arguments.study} --repair` repairs what can be repaired")
    return exit_code


def _repair(diagnoses: Sequence[Diagnosis]) -> list[Diagnosis]:
    repaired = []
    for diagnosis in diagnoses:
        if diagnosis.repair is not None:
            diagnosis.repair()
            repaired.append(diagnosis)
    return repaired


def checkpoint_problem(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint; None where every file agrees with its checksum."""
    from tmsearch.errors import CheckpointError
    from tmsearch.training import checkpoints

    try:
        checkpoints.verify(checkpoint)
    except CheckpointError as error:
        return str(error)
    return None
