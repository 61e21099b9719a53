"""Word and character error rates of a model on clips, and of the zero-shot baseline."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tmsearch import devices
from tmsearch.config import TrainConfig
from tmsearch.errors import InputError, TmsearchError
from tmsearch.evaluation.scores import Scores
from tmsearch.features.dataset import Speech
from tmsearch.features.log_mel import LogMels
from tmsearch.formatting import first_line
from tmsearch.model import whisper as model
from tmsearch.model.context import FRAMES_PER_POSITION, ContextRule, Places, full_context
from tmsearch.model.decoding import Groups, transcribe
from tmsearch.model.forward import GroupPlaces
from tmsearch.model.kernels import fused
from tmsearch.model.tokens import prompt_ids
from tmsearch.model.whisper import Whisper

# Tokens that a hypothesis may have: half as many again as the longest reference, and a little more. It is cut there.
CAP_FACTOR = 1.5
CAP_MARGIN = 8


class EvaluationInterruptedError(TmsearchError):
    """The caller's `stop` became true between two batches."""


class EvaluationMemoryError(MemoryError):
    """Memory ran out with one clip in the evaluation: fewer in a training's forward pass would not help."""


def score(
    names: Sequence[str],
    references: Sequence[str],
    hypotheses: Sequence[str],
    language: str,
    rule: str | None = None,
) -> Scores:
    """Compares texts clip by clip, as error_rates.score does."""
    from tmsearch.evaluation import error_rates  # here, so that a machine without its libraries can time a training

    return error_rates.score(names, references, hypotheses, language, rule)


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
            if not devices.is_out_of_memory(error):
                raise
            reason = first_line(error)
        # Outside the except block, whose error holds references to the tensors that filled the memory.
        devices.free_memory()
        if eval_batch == 1:
            raise EvaluationMemoryError(f"scoring one clip at a time: {reason}")
        eval_batch = devices.halve(min(eval_batch, len(names)))


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
    device = whisper.model.device
    mels = speech.kept_mels(names, whisper, config, device)
    lengths = _lengths(speech, names, mels, rule)
    # Clips of similar length together, so that a batch ends together.
    by_length = sorted(names, key=lambda name: (lengths[name].encoded, lengths[name].seconds, name))
    in_batches = [by_length[first : first + eval_batch] for first in range(0, len(by_length), eval_batch)]
    if device.type == "cuda":
        in_batches.reverse()  # the graph of the longest clips serves all others

    def batches() -> Iterator[Groups]:
        for batch in in_batches:
            if stop():
                raise EvaluationInterruptedError
            yield _groups(batch, lengths, mels)

    prompt = prompt_ids(whisper, speech.language, speech.task)
    max_tokens = token_limit(whisper, speech, names)
    layers = fused.layers_for(config, device, whisper.model.config.d_model)
    with devices.autocast(config, device, whisper.model.config.d_model):
        transcripts = transcribe(whisper, batches(), prompt, max_tokens, rule.silence, layers)
    return dict(zip([name for batch in in_batches for name in batch], transcripts, strict=True))


@dataclass(frozen=True)
class _Length:
    """How much of a clip is encoded."""

    seconds: float  # of the clip
    own: int  # positions of the encoder that are its context
    places: Places | None  # those that are encoded where its quiet is thinned

    @property
    def encoded(self) -> int:
        return self.own if self.places is None else len(self.places)


def _lengths(speech: Speech, names: Sequence[str], mels: LogMels, rule: ContextRule) -> dict[str, _Length]:
    """By clip name."""
    lengths = {}
    for name, seconds in zip(names, speech.seconds(names), strict=True):
        own = rule.positions(seconds)
        places = rule.places(own, *mels.quiet_edges(name)) if rule.quiet else None
        lengths[name] = _Length(seconds, own, places)
    return lengths


def _groups(batch: Sequence[str], lengths: Mapping[str, _Length], mels: LogMels) -> Groups:
    """The clips of `batch`, sorted by how much of each is encoded, in that order."""
    groups = []
    places: list[GroupPlaces] = []
    for _, names in itertools.groupby(batch, lambda name: lengths[name].encoded):
        members = list(names)
        own = max(lengths[name].own for name in members)
        groups.append(mels.batch(members, FRAMES_PER_POSITION * own))
        in_group = [lengths[name].places for name in members]
        places.append(tuple(thinned for thinned in in_group if thinned is not None) or None)
    return Groups(groups, places)
