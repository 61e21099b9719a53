"""The command report: a study as one page to look at and listen to."""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from search import study
from search.errors import UserError
from search.records import Configuration
from search.storage.database import Storage, open_storage
from search.storage.ledger import Ledger
from search.study import Summary
from tmsearch.cli.view.output_file import write_output
from tmsearch.config import DataConfig
from tmsearch.data.audio_file import Samples
from tmsearch.data.corpus import Corpus
from tmsearch.errors import InputError
from tmsearch.evaluation.scores import ClipScore, read_scores
from tmsearch.formatting import file_size
from tmsearch.trial.facts import StudyFacts

if TYPE_CHECKING:
    from tmsearch.report.page import ScoredClips


def report(arguments: argparse.Namespace) -> int:
    """Write the page and say where it is."""
    storage = open_storage(arguments.storage)
    study.open_study(storage, arguments.study)
    safe = re.sub(r"[^\w.-]", "-", arguments.study)
    write(arguments.output or f"{safe}-report.html", lambda: page(storage, arguments.study))
    return 0


def write(output: str, made: Callable[[], str], option: str = "-o") -> None:
    """Write what `made` gives as a whole, and its size; raises UserError before it is made where that cannot be."""
    from tmsearch.report.sanitize import visible

    file = Path(output)
    _may_write(file, option)
    text = made()
    write_output(file, text, option)
    print(f"{visible(output)}: {file_size(len(text.encode()))}; open it in any browser")


def _may_write(file: Path, option: str) -> None:
    """Only a page of ours is written over."""
    from tmsearch.report.page import GENERATOR
    from tmsearch.report.sanitize import visible

    shown = visible(file)
    if file.is_dir():
        raise UserError(f"{option} {shown}: is a folder; name a file, such as {shown}/report.html")
    if not file.parent.is_dir():
        raise UserError(f"{option} {shown}: there is no folder {visible(file.parent)}; make it, or name another file")
    if file.exists():
        with file.open("rb") as stream:
            head = stream.read(4000)
        if head.strip() and f'content="{GENERATOR}"'.encode() not in head:
            raise UserError(f"{option} {shown}: is there and no page of tmsearch's; name another file, or remove it")


def page(storage: Storage, name: str) -> str:
    """The study's page as HTML, of what the database and the study's folder hold just now; raises UserError."""
    from tmsearch.cli.services.report_data import collect_report
    from tmsearch.data_quality import health
    from tmsearch.report.page import study_page

    ledger = study.open_study(storage, name)
    summary = study.summarize(ledger)
    corpus, problem = _corpus(summary)
    return study_page(
        collect_report(ledger, summary),
        _scored_clips(ledger, summary, corpus, problem),
        health.examine(corpus) if corpus else None,
        problem,
    )


def _corpus(summary: Summary) -> tuple[Corpus | None, str]:
    """The study's clips but for the locked test split; None, and why, where they are not what they were."""
    from tmsearch.data import corpus as clips

    known = StudyFacts.from_json(summary.facts).data
    if known is None:
        return None, "No sound and no pictures: the study does not know its data yet."
    config = dataclasses.replace(DataConfig(**summary.record.space["data"]), fold=0)
    try:
        corpus = clips.load(config)
    except InputError as error:
        return None, f"No sound and no pictures: the dataset cannot be read here ({error})."
    if corpus.fingerprint != known.fingerprint:
        return None, (
            f"No sound and no pictures: the dataset changed since the study started ({known.clips} clips then, "
            f"{len(corpus.clips)} now)."
        )
    locked = set(known.test)
    return dataclasses.replace(corpus, clips=tuple(clip for clip in corpus.clips if clip.name not in locked)), ""


def _scored_clips(ledger: Ledger, summary: Summary, corpus: Corpus | None, problem: str) -> ScoredClips:
    from tmsearch.report import clip_cards
    from tmsearch.report.page import ScoredClips

    best = summary.best
    if best is None:
        return ScoredClips(problem="No configuration has been scored yet.")
    scores, before, missing = _tables(ledger, summary, best)
    if missing:
        return ScoredClips(problem=missing)
    data = summary.record.space["data"]
    language = "en" if data.get("task") == "translate" else data.get("language", DataConfig.language)
    clips = {clip.name: clip for clip in corpus.clips} if corpus else {}
    where = f"The {len(scores)} validation clips with the hypotheses of trial {best.number} at step {best.steps}."
    try:
        shown = clip_cards.scored_cards(scores, before, clips, corpus.decode if corpus else _mute, language)
    except InputError as error:
        problem = f"No sound and no pictures: {error}."
        shown = clip_cards.scored_cards(scores, before, {}, _mute, language)
    return ScoredClips(shown, " ".join(filter(None, (where, clip_cards.silent_clips_note(shown)))), problem)


def _mute(name: str) -> Samples:
    raise AssertionError(name)


def _tables(
    ledger: Ledger, summary: Summary, best: Configuration
) -> tuple[Sequence[ClipScore], Sequence[ClipScore], str]:
    """The best's table and the untrained model's, without the test split; and why there is none."""
    from tmsearch.cli.services.report_data import best_folder

    mine, untrained = best_folder(ledger, best)
    try:
        scores, before = read_scores(mine, best.steps), read_scores(untrained, 0)
    except (ValueError, TypeError, OSError):
        return (), (), f"The table of clips in {mine} cannot be read."
    if not scores:
        return (
            (),
            (),
            (
                f"There is no table of clips in {mine}: trial {best.number} was trained on another machine, or "
                "its files were removed."
            ),
        )
    data = StudyFacts.from_json(summary.facts).data
    locked = set(data.test) if data else set()
    return [one for one in scores if one.name not in locked], before, ""
