"""The command data."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from search.errors import UserError
from search.exit_codes import DONE
from search.space.errors import printable
from tmsearch.cli.services import datasets
from tmsearch.cli.view import terminal
from tmsearch.config import DataConfig
from tmsearch.data.columns import AmbiguousColumnsError

if TYPE_CHECKING:
    from tmsearch.data.corpus import Corpus
    from tmsearch.data_quality.health import Health
    from tmsearch.report.page import DoubtfulTranscripts

SHOWN_CLIPS = 40  # odd clips, and doubtful transcripts, on the page


def data(arguments: argparse.Namespace) -> int:
    """Describe a dataset, or the one that a space file names."""
    from tmsearch.data_quality import microphones

    if arguments.transcribe and not arguments.html:
        raise UserError("--transcribe: what it finds is shown on the page; name one with --html FILE")
    source = datasets.source_of(arguments.source, arguments.set)
    try:
        dataset = datasets.load(source)
    except AmbiguousColumnsError:
        if not arguments.json and not arguments.html:
            for line in microphones.survey(source.config).lines():
                print(printable(line))
        raise
    corpus = dataset.corpus
    if arguments.html:
        from tmsearch.cli.commands.report import print_written
        from tmsearch.cli.services.report.page_file import write_page

        if source.is_space:  # a study's data, whose test split is locked
            test_clips = set(dataset.split.test)
            unlocked = tuple(clip for clip in corpus.clips if clip.name not in test_clips)
            corpus = dataclasses.replace(corpus, clips=unlocked)
        file = Path(arguments.html)
        write_page(file, lambda: page(corpus, source.config, arguments.transcribe), "--html")
        print_written(arguments.html, file)
        return DONE
    description = datasets.describe(dataset)
    if arguments.json:
        terminal.print_json(description.to_json())
    else:
        print(description.text())
    return DONE


def page(corpus: Corpus, config: DataConfig, model: str | None) -> Iterator[bytes]:
    """The dataset's page as HTML in UTF-8, piece by piece.

    With the name of a model also the transcripts that it disagrees with.
    """
    from tmsearch.data_quality import health
    from tmsearch.report import clip_cards
    from tmsearch.report.page import dataset_page

    findings = health.examine(corpus)
    snr = {clip.name: clip.snr for clip in findings.clips}
    odd_clips = clip_cards.odd_cards(corpus, findings.reasons, SHOWN_CLIPS, snr.__getitem__)
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    doubtful = _doubtful_transcripts(corpus, config, model, findings) if model else None
    return dataset_page(config.dataset, date, findings, odd_clips, doubtful)


def _doubtful_transcripts(corpus: Corpus, config: DataConfig, model: str, findings: Health) -> DoubtfulTranscripts:
    """The clips where an untrained model disagrees most with the text."""
    from tmsearch.cli.services.run_study import cache_folder
    from tmsearch.data_quality import label_errors
    from tmsearch.report import clip_cards
    from tmsearch.report.page import DoubtfulTranscripts

    check = label_errors.transcribe(corpus, config, model, cache_folder())
    worst = [score for score in check.scores if score.edits][:SHOWN_CLIPS]
    how = (
        f"{model}, untrained, transcribed {len(check.scores)} clips (WER {check.wer:.3f}); these are the {len(worst)} "
        "where it disagrees most with the text. It is a hint and no more: an untrained model is bad at "
        "throat-microphone speech, so most of these texts are right. Listen where its transcript makes sense and is "
        "another sentence."
    )
    if check.too_long:
        how += f" {check.too_long} clips are longer than its context and were left out."
    clips = {clip.name: clip for clip in corpus.clips}
    cards = []
    for card in clip_cards.scored_cards(worst, (), clips, corpus.decode, config.text_language, config.normalizer):
        cards.append(dataclasses.replace(card, reasons=tuple(findings.reasons.get(card.name, ()))))
    return DoubtfulTranscripts(tuple(cards), how)
