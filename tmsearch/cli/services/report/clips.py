"""A study's clips for its page: the dataset without the locked test split, and what the best trial made of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from search.paths import trial_folder
from search.records import Configuration, StudyRecord
from search.storage import ownership
from search.storage.ledger import Ledger
from tmsearch.cli.services.report.records import StudyFigures
from tmsearch.cli.view.format import model_of
from tmsearch.config import DataConfig
from tmsearch.data import corpus as corpora
from tmsearch.data.audio_file import Samples
from tmsearch.data.corpus import Corpus
from tmsearch.errors import InputError
from tmsearch.evaluation.scores import ClipScore, baseline_folder, read_scores
from tmsearch.report import clip_cards
from tmsearch.report.page import ScoredClips
from tmsearch.trial.facts import StudyFacts


def study_corpus(record: StudyRecord, facts: StudyFacts) -> tuple[Corpus | None, str]:
    """The study's clips without the locked test split; None, and why, where they cannot be read or have changed."""
    if facts.data is None:
        return None, "No sound and no pictures: the study does not know its data yet."
    config = dataclasses.replace(DataConfig(**record.space["data"]), fold=0)
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


def scored_clips(ledger: Ledger, study: StudyFigures, corpus: Corpus | None, problem: str) -> ScoredClips:
    """The best trial's validation clips with what it and the untrained model made of them.

    Args:
        ledger: says where the tables of clips are.
        study: its best trial and its data.
        corpus: its recordings, or None.
        problem: why there is no corpus.
    """
    best = study.best
    if best is None:
        return ScoredClips(problem="No configuration has been scored yet.")
    scores, zero_shot_scores, missing = _score_tables(ledger, study.facts, best)
    if missing:
        return ScoredClips(problem=missing)
    data = DataConfig(**study.facts.known_data.normalized(study.record.space["data"]))
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
    folder = ownership.checked_folder(ledger)
    trial = trial_folder(folder, best.number)
    try:
        scores = read_scores(trial, best.steps)
        zero_shot_scores = read_scores(baseline_folder(folder, model_of(best)), 0)
    except (ValueError, TypeError, OSError):
        return (), (), f"The table of clips in {trial} cannot be read."
    if not scores:
        reason = f"trial {best.number} was trained on another machine, or its files were removed"
        return (), (), f"There is no table of clips in {trial}: {reason}."
    test_clips = set(facts.data.test) if facts.data else set()
    return [score for score in scores if score.name not in test_clips], zero_shot_scores, ""
