"""Whisper's own algorithm for long recordings: 30 s at a time, with times, each window where the last one's text ends.

After openai/whisper's transcribe.py and decoding.py: the rules for times, the text heard so far as the prompt, how far
a window moves on. Greedy, and without chance: where openai/whisper draws a doubtful window anew at higher temperatures,
this one hears it once more without a prompt, so that a model gets the same figure twice.

Dimension words in shape comments: recordings, frames (mel, 10 ms), tokens, vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch.nn import functional
from transformers import EncoderDecoderCache

from tmsearch.model import trainable
from tmsearch.model.context import FRAMES_PER_POSITION, POSITIONS_PER_SECOND
from tmsearch.model.decoding import loop_period, suppression
from tmsearch.model.tokens import TIME_STEP, first_time_id, prompt_ids, special_id
from tmsearch.model.whisper import Whisper

MOST_FIRST_TIME = 1.0  # seconds: a window's first segment begins no later
LEAST_LOG_PROBABILITY = -1.0  # mean of a window's tokens; below it the window is doubtful
_FRAMES_PER_SECOND = POSITIONS_PER_SECOND * FRAMES_PER_POSITION
_FRAMES_PER_TIME = round(TIME_STEP * _FRAMES_PER_SECOND)


@dataclass(frozen=True)
class HeardSegment:
    """A piece of text between its times, in seconds of the recording."""

    start: float
    end: float
    text: str


@dataclass
class _Progress:
    """How far a recording is heard."""

    frames: int
    seek: int = 0  # frames
    prompt: list[int] = field(default_factory=list)
    segments: list[HeardSegment] = field(default_factory=list)

    @property
    def is_done(self) -> bool:
        return self.seek >= self.frames


class SequentialTranscriber:
    """A Whisper in evaluation mode that knows times, with its weights as they are now."""

    def __init__(self, whisper: Whisper, language: str, task: str) -> None:
        """Raises InputError for a language that the model does not know; ValueError for a model without times."""
        first_time = first_time_id(whisper)
        if first_time is None:
            raise ValueError(f"{whisper.name}: knows no times")
        self._whisper = whisper
        self._model = trainable.merge_adapters(whisper).model
        self._first_time = first_time
        self._times = round(whisper.seconds / TIME_STEP)  # the last one's number
        self._end = special_id(whisper, "<|endoftext|>")
        self._start = prompt_ids(whisper, language, task)[:-1]  # without <|notimestamps|>
        self._previous = special_id(whisper, "<|startofprev|>")
        self._window = FRAMES_PER_POSITION * whisper.positions  # frames
        self._most_positions = int(self._model.config.max_target_positions)
        first_bias, later_bias = suppression(whisper)
        self._biases = (first_bias, later_bias)
        for bias in self._biases:
            bias[special_id(whisper, "<|notimestamps|>")] = -torch.inf

    @torch.no_grad()
    def transcribe(
        self, mels: Sequence[torch.Tensor], stop: Callable[[], None] = lambda: None
    ) -> list[list[HeardSegment]]:
        """What is heard of each recording.

        Args:
            mels: Log-mels of whole recordings, each [n_mels, frames], without silence behind it.
            stop: Called before each window; what it raises ends the transcription.
        """
        progress = [_Progress(frames=int(mel.shape[1])) for mel in mels]
        while True:
            active = [index for index, recording in enumerate(progress) if not recording.is_done]
            if not active:
                return [recording.segments for recording in progress]
            stop()
            windows = torch.stack([self._cut(mels[index], progress[index].seek) for index in active])
            self._hear([progress[index] for index in active], windows)

    def _cut(self, mel: torch.Tensor, seek: int) -> torch.Tensor:
        """The window of a recording [n_mels, frames] that starts at frame `seek`."""
        window = mel[:, seek : seek + self._window]
        # Behind the recording's end openai/whisper, transformers and faster-whisper put zeros, which are not silence.
        return functional.pad(window, (0, self._window - window.shape[1]))

    def _hear(self, recordings: Sequence[_Progress], windows: torch.Tensor) -> None:
        """Hears one window [recordings, n_mels, frames] of each recording, and moves on behind it."""
        encoder = self._model.model.encoder
        dtype = encoder.conv1.weight.dtype
        encoded = encoder(windows.to(self._model.device, dtype)).last_hidden_state  # [recordings, positions, d_model]
        heard = self._decode(encoded, [recording.prompt for recording in recordings])
        doubtful = [index for index, (_, is_doubtful) in enumerate(heard) if is_doubtful and recordings[index].prompt]
        if doubtful:
            again = self._decode(encoded[doubtful], [[] for _ in doubtful])
            for index, result in zip(doubtful, again, strict=True):
                heard[index] = result
        for recording, (ids, is_doubtful) in zip(recordings, heard, strict=True):
            kept = self._advance(recording, ids)
            # What is doubtful would be repeated.
            recording.prompt = [] if is_doubtful else [*recording.prompt, *kept]

    def _decode(self, encoded: torch.Tensor, prompts: Sequence[Sequence[int]]) -> list[tuple[list[int], bool]]:
        """The ids of each row without the end, and whether they are doubtful: a loop, or improbable."""
        rows = self._prompt_rows(prompts)
        longest = max(map(len, rows))
        inputs = torch.tensor([[self._end] * (longest - len(row)) + row for row in rows], device=encoded.device)
        padding = torch.tensor([longest - len(row) for row in rows], device=encoded.device)[:, None]  # [recordings, 1]
        most_tokens = min(self._most_positions // 2, self._most_positions - longest)
        ids: list[list[int]] = [[] for _ in rows]
        totals = [0.0] * len(rows)  # log probabilities
        done = [False] * len(rows)
        cache = None
        for _ in range(most_tokens):
            logits, cache = self._step(inputs, padding, encoded, cache)
            ruled = torch.stack([self._ruled(row, earlier) for row, earlier in zip(logits, ids, strict=True)])
            best_scores, best = ruled.log_softmax(-1).max(-1)  # [recordings]
            for index, (token, score) in enumerate(zip(best.tolist(), best_scores.tolist(), strict=True)):
                if done[index]:
                    continue
                totals[index] += score
                if token != self._end:
                    ids[index].append(token)
                done[index] = token == self._end or loop_period(ids[index]) > 0
            if all(done):
                break
            inputs = best[:, None]
        return [(row, self._is_doubtful(row, total)) for row, total in zip(ids, totals, strict=True)]

    def _step(
        self, inputs: torch.Tensor, padding: torch.Tensor, encoded: torch.Tensor, cache: EncoderDecoderCache | None
    ) -> tuple[torch.Tensor, EncoderDecoderCache]:
        """Logits [recordings, vocabulary] behind `inputs` [recordings, tokens], and the cache with these.

        `padding` [recordings, 1] is how many tokens stand in front of a row's own.
        """
        length = inputs.shape[1] + (0 if cache is None else int(cache.get_seq_length()))
        every = torch.arange(length, device=inputs.device)[None]  # [1, tokens]
        output = self._model.model.decoder(
            input_ids=inputs,
            attention_mask=(every >= padding).long(),
            position_ids=(every - padding).clamp(min=0)[:, -inputs.shape[1] :],
            encoder_hidden_states=encoded,
            past_key_values=cache,
            use_cache=True,
        )
        return self._model.proj_out(output.last_hidden_state[:, -1]).float(), output.past_key_values

    def _prompt_rows(self, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        kept = self._most_positions // 2 - 1
        return [[*([self._previous, *prompt[-kept:]] if prompt else []), *self._start] for prompt in prompts]

    def _is_doubtful(self, ids: Sequence[int], total: float) -> bool:
        return loop_period(ids) > 0 or total / (len(ids) + 1) < LEAST_LOG_PROBABILITY

    def _ruled(self, logits: torch.Tensor, ids: Sequence[int]) -> torch.Tensor:
        """The logits [vocabulary] of the next token behind `ids`, with what the rules for times forbid taken out."""
        first = self._first_time
        logits = logits + self._biases[bool(ids)]
        last = first + self._times
        logits[last + 1 :] = -torch.inf
        if not ids:
            logits[:first] = -torch.inf
            logits[first + round(MOST_FIRST_TIME / TIME_STEP) + 1 :] = -torch.inf
            return logits
        ends_in_time = ids[-1] >= first
        ends_in_two = ends_in_time and (len(ids) < 2 or ids[-2] >= first)
        if ends_in_two:
            logits[first:] = -torch.inf
        elif ends_in_time:
            logits[: self._end] = -torch.inf
        times = [index for index in ids if index >= first]
        if times:
            # A segment has a length, and the next one may begin where it ends.
            lowest = times[-1] + (0 if ends_in_time and not ends_in_two else 1)
            logits[first:lowest] = -torch.inf
        shares = logits.log_softmax(-1)
        if shares[first:].logsumexp(-1) > shares[:first].max():
            logits[:first] = -torch.inf
        return logits

    def _advance(self, recording: _Progress, ids: Sequence[int]) -> list[int]:
        """Adds the segments of a window's ids, moves the window on, and returns the ids that they are of.

        Where a start follows an end, more is said than fits: what has no end is heard again, in a window that begins
        at the last end. Otherwise the window is heard to its end, and is one segment if it has no inner times.
        """
        bounds = [index for index, token in enumerate(ids) if token >= self._first_time]
        inner = [index for index in bounds if index - 1 in bounds]  # starts right behind an end
        goes_on = bool(inner) and (ids[-1] < self._first_time or bounds[-1] in inner)
        kept = list(ids[: inner[-1]] if goes_on else ids)
        offset = recording.seek
        for first, last in pairwise([0, *inner, len(kept)]):
            self._add(recording, offset, kept[first:last])
        moved = self._number(kept[-1]) if goes_on else self._times
        recording.seek = offset + moved * _FRAMES_PER_TIME
        return kept

    def _number(self, token: int) -> int:
        """A time's number, from the window's start."""
        return token - self._first_time

    def _add(self, recording: _Progress, offset: int, ids: Sequence[int]) -> None:
        """Adds the segment of `ids`, times and text, in the window that starts at frame `offset`."""
        times = [self._number(token) for token in ids if token >= self._first_time]
        text = [token for token in ids if token < self._first_time]
        words = str(self._whisper.tokenizer.decode(text, skip_special_tokens=True)).strip()
        if not words:
            return
        start = times[0] if times else 0
        end = times[-1] if len(times) > 1 else self._times
        first = offset + start * _FRAMES_PER_TIME
        last = min(offset + end * _FRAMES_PER_TIME, recording.frames)
        if first >= last:  # said to begin behind the recording's end
            first = offset
        recording.segments.append(HeardSegment(first / _FRAMES_PER_SECOND, last / _FRAMES_PER_SECOND, words))
