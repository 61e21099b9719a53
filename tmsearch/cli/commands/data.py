"""The command data."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
from pathlib import Path
from typing import TYPE_CHECKING

from search.errors import UserError
from tmsearch.cli.services.knobs import absolute, load_space
from tmsearch.config import DataConfig

if TYPE_CHECKING:
    from tmsearch.data.corpus import Corpus
    from tmsearch.data_quality.health import Health
    from tmsearch.report.page import DoubtfulTranscripts

HEARD = 40  # odd clips, and doubtful transcripts, that the page has


def data(arguments: argparse.Namespace) -> int:
    """Describe a dataset, or the one that a space file names."""
    from tmsearch.data import corpus as clips
    from tmsearch.data import splits
    from tmsearch.data_quality import summary

    source = arguments.source
    if arguments.transcribe and not arguments.html:
        raise UserError("--transcribe: what it finds is shown on the page; name one with --html FILE")
    is_space = Path(source).suffix in (".yaml", ".yml")
    config = DataConfig(**load_space(source, (), None).data) if is_space else DataConfig(dataset=absolute(source))
    # Here the unusable clips are what a person wants to see, however many they are.
    corpus = clips.load(dataclasses.replace(config, max_dropped=1.0))
    split = splits.split(corpus, config)
    if arguments.html:
        from tmsearch.cli.commands.report import write

        # A space file makes it a study's data, whose test split is locked.
        locked = set(split.test) if is_space else set()
        kept = dataclasses.replace(corpus, clips=tuple(clip for clip in corpus.clips if clip.name not in locked))
        write(arguments.html, lambda: page(kept, config, arguments.transcribe), "--html")
        return 0
    described = summary.describe(corpus, split)
    print(json.dumps(described.to_json(), indent=2, ensure_ascii=False) if arguments.json else described.text())
    return 0


def page(corpus: Corpus, config: DataConfig, transcribe: str | None) -> str:
    """The dataset's page as HTML; with the name of a model also the transcripts that it disagrees with."""
    from tmsearch.data_quality import health
    from tmsearch.report import clip_cards
    from tmsearch.report.page import dataset_page

    found = health.examine(corpus)
    level = {one.name: one.snr for one in found.clips}
    odd = clip_cards.odd_cards(corpus, found.reasons, HEARD, level.__getitem__)
    made = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    doubts = _doubts(corpus, config, transcribe, found) if transcribe else None
    return dataset_page(config.dataset, made, found, odd, doubts)


def _doubts(corpus: Corpus, config: DataConfig, name: str, found: Health) -> DoubtfulTranscripts:
    from tmsearch.cli.services.run_study import cache_folder
    from tmsearch.data_quality import label_errors
    from tmsearch.report import clip_cards
    from tmsearch.report.page import DoubtfulTranscripts

    heard = label_errors.transcribe(corpus, config, name, cache_folder())
    by_name = {clip.name: clip for clip in corpus.clips}
    language = "en" if config.task == "translate" else config.language
    worst = [one for one in heard.scores if one.edits][:HEARD]
    how = (
        f"{name}, untrained, heard {len(heard.scores)} clips (WER {heard.wer:.3f}); these are the {len(worst)} where "
        "it disagrees most with the text. It is a hint and no more: an untrained model hears throat-microphone speech "
        "badly, so most of these texts are right. Where what it heard makes sense and is another sentence, listen."
    )
    if heard.too_long:
        how += f" {heard.too_long} clips are longer than it hears and were left out."
    shown = clip_cards.scored_cards(worst, (), by_name, corpus.decode, language)
    reasons = [dataclasses.replace(one, reasons=tuple(found.reasons.get(one.name, ()))) for one in shown]
    return DoubtfulTranscripts(tuple(reasons), how)
