"""The command doctor."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from search import study
from search.doctor import Diagnosis, Doctor
from search.paths import study_folder
from search.space.errors import printable
from search.storage.database import open_storage
from tmsearch.cli.services.annotator import StudyAnnotator


def doctor(arguments: argparse.Namespace) -> int:
    """Say what is wrong with a study, and mend what can be mended."""
    ledger = study.open_study(open_storage(arguments.storage), arguments.study)
    folder = study_folder(ledger.storage.folder, arguments.study)
    findings = Doctor(ledger, folder, broken, StudyAnnotator(ledger, print)).examine()
    mended = _mended(findings) if arguments.repair else []
    left = [one for one in findings if one.state == "bad" and one not in mended]
    if arguments.json:
        rows = [{"name": one.name, "state": _state(one, mended), "said": one.message} for one in findings]
        print(json.dumps({"study": arguments.study, "findings": rows}, indent=2, ensure_ascii=False))
        return 1 if left else 0
    for one in findings:
        print(f"{_state(one, mended):<7} {one.name:<12} {printable(one.message)}")
    if any(one.repair for one in left) and not arguments.repair:
        print(f"`tmsearch doctor {arguments.study} --repair` mends what can be mended")
    return 1 if left else 0


def _mended(findings: list[Diagnosis]) -> list[Diagnosis]:
    done = []
    for one in findings:
        if one.repair is not None:
            one.repair()
            done.append(one)
    return done


def _state(one: Diagnosis, mended: list[Diagnosis]) -> str:
    return "mended" if one in mended else one.state


def broken(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint; None where every file agrees with its checksum."""
    from tmsearch.errors import CheckpointError
    from tmsearch.training import checkpoints

    try:
        checkpoints.verify(checkpoint)
    except CheckpointError as error:
        return str(error)
    return None
