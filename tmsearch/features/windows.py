"""Windows: clips of the training split one behind the other, as Whisper hears a long recording.

Whisper was trained on 30 s of a recording at a time (Radford et al. 2022, section 2.3): each text between its times, a
text that does not end within the window left out behind its start time, and the text before the window in front, which
is not learnt. A model that is tuned on single clips unlearns that (studies/README.md, 2026-11-29).

Dimension words in shape comments: samples (16 kHz).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tmsearch.config import TrainConfig
from tmsearch.data.audio_file import SAMPLE_RATE, Samples
from tmsearch.errors import InputError
from tmsearch.features import augment, log_mel
from tmsearch.features.bpe_dropout import TextIds
from tmsearch.features.dataset import Speech
from tmsearch.features.sequence import Sequences
from tmsearch.model.tokens import TIME_STEP, first_time_id, prompt_ids, special_id
from tmsearch.model.whisper import Whisper

# The length of a window that ends behind a whole clip is drawn between this share of the longest and the longest: a
# recording's last one is shorter. One that ends within a clip is always the longest, as nothing but the end of what the
# model hears cuts speech off: speech that is followed by silence and not to be written teaches to leave speech out.
LEAST_LENGTH = 0.4
LEAST_GAP = 0.2  # seconds
# Share of the windows with times that end within the clip that does not fit; the others end behind a whole one.
CUT_SHARE = 0.5
LEAST_CUT = 0.1  # seconds that are heard of such a clip
_STREAM = 3  # of random numbers; augment.py has the first two


@dataclass(frozen=True)
class Window:
    """Several clips as one example.

    `labels` are what is learnt; `before` stands in front of `<|startoftranscript|>` and is not. `names` are the clips
    that are heard, the last perhaps in part.
    """

    samples: Samples  # [samples]
    labels: list[int]
    before: list[int]
    names: tuple[str, ...]


@dataclass(frozen=True)
class _Plan:
    """What is drawn of a window before its clips are."""

    first: str
    is_timed: bool
    ends_within: bool
    seconds: float
    before: list[int]


class Windows:
    """Windows of the clips of a training split, each drawn from the seed, the step and the index in the batch alone."""

    def __init__(
        self,
        whisper: Whisper,
        speech: Speech,
        names: Sequence[str],
        config: TrainConfig,
        texts: TextIds | None = None,
    ) -> None:
        clips = speech.clips(names)
        self._config = config
        self._corpus = speech.corpus
        self._names = list(names)
        self._sequences = Sequences(clips)
        self._drawn_texts = texts or TextIds(whisper, clips, config)
        self._texts = self._drawn_texts.plain
        self._lengths = {clip.name: clip.seconds for clip in clips}
        self._prompt = prompt_ids(whisper, speech.language, speech.task)[1:]  # ends with <|notimestamps|>
        self._first_time = first_time_id(whisper)
        self._previous = _previous_id(whisper) if config.window_prompts else None
        self._end = special_id(whisper, "<|endoftext|>")
        self._most_tokens = int(whisper.model.config.max_target_positions)
        self._model_seconds = whisper.seconds
        # Of the longest window; a clip that is longer than windows may be is a window by itself.
        self.seconds = max(longest_window(config, whisper.seconds), *self._lengths.values())

    def draw(self, name: str, step: int, index: int) -> Window | None:
        """The window that starts with clip `name`; None where the example is the clip alone.

        Args:
            name: The clip whose turn it is.
            step: The update, from 1.
            index: The clip's index in the batch of that update.
        """
        rng = self._rng(step, index)
        if rng.random() >= self._config.window_share:
            return None
        is_timed = bool(rng.random() < self._config.window_times) and self._first_time is not None
        has_prompt = rng.random() < self._config.window_prompts and self._previous is not None
        ends_within = bool(rng.random() < CUT_SHARE) and is_timed
        drawn_seconds = rng.uniform(LEAST_LENGTH * self.seconds, self.seconds)
        plan = _Plan(
            first=name,
            is_timed=is_timed,
            ends_within=ends_within,
            seconds=self.seconds if ends_within else drawn_seconds,
            before=self._before(name, is_timed, rng) if has_prompt else [],
        )
        return self._composed(plan, step, index, rng)

    def timed_clip(self, name: str, step: int, index: int, seconds: float) -> list[int] | None:
        """The labels of an example that is no window, between its times; None where it is to have none.

        `seconds` is how long the clip lasts in this batch.
        """
        if not self._config.clip_times or self._first_time is None:
            return None
        if self._rng(step, index).random(2)[1] >= self._config.clip_times:
            return None
        last = max(TIME_STEP, seconds)
        text = self._drawn_texts.drawn(name, step, index)
        labels = [*self._prompt[:-1], self._time_id(0.0), *text, self._time_id(last), self._end]
        return labels if len(labels) <= self._most_tokens else None

    def most_tokens(self) -> int:
        """About as many decoder inputs as a window has at most: the densest clips' behind the longest prompt."""
        tokens = len(self._prompt) + 1.0
        if self._previous is not None:
            tokens += self._most_before() + 1
        room = self.seconds
        most = {name: self._drawn_texts.most(name) + 2 for name in self._names}  # its times included
        for name in sorted(self._names, key=lambda name: self._lengths[name] / most[name]):
            tokens += min(1.0, room / self._lengths[name]) * most[name]
            room -= self._lengths[name] + LEAST_GAP
            if room <= 0:
                break
        return min(self._most_tokens, math.ceil(tokens))

    def _rng(self, step: int, index: int) -> np.random.Generator:
        return np.random.default_rng([self._config.seed, _STREAM, step, index])

    def _time_id(self, seconds: float) -> int:
        assert self._first_time is not None
        return self._first_time + round(seconds / TIME_STEP)

    def _following(self, name: str, rng: np.random.Generator) -> Iterator[tuple[str, float]]:
        """The clips behind `name` without end, each with the pause before it: as recorded, else drawn."""
        while True:
            pause = rng.uniform(LEAST_GAP, self._config.window_gap)
            drawn = self._names[int(rng.integers(len(self._names)))]
            name, recorded = self._sequences.following.get(name, (drawn, None))
            yield name, pause if recorded is None else recorded

    def _composed(self, plan: _Plan, step: int, index: int, rng: np.random.Generator) -> Window:
        """Puts clips behind the first until the window or the decoder's positions are full."""
        room = self._most_tokens - len(plan.before) - len(self._prompt) - 2
        samples = [self._samples(plan.first, step, index)]
        names = [plan.first]
        length = len(samples[0])  # samples
        ids = self._segment(plan, 0, length, self._drawn_texts.drawn(plan.first, step, index, most=room - 2))
        most = round(plan.seconds * SAMPLE_RATE)
        for name, pause in self._following(plan.first, rng):
            clip = self._samples(name, step, index)
            start = length + round(pause * SAMPLE_RATE)
            text = self._drawn_texts.drawn(name, step, index, place=len(names))
            segment = self._segment(plan, start, start + len(clip), text)
            is_cut = start + len(clip) > most
            if is_cut and plan.ends_within and start + LEAST_CUT * SAMPLE_RATE <= most:
                segment = segment[:1]  # its start time
                clip = clip[: most - start]
            elif is_cut:
                break
            if len(ids) + len(segment) > room:
                break
            samples += [np.zeros(start - length, np.float32), clip]
            names.append(name)
            ids += segment
            length = start + len(clip)
            if is_cut:
                break
        prompt = self._prompt[:-1] if plan.is_timed else self._prompt
        return Window(np.concatenate(samples), [*prompt, *ids, self._end], plan.before, tuple(names))

    def _segment(self, plan: _Plan, start: int, end: int, text: Sequence[int]) -> list[int]:
        """The ids of a clip with this text that is heard from sample `start` to `end`."""
        if not plan.is_timed:
            return list(text)
        first = start / SAMPLE_RATE
        return [self._time_id(first), *text, self._time_id(max(end / SAMPLE_RATE, first + TIME_STEP))]

    def _samples(self, name: str, step: int, index: int) -> Samples:
        """A clip as it is trained on: one speed and one filter for all of a window."""
        samples = self._corpus.samples(name)
        augmented = augment.waveform(samples, self._config, step, index, self.seconds)
        changed = samples if augmented is None else augmented
        return log_mel.normalize(changed, self._config.normalization)

    def _most_before(self) -> int:
        """Tokens of a text before, as openai/whisper and faster-whisper cut it."""
        return self._most_tokens // 2 - 1

    def _before(self, name: str, is_timed: bool, rng: np.random.Generator) -> list[int]:
        """`<|startofprev|>` and the text before clip `name`: that of its session, else drawn.

        A text of a recording has its times where the window has them, as what has been decoded is the next prompt.
        """
        assert self._previous is not None
        wanted = int(rng.integers(1, self._most_before() + 1))
        names: list[str] = []
        first = name
        count = 0
        while count < wanted:
            drawn = self._names[int(rng.integers(len(self._names)))]
            name = self._sequences.preceding.get(name, (drawn, None))[0]
            names.insert(0, name)
            count += len(self._texts[name]) + 2 * is_timed + 1
        ids: list[int] = []
        start = 0.0
        for clip in names:
            end = start + max(TIME_STEP, self._lengths[clip])
            if end > self._model_seconds:
                start, end = 0.0, end - start
            times = [self._time_id(start), self._time_id(end)] if is_timed else []
            ids += [*times[:1], *self._texts[clip], *times[1:]]
            start = end + rng.uniform(LEAST_GAP, self._config.window_gap)
        room = (
            self._most_tokens - len(self._texts[first]) - len(self._prompt) - 4
        )  # beside the first clip and its times
        kept = min(self._most_before(), room)
        return [self._previous, *ids[-kept:]] if kept > 0 else []


def _previous_id(whisper: Whisper) -> int | None:
    """The id that stands in front of a text before; None where the checkpoint has none."""
    try:
        return special_id(whisper, "<|startofprev|>")
    except InputError:
        return None


def longest_window(config: TrainConfig, model_seconds: float) -> float:
    """Seconds of the longest window that `config` gives a model that hears `model_seconds`."""
    return min(config.window_seconds, model_seconds, config.context_seconds or math.inf)


def mean_window(config: TrainConfig, model_seconds: float, clip_seconds: float) -> tuple[float, float]:
    """How long windows are on average, in seconds, and how many clips of `clip_seconds` they hold."""
    cut_share = CUT_SHARE * config.window_times
    seconds = (cut_share + (1 - cut_share) * (1 + LEAST_LENGTH) / 2) * longest_window(config, model_seconds)
    gap = (LEAST_GAP + config.window_gap) / 2
    return max(seconds, clip_seconds), max(1.0, seconds / (clip_seconds + gap))
