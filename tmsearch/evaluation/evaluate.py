"""Word and character error rates: of texts, of a model on clips, of the zero-shot baseline."""

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
from tmsearch.data.text_normalizer import characters, normalizer
from tmsearch.errors import InputError, TmsearchError
from tmsearch.evaluation.scores import ClipScore, Scores
from tmsearch.features.dataset import Speech
from tmsearch.formatting import first_line
from tmsearch.model import memory
from tmsearch.model import whisper as model
from tmsearch.model.context import ContextRule, full_context
from tmsearch.model.decoding import transcribe
from tmsearch.model.tokens import prompt_ids
from tmsearch.model.whisper import Whisper

# Tokens that a hypothesis may have: half as many again as the longest reference, and a little more. It is cut there.
CAP_FACTOR = 1.5
CAP_MARGIN = 8


class EvaluationInterruptedError(TmsearchError):
    """The caller's `stop` became true between two batches."""


class EvaluationMemoryError(MemoryError):
    """Memory ran out with one clip in the evaluation: fewer in a training's forward pass would not help."""


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


def evaluate(
    whisper: Whisper,
    speech: Speech,
    names: Sequence[str],
    config: TrainConfig,
    *,
    context: Literal["study", "full"] = "study",
    eval_batch: int | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[Scores, float]:
    """Error rates of a model on the clips of `names`, in their order, and the seconds that it took.

    Leaves the model as it was.

    Args:
        context: `study` gives the encoder as much of each clip as training does; `full` pads each clip to all that
            the checkpoint takes, 30 s, as its users do.
        eval_batch: clips decoded together, `config.eval_batch_size` if None. Where memory runs out it is halved, and
            the scores say what it came to.
        stop: asked between two batches.

    Raises:
        InputError: there are no clips, or some are too long for the model.
        EvaluationInterruptedError: `stop` was true.
        EvaluationMemoryError: memory does not suffice for one clip.
    """
    if not names:
        raise InputError("no clips to score; raise data.validation (or data.test)")
    started = time.perf_counter()
    was_training = whisper.model.training
    rule = speech.context_rule(whisper, config) if context == "study" else full_context(whisper.positions)
    whisper.model.train(False)
    try:
        wanted = eval_batch or config.eval_batch_size
        transcripts, fitting = _transcripts_that_fit(whisper, speech, names, config, rule, stop, wanted)
    finally:
        whisper.model.train(was_training)
    references = [clip.text for clip in speech.clips(names)]
    hypotheses = [transcripts[name][0] for name in names]
    language = "en" if speech.task == "translate" else speech.language
    scores = score(names, references, hypotheses, language, speech.normalizer)
    loops = sum(is_loop for _, is_loop in transcripts.values())
    return dataclasses.replace(scores, loops=loops, eval_batch=fitting), time.perf_counter() - started


def zero_shot(
    config: TrainConfig,
    speech: Speech,
    whisper: Whisper | None = None,
    stop: Callable[[], bool] = lambda: False,
    eval_batch: int | None = None,
) -> Scores:
    """The zero-shot baseline: the untouched checkpoint on the validation split at its full context.

    `whisper`, if given, is the freshly loaded `config.model`, which is left as it was; `eval_batch` as in `evaluate`.
    """
    whisper = whisper or model.load(config)
    devices.move(whisper.model, devices.device())
    names = speech.split.validation
    return evaluate(whisper, speech, names, config, context="full", eval_batch=eval_batch, stop=stop)[0]


def token_limit(whisper: Whisper, speech: Speech, names: Sequence[str]) -> int:
    """How many tokens the hypotheses of `names` may have."""
    longest = max((len(ids) for ids in speech.label_ids(names, whisper).values()), default=0)
    return int(CAP_FACTOR * longest) + CAP_MARGIN


def _transcripts_that_fit(
    whisper: Whisper,
    speech: Speech,
    names: Sequence[str],
    config: TrainConfig,
    rule: ContextRule,
    stop: Callable[[], bool],
    eval_batch: int,
) -> tuple[dict[str, tuple[str, bool]], int]:
    """`_transcripts` with batches of `eval_batch` clips, halved until memory suffices; and how many they came to."""
    while True:
        try:
            return _transcripts(whisper, speech, names, config, rule, stop, eval_batch), eval_batch
        except (RuntimeError, MemoryError) as error:
            if not memory.is_out_of_memory(error):
                raise
            reason = first_line(error)
        # Outside the except block, whose error holds references to the tensors that filled the memory.
        memory.free_memory()
        if eval_batch == 1:
            raise EvaluationMemoryError(f"scoring one clip at a time: {reason}")
        eval_batch = memory.halve(min(eval_batch, len(names)))


def _transcripts(
    whisper: Whisper,
    speech: Speech,
    names: Sequence[str],
    config: TrainConfig,
    rule: ContextRule,
    stop: Callable[[], bool],
    eval_batch: int,
) -> dict[str, tuple[str, bool]]:
    """The model's hypothesis for each clip, by name, and whether it is a loop."""
    speech.check_lengths(names, rule.seconds)
    # Clips of similar length together, so that a batch ends together.
    by_length = [clip.name for clip in sorted(speech.clips(names), key=lambda clip: (clip.seconds, clip.name))]
    mels = speech.mels(names, whisper, config)

    def batches() -> Iterator[list[torch.Tensor]]:  # lists of [clips, n_mels, frames], a tensor for each length
        for first in range(0, len(by_length), eval_batch):
            if stop():
                raise EvaluationInterruptedError
            batch = by_length[first : first + eval_batch]
            groups = []
            # Sorted by length already, so the order stays.
            for frames, indices in rule.length_groups(speech.seconds(batch)):
                groups.append(mels.batch([batch[index] for index in indices], frames))
            yield groups

    prompt = prompt_ids(whisper, speech.language, speech.task)
    max_tokens = token_limit(whisper, speech, names)
    with devices.autocast(config, whisper.model.device, whisper.model.config.d_model):
        return dict(zip(by_length, transcribe(whisper, batches(), prompt, max_tokens, rule.silence), strict=True))


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
