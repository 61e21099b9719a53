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
from search.exit_codes import DONE
from search.records import Configuration, StudyRecord
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
    """Write the page and print where it is."""
    storage = open_storage(arguments.storage)
    study.open_study(storage, arguments.study)
    file_name = re.sub(r"[^\w.-]", "-", arguments.study)
    write_page(arguments.output or f"{file_name}-report.html", lambda: page(storage, arguments.study))
    return DONE


def write_page(output: str, make_page: Callable[[], bytes], option: str = "-o") -> None:
    """Write the page that `make_page` returns and print its size.

    Args:
        output: the file to write.
        make_page: called only if the file may be written.
        option: what an error calls the file by.

    Raises:
        UserError: the file cannot be written, or is something else than a page of tmsearch.
    """
    from tmsearch.report.sanitize import visible

    file = Path(output)
    _check_file(file, option)
    content = make_page()
    write_output(file, content, option)
    print(f"{visible(output)}: {file_size(len(content))}; open it in any browser")


def _check_file(file: Path, option: str) -> None:
    """Only a page of tmsearch is overwritten."""
    from tmsearch.report.page import GENERATOR
    from tmsearch.report.sanitize import visible

    shown = visible(file)
    if file.is_dir():
        raise UserError(f"{option} {shown}: is a folder; name a file, such as {shown}/report.html")
    if not file.parent.is_dir():
        raise UserError(f"{option} {shown}: there is no folder {visible(file.parent)}; make it, or name another file")
    if file.exists():
        with file.open("rb") as stream:
            start = stream.read(4000)
        if start.strip() and f'content="{GENERATOR}"'.encode() not in start:
            raise UserError(f"{option} {shown}: exists and is not a page of tmsearch; name another file, or remove it")


def page(storage: Storage, name: str) -> bytes:
    """A study's page as HTML in UTF-8, of what the database and the study's folder hold now; raises UserError."""
    from tmsearch.cli.services.report_data import collect_report
    from tmsearch.data_quality import health
    from tmsearch.report.page import study_page

    ledger = study.open_study(storage, name)
    summary = study.summarize(ledger)
    facts = StudyFacts.from_json(summary.facts)
    corpus, problem = _corpus(summary, facts)
    collected = collect_report(ledger, summary)
    record = summary.record
    best = summary.best
    del summary  # with the errors of every result, which pictures and sounds need no more
    ledger = study.open_study(storage, name)
    return study_page(
        collected,
        _scored_clips(ledger, record, best, facts, corpus, problem),
        health.examine(corpus) if corpus else None,
        problem,
    )


def _corpus(summary: Summary, facts: StudyFacts) -> tuple[Corpus | None, str]:
    """The study's clips without the locked test split; None, and why, where they cannot be read or have changed."""
    from tmsearch.data import corpus as corpora

    if facts.data is None:
        return None, "No sound and no pictures: the study does not know its data yet."
    config = dataclasses.replace(DataConfig(**summary.record.space["data"]), fold=0)
    try:
        corpus = corpora.load(config)
    except InputError as error:
        return None, f"No sound and no pictures: the dataset cannot be read here ({error})."
    if corpus.fingerprint != facts.data.fingerprint:
        return None, (
            f"No sound and no pictures: the dataset changed since the study started ({facts.data.clips} clips then, "
            f"{len(corpus.clips)} now)."
        )
    test_clips = set(facts.data.test)
    unlocked = tuple(clip for clip in corpus.clips if clip.name not in test_clips)
    return dataclasses.replace(corpus, clips=unlocked), ""


def _scored_clips(
    ledger: Ledger,
    record: StudyRecord,
    best: Configuration | None,
    facts: StudyFacts,
    corpus: Corpus | None,
    problem: str,
) -> ScoredClips:
    """The best trial's validation clips with what it and the untrained model made of them."""
    from tmsearch.report import clip_cards
    from tmsearch.report.page import ScoredClips

    if best is None:
        return ScoredClips(problem="No configuration has been scored yet.")
    scores, zero_shot_scores, missing = _score_tables(ledger, facts, best)
    if missing:
        return ScoredClips(problem=missing)
    data = DataConfig(**facts.known_data.normalized(record.space["data"]))
    texts = (data.text_language, data.normalizer)
    clips = {clip.name: clip for clip in corpus.clips} if corpus else {}
    decode = corpus.decode if corpus else _decode_nothing
    try:
        cards = clip_cards.scored_cards(scores, zero_shot_scores, clips, decode, *texts)
    except InputError as error:
        problem = f"No sound and no pictures: {error}."
        cards = clip_cards.scored_cards(scores, zero_shot_scores, {}, _decode_nothing, *texts)
    title = f"The {len(scores)} validation clips with the hypotheses of trial {best.number} at step {best.steps}."
    return ScoredClips(cards, " ".join(filter(None, (title, clip_cards.silent_clips_note(cards)))), problem)


def _decode_nothing(name: str) -> Samples:
    raise AssertionError(name)


def _score_tables(
    ledger: Ledger, facts: StudyFacts, best: Configuration
) -> tuple[Sequence[ClipScore], Sequence[ClipScore], str]:
    """The best trial's table and the untrained model's, without the test split; and why there is none."""
    from tmsearch.cli.services.report_data import score_folders

    folder, zero_shot_folder = score_folders(ledger, best)
    try:
        scores = read_scores(folder, best.steps)
        zero_shot_scores = read_scores(zero_shot_folder, 0)
    except (ValueError, TypeError, OSError):
        return (), (), f"The table of clips in {folder} cannot be read."
    if not scores:
        reason = f"trial {best.number} was trained on another machine, or its files were removed"
        return (), (), f"There is no table of clips in {folder}: {reason}."
    test_clips = set(facts.data.test) if facts.data else set()
    return [score for score in scores if score.name not in test_clips], zero_shot_scores, ""
