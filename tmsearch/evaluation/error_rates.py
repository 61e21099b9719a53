"""Word and character error rates of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import evaluate as hub_evaluate
import jiwer

from tmsearch.data.text_normalizer import characters, normalizer
from tmsearch.evaluation.scores import ClipScore, Scores


@dataclass(frozen=True)
class _Edits:
    substitutions: int
    deletions: int
    insertions: int
    length: int  # of the reference

    @property
    def total(self) -> int:
        return self.substitutions + self.deletions + self.insertions


class WordErrors(hub_evaluate.Metric):  # type: ignore[misc]  # evaluate is not typed
    """Micro-averaged WER by jiwer, as a metric of the evaluate library that needs no network.

    An empty reference counts every word of its hypothesis as an insertion and adds no words. Where no reference has a
    word the rate is 0 without insertions and 1 with any.
    """

    def _info(self) -> hub_evaluate.MetricInfo:
        text = datasets.Value("string")
        return hub_evaluate.MetricInfo(
            description="Word error rate: edits over reference words, summed over all clips.",
            citation="",
            inputs_description="predictions: hypotheses; references: transcripts.",
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, Any]:
        edits = list(map(_word_edits, references, predictions))
        return {"wer": _rate(edits), "edits": edits}


def score(
    names: Sequence[str],
    references: Sequence[str],
    hypotheses: Sequence[str],
    language: str,
    rule: str | None = None,
) -> Scores:
    """Compares texts clip by clip, both after the normalizer of `language` and `rule` and as they are."""
    normalize = normalizer(language, rule)
    normal_references = list(map(normalize, references))
    normal_hypotheses = list(map(normalize, hypotheses))
    metric = WordErrors(keep_in_memory=True)
    words = metric.compute(predictions=normal_hypotheses, references=normal_references)
    raw = metric.compute(predictions=list(hypotheses), references=list(references))
    character_edits = [
        _character_edits(characters(reference, language), characters(hypothesis, language))
        for reference, hypothesis in zip(normal_references, normal_hypotheses, strict=True)
    ]
    clips = []
    rows = zip(names, references, hypotheses, words["edits"], raw["edits"], character_edits, strict=True)
    for name, reference, hypothesis, edits, raw_edits, by_character in rows:
        clips.append(
            ClipScore(
                name=name,
                reference=reference,
                hypothesis=hypothesis,
                substitutions=edits.substitutions,
                deletions=edits.deletions,
                insertions=edits.insertions,
                words=edits.length,
                raw_edits=raw_edits.total,
                raw_words=raw_edits.length,
                character_edits=by_character.total,
                characters=by_character.length,
            )
        )
    return Scores(wer=words["wer"], wer_raw=raw["wer"], cer=_rate(character_edits), clips=tuple(clips))


def _word_edits(reference: str, hypothesis: str) -> _Edits:
    reference_words = reference.split()
    hypothesis_words = hypothesis.split()
    if not reference_words:  # jiwer refuses an empty reference
        return _Edits(0, 0, len(hypothesis_words), 0)
    return _counted(jiwer.process_words(" ".join(reference_words), " ".join(hypothesis_words)))


def _character_edits(reference: str, hypothesis: str) -> _Edits:
    """Of normalized texts, as `characters` gives them; a space is a character."""
    if not reference:
        return _Edits(0, 0, len(hypothesis), 0)
    return _counted(jiwer.process_characters(reference, hypothesis))


def _counted(aligned: jiwer.WordOutput | jiwer.CharacterOutput) -> _Edits:
    length = aligned.hits + aligned.substitutions + aligned.deletions
    return _Edits(aligned.substitutions, aligned.deletions, aligned.insertions, length)


def _rate(edits: Sequence[_Edits]) -> float:
    errors = sum(clip.total for clip in edits)
    length = sum(clip.length for clip in edits)
    return errors / length if length else float(errors > 0)
