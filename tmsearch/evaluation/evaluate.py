"""Word and character error rates: of texts, of a model on clips, of the untouched checkpoint."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import datasets
import evaluate as hub_evaluate
import jiwer
import torch

from tmsearch import devices
from tmsearch.config import TrainConfig
from tmsearch.data.text_normalizer import normalizer
from tmsearch.errors import InputError
from tmsearch.evaluation.scores import ClipScore, Scores
from tmsearch.features.dataset import Speech
from tmsearch.model import whisper as model
from tmsearch.model.context import ContextRule, full_context
from tmsearch.model.decoding import transcribe
from tmsearch.model.tokens import prompt_ids
from tmsearch.model.whisper import Whisper

# A hypothesis may be half as long again as the longest reference, and a little more; what babbles is cut there.
CAP_FACTOR, CAP_MARGIN = 1.5, 8


class EvaluationInterruptedError(Exception):
    """The caller's `stop` became true between two batches."""


@dataclass(frozen=True)
class _Edits:
    substitutions: int
    deletions: int
    insertions: int
    length: int  # of the reference

    @property
    def all(self) -> int:
        return self.substitutions + self.deletions + self.insertions


class WordErrors(hub_evaluate.Metric):  # type: ignore[misc]  # evaluate is not typed
    """Micro-averaged WER by jiwer, as a metric of the evaluate library that asks no network.

    An empty reference counts every word of its hypothesis as an insertion and adds no words. Where no reference
    has a word the rate is 0 without and 1 with insertions.
    """

    def _info(self) -> hub_evaluate.MetricInfo:
        text = datasets.Value("string")
        return hub_evaluate.MetricInfo(
            description="Word error rate: edits over reference words, summed over all clips.",
            citation="",
            inputs_description="predictions: texts heard; references: texts said.",
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, Any]:
        edits = [_word_edits(*pair) for pair in zip(references, predictions, strict=True)]
        return {"wer": _rate(edits), "edits": edits}


def score(names: Sequence[str], references: Sequence[str], hypotheses: Sequence[str], language: str) -> Scores:
    """Compares texts clip by clip, after the normaliser of `language` and as they are."""
    normalise = normalizer(language)
    plain = [(normalise(said), normalise(heard)) for said, heard in zip(references, hypotheses, strict=True)]
    metric = WordErrors(keep_in_memory=True)
    words = metric.compute(predictions=[heard for _, heard in plain], references=[said for said, _ in plain])
    raw = metric.compute(predictions=list(hypotheses), references=list(references))
    clips = tuple(
        ClipScore(
            *(name, said, heard, edits.substitutions, edits.deletions, edits.insertions, edits.length),
            raw_edits=whole.all,
            raw_words=whole.length,
        )
        for name, said, heard, edits, whole in zip(
            names, references, hypotheses, words["edits"], raw["edits"], strict=True
        )
    )
    cer = _rate([_character_edits(said, heard) for said, heard in plain])
    return Scores(wer=words["wer"], wer_raw=raw["wer"], cer=cer, clips=clips)


def evaluate(
    whisper: Whisper,
    speech: Speech,
    names: Sequence[str],
    config: TrainConfig,
    *,
    context: Literal["study", "full"] = "study",
    stop: Callable[[], bool] = lambda: False,
) -> tuple[Scores, float]:
    """Error rates on the clips of `names`, in their order, and the seconds that they took.

    `study` hears each clip as training does, `full` pads it to all that the checkpoint hears, as its users do.
    Hypotheses end at a length taken from the longest reference. Leaves the model as it was. Raises Interrupted when
    `stop` says so, between batches.
    """
    if not names:
        raise InputError("no clips to score; raise data.validation (or data.test)")
    started = time.perf_counter()
    was_training = whisper.model.training
    rule = speech.context_rule(whisper, config) if context == "study" else full_context(whisper.positions)
    whisper.model.train(False)
    try:
        heard = _hear(whisper, speech, names, config, rule, stop)
    finally:
        whisper.model.train(was_training)
    written = "en" if speech.task == "translate" else speech.language
    hypotheses = [heard[name][0] for name in names]
    scores = score(names, [clip.text for clip in speech.clips(names)], hypotheses, written)
    scores = dataclasses.replace(scores, loops=sum(loops for _, loops in heard.values()))
    return scores, time.perf_counter() - started


def zero_shot(config: TrainConfig, speech: Speech, whisper: Whisper | None = None) -> Scores:
    """The untouched checkpoint on the validation split, at its full context: what a study must beat.

    `whisper`, if given, is the freshly loaded `config.model`, which is left as it was.
    """
    whisper = whisper or model.load(config)
    devices.move(whisper.model, devices.device())
    return evaluate(whisper, speech, speech.split.validation, config, context="full")[0]


def _hear(
    whisper: Whisper,
    speech: Speech,
    names: Sequence[str],
    config: TrainConfig,
    rule: ContextRule,
    stop: Callable[[], bool],
) -> dict[str, tuple[str, bool]]:
    """What the model makes of each clip, by name, and whether that is a loop."""
    speech.check_lengths(names, rule.seconds)
    longest = max((len(ids) for ids in speech.label_ids(names, whisper).values()), default=0)
    # Alike lengths together, so that a batch ends together.
    by_length = [clip.name for clip in sorted(speech.clips(names), key=lambda clip: (clip.seconds, clip.name))]
    mels = speech.mels(names, whisper, config)

    def batches() -> Iterator[list[torch.Tensor]]:
        for first in range(0, len(by_length), config.eval_batch_size):
            if stop():
                raise EvaluationInterruptedError
            part = by_length[first : first + config.eval_batch_size]
            runs = rule.length_groups(speech.seconds(part))  # sorted by length already, so the order stays
            yield [mels.batch([part[place] for place in run], frames) for frames, run in runs]

    prompt = prompt_ids(whisper, speech.language, speech.task)
    cap = int(CAP_FACTOR * longest) + CAP_MARGIN
    with devices.autocast(config, whisper.model.device, whisper.model.config.d_model):
        return dict(zip(by_length, transcribe(whisper, batches(), prompt, cap, rule.silence), strict=True))


def _word_edits(reference: str, hypothesis: str) -> _Edits:
    said, heard = " ".join(reference.split()), " ".join(hypothesis.split())
    if not said:  # jiwer refuses an empty reference
        return _Edits(0, 0, len(heard.split()), 0)
    return _counted(jiwer.process_words(said, heard))


def _character_edits(reference: str, hypothesis: str) -> _Edits:
    """Of normalised texts; a space is a character."""
    if not reference:
        return _Edits(0, 0, len(hypothesis), 0)
    return _counted(jiwer.process_characters(reference, hypothesis))


def _counted(aligned: jiwer.WordOutput | jiwer.CharacterOutput) -> _Edits:
    length = aligned.hits + aligned.substitutions + aligned.deletions
    return _Edits(aligned.substitutions, aligned.deletions, aligned.insertions, length)


def _rate(edits: Sequence[_Edits]) -> float:
    wrong = sum(one.all for one in edits)
    length = sum(one.length for one in edits)
    return wrong / length if length else float(wrong > 0)
