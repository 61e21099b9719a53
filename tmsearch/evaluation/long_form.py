"""Long recordings: validation clips one behind the other, heard as a user of the model runs it, with times.

Dimension words in shape comments: samples (16 kHz).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tmsearch import devices
from tmsearch.config import TrainConfig
from tmsearch.data.audio_file import SAMPLE_RATE, Samples
from tmsearch.data.text_normalizer import normalizer
from tmsearch.errors import InputError
from tmsearch.evaluation.evaluate import EvaluationInterruptedError
from tmsearch.evaluation.scores import NEAR_SECONDS
from tmsearch.features import log_mel
from tmsearch.features.dataset import Speech
from tmsearch.features.sequence import Sequences
from tmsearch.model.sequential import HeardSegment, SequentialTranscriber
from tmsearch.model.tokens import first_time_id
from tmsearch.model.whisper import Whisper

RECORDING_SECONDS = 150.0  # about; all recordings of a set are equally long
PAUSES = (0.2, 1.2)  # seconds, where a dataset tells of none
PAUSE_NOISE = 1e-4  # standard deviation of what is heard in a pause; full scale is 1
_SEED = 0  # the recordings are those of the clips, the same for every configuration and study


@dataclass(frozen=True)
class Span:
    """A clip in a recording, from second to second."""

    name: str
    start: float
    end: float


@dataclass(frozen=True)
class Stitched:
    """A recording of several clips."""

    samples: Samples  # [samples]
    spans: tuple[Span, ...]


@dataclass(frozen=True)
class LongScores:
    """Word errors in recordings of several clips, and how near their times are.

    `errors` and `clip_words` are by clip, in the order of the names that were scored: a word that is inserted counts
    for the clip of the word before it.
    """

    substitutions: int
    deletions: int
    insertions: int
    words: int  # of the normalized references
    recordings: int
    seconds: float  # of all recordings
    near: float  # share of the clips' starts and ends of which a segment's is within NEAR_SECONDS
    time_error: float | None  # seconds, median distance of a clip's start or end to the nearest; None: no segment
    errors: tuple[int, ...]
    clip_words: tuple[int, ...]

    @property
    def wer(self) -> float:
        edits = self.substitutions + self.deletions + self.insertions
        return edits / self.words if self.words else float(edits > 0)

    def rates(self) -> dict[str, Any]:
        """What a study keeps of them beside other rates."""
        return {
            "wer_long": self.wer,
            "long_insertions": self.insertions,
            "long_deletions": self.deletions,
            "long_substitutions": self.substitutions,
            "long_words": self.words,
            "long_near": self.near,
            "long_time_error": self.time_error,
        }


def stitch(speech: Speech, names: Sequence[str]) -> list[Stitched]:
    """The clips of `names` as recordings of two to three minutes, or one where they last no longer.

    Parts of one recording, and clips of one session, stand in their order, others in one drawn by a fixed seed; pauses
    are as recorded, else drawn.
    """
    rng = np.random.default_rng(_SEED)
    order = _order(speech, names, rng)
    total = sum(clip.seconds for clip in speech.clips(names))
    count = max(1, round(total / RECORDING_SECONDS))
    recordings: list[Stitched] = []
    pieces: list[Samples] = []
    spans: list[Span] = []
    length = 0  # samples
    done = 0.0  # seconds of clips
    for name, pause in order:
        if spans:
            gap = round(pause * SAMPLE_RATE)
            pieces.append((PAUSE_NOISE * rng.standard_normal(gap)).astype(np.float32))
            length += gap
        samples = speech.corpus.decode(name)
        spans.append(Span(name, length / SAMPLE_RATE, (length + len(samples)) / SAMPLE_RATE))
        pieces.append(samples)
        length += len(samples)
        done += len(samples) / SAMPLE_RATE
        if done >= total / count * (len(recordings) + 1) and len(recordings) + 1 < count:
            recordings.append(Stitched(np.concatenate(pieces), tuple(spans)))
            pieces, spans, length = [], [], 0
    if spans:
        recordings.append(Stitched(np.concatenate(pieces), tuple(spans)))
    return recordings


def _order(speech: Speech, names: Sequence[str], rng: np.random.Generator) -> Iterator[tuple[str, float]]:
    """Every clip once, with the pause before it in seconds."""
    clips = sorted(speech.clips(names), key=lambda clip: clip.name)
    sequences = Sequences(clips)
    used: set[str] = set()
    for index in rng.permutation(len(clips)):
        name = clips[int(index)].name
        while name in sequences.preceding:
            name = sequences.preceding[name][0]
        pause: float | None = None
        while name not in used:
            used.add(name)
            yield name, float(rng.uniform(*PAUSES)) if pause is None else pause
            name, pause = sequences.following.get(name, (name, None))


def score(
    whisper: Whisper,
    speech: Speech,
    names: Sequence[str],
    config: TrainConfig,
    *,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[LongScores | None, float]:
    """A model's scores on the clips of `names` as long recordings, and the seconds that it took.

    Each recording is normalized as a whole, as a clip is. Leaves the model as it was. None for a model that knows no
    times, which cannot hear more than it takes at once.

    Args:
        stop: asked before each window.

    Raises:
        InputError: there are no clips.
        EvaluationInterruptedError: `stop` was true.
    """
    if not names:
        raise InputError("no clips to score; raise data.validation")
    started = time.perf_counter()
    if first_time_id(whisper) is None:
        return None, 0.0
    recordings = stitch(speech, names)
    heard: list[list[HeardSegment]] = []

    def check() -> None:
        if stop():
            raise EvaluationInterruptedError

    was_training = whisper.model.training
    whisper.model.train(False)
    try:
        transcriber = SequentialTranscriber(whisper, speech.language, speech.task)
        with devices.autocast(config, whisper.model.device, whisper.model.config.d_model):
            for first in range(0, len(recordings), config.eval_batch_size):
                batch = recordings[first : first + config.eval_batch_size]
                samples = [log_mel.normalize(recording.samples, config.normalization) for recording in batch]
                mels = [log_mel.of_recording(part, whisper.extractor) for part in samples]
                heard += transcriber.transcribe(mels, check)
    finally:
        whisper.model.train(was_training)
    return compare(speech, names, recordings, heard), time.perf_counter() - started


def compare(
    speech: Speech, names: Sequence[str], recordings: Sequence[Stitched], heard: Sequence[Sequence[HeardSegment]]
) -> LongScores:
    """Counts word errors and distances of times."""
    normalize = normalizer("en" if speech.task == "translate" else speech.language, speech.normalizer)
    words = {clip.name: normalize(clip.text).split() for clip in speech.clips(names)}
    errors = dict.fromkeys(names, 0)
    kinds = {"substitute": 0, "delete": 0, "insert": 0}
    distances: list[float] = []
    for recording, segments in zip(recordings, heard, strict=True):
        hypothesis = normalize(" ".join(segment.text for segment in segments)).split()
        owners = [span.name for span in recording.spans for _ in words[span.name]]  # a clip's name by reference word
        reference = [word for span in recording.spans for word in words[span.name]]
        for kind, position, count in _edits(reference, hypothesis):
            kinds[kind] += count
            owner = owners[min(position, len(owners) - 1)] if owners else recording.spans[0].name
            errors[owner] += count
        distances += _distances(recording.spans, segments)
    near = sum(distance <= NEAR_SECONDS for distance in distances) / len(distances)
    median = statistics.median(distances)
    return LongScores(
        substitutions=kinds["substitute"],
        deletions=kinds["delete"],
        insertions=kinds["insert"],
        words=sum(map(len, words.values())),
        recordings=len(recordings),
        seconds=sum(len(recording.samples) for recording in recordings) / SAMPLE_RATE,
        near=near,
        time_error=median if np.isfinite(median) else None,
        errors=tuple(errors[name] for name in names),
        clip_words=tuple(len(words[name]) for name in names),
    )


def _edits(reference: Sequence[str], hypothesis: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """Edits as their kind, the reference word that they count for, and how many they are."""
    import jiwer  # not at the top: a machine that only trains, as the GPU benchmark's, lacks it

    if not reference:  # jiwer takes no empty reference
        yield "insert", 0, len(hypothesis)
        return
    for chunk in jiwer.process_words(" ".join(reference), " ".join(hypothesis)).alignments[0]:
        if chunk.type == "insert":
            yield "insert", max(0, chunk.ref_start_idx - 1), chunk.hyp_end_idx - chunk.hyp_start_idx
        elif chunk.type != "equal":
            for position in range(chunk.ref_start_idx, chunk.ref_end_idx):
                yield chunk.type, position, 1


def _distances(spans: Sequence[Span], segments: Sequence[HeardSegment]) -> list[float]:
    """Of each clip's start and end to the nearest segment's, in seconds; infinite without segments."""
    distances = []
    for span in spans:
        starts = [abs(segment.start - span.start) for segment in segments]
        ends = [abs(segment.end - span.end) for segment in segments]
        distances += [min(starts, default=np.inf), min(ends, default=np.inf)]
    return [float(distance) for distance in distances]
