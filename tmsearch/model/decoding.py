"""Batched greedy decoding with a key-value cache; the same tokens as transformers' generate."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from tmsearch.model import forward, trainable
from tmsearch.model.kv_cache import Cache, TokenStep
from tmsearch.model.loops import LOOP_TOKENS, loop_period
from tmsearch.model.tokens import special_id
from tmsearch.model.whisper import Whisper

# Finished clips leave the batch once so large a share of it is done; copying the cache for each would cost more.
_SHRINK_AT = 0.25
# Tokens between two looks of the host at a GPU's batch: each look waits for the device.
_LOOK_EVERY = 8


@dataclass(frozen=True)
class Hypothesis:
    """One clip's hypothesis; `loops` where it repeats itself up to the cap."""

    ids: list[int]
    loops: bool


def transcribe(
    whisper: Whisper,
    batches: Iterable[Sequence[torch.Tensor]],
    prompt: Sequence[int],
    max_tokens: int,
    silence: bool = False,
) -> list[tuple[str, bool]]:
    """The text heard in each clip of `batches`, in order, and whether it loops.

    A batch is runs of clips heard equally long, each [clips, n_mels, frames]; forward.encode explains `silence`.
    `prompt` is what the decoder starts from; `max_tokens` bounds what it may add, within its positions.
    """
    decoder = Decoder(whisper)
    heard = []
    for mels in batches:
        for one in decoder.greedy(mels, prompt, max_tokens, silence):
            heard.append((str(whisper.tokenizer.decode(one.ids, skip_special_tokens=True)).strip(), one.loops))
    return heard


class Decoder:
    """A Whisper in evaluation mode with its weights as they are now, in the caller's autocast format."""

    def __init__(self, whisper: Whisper) -> None:
        merged = trainable.merge_adapters(whisper)
        self.model, self.place = merged.model, merged.model.device
        kind = self.place.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32
        self.step = TokenStep(self.model, dtype)
        self.stop = special_id(whisper, "<|endoftext|>")
        self.at_start, self.later = _suppressed(whisper)

    @torch.no_grad()
    def greedy(
        self, mels: Sequence[torch.Tensor], prompt: Sequence[int], max_tokens: int, silence: bool = False
    ) -> list[Hypothesis]:
        """The most likely tokens behind `prompt` for each clip of the runs `mels`, end token left out."""
        encoded = forward.encode(self.model, [run.to(self.place) for run in mels], silence)
        max_tokens = min(max_tokens, len(self.step.positions) - len(prompt))
        with torch.autocast(self.place.type, enabled=False):
            cache = Cache(self.step, encoded, len(prompt) + max_tokens)
            batch = _Batch(self, cache, prompt, max_tokens)
            return batch.run_captured() if self.place.type == "cuda" else batch.run()


class _Batch:
    """Clips that are decoded together, and what they have said so far."""

    def __init__(self, decoder: Decoder, cache: Cache, prompt: Sequence[int], max_tokens: int) -> None:
        self.decoder, self.cache, self.prompt, self.max_tokens = decoder, cache, list(prompt), max_tokens
        place = decoder.place
        self.ids = torch.full((cache.count,), prompt[0], device=place)  # the last token of every clip
        self.place = torch.zeros(1, dtype=torch.long, device=place)  # where it stands
        self.said = torch.full((cache.count, len(prompt) + max_tokens + 1), decoder.stop, device=place)
        self.said[:, : len(prompt)] = torch.tensor(self.prompt, device=place)
        self.done = torch.zeros(cache.count, dtype=torch.bool, device=place)
        self.rows = list(range(cache.count))  # of the results, by row of the batch
        self.results = [Hypothesis([], False)] * cache.count

    def run(self) -> list[Hypothesis]:
        """Token by token; finished clips leave the batch."""
        self._begin()
        for count in range(1, self.max_tokens):
            self._let_go(self._finished(count), count)
            if not self.rows:
                return self.results
            self._next(self.decoder.later)
        self._take([True] * len(self.rows), self.max_tokens)
        return self.results

    def run_captured(self) -> list[Hypothesis]:
        """The same with the way from one token to the next as a CUDA graph; the batch keeps its size."""
        self._begin()
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # the second token: whatever a library sets up at its first call is set up here
            self._next(self.decoder.later)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):  # records, and says nothing
            self._next(self.decoder.later)
        count = 2
        while count < self.max_tokens and not all(self._finished(count)):
            for _ in range(min(_LOOK_EVERY, self.max_tokens - count)):
                graph.replay()
            count = min(count + _LOOK_EVERY, self.max_tokens)
        self._take([True] * len(self.rows), self.max_tokens)
        return self.results

    def _begin(self) -> None:
        """The prompt, and the first token behind it."""
        for _ in self.prompt[:-1]:
            self.decoder.step(self.ids, self.place, self.cache)
            self.place += 1
            self.ids.copy_(self.said.index_select(1, self.place)[:, 0])
        self._next(self.decoder.at_start)

    def _next(self, suppressed: torch.Tensor) -> None:
        """One token further, on the device alone and in place."""
        logits = self.decoder.step(self.ids, self.place, self.cache)
        best = torch.where(self.done, self.decoder.stop, (logits + suppressed).argmax(-1))
        self.place += 1
        self.said.index_copy_(1, self.place, best[:, None])
        self.done |= best == self.decoder.stop
        self.ids.copy_(best)

    def _new(self, count: int) -> list[list[int]]:
        """The first `count` tokens behind the prompt, by row."""
        tokens: list[list[int]] = self.said[:, len(self.prompt) : len(self.prompt) + count].tolist()
        return tokens

    def _finished(self, count: int) -> list[bool]:
        """Rows that have ended, or will never, after `count` tokens."""
        finished: list[bool] = self.done.tolist()
        if count < LOOP_TOKENS:
            return finished
        return [done or loop_period(ids) > 0 for done, ids in zip(finished, self._new(count), strict=True)]

    def _let_go(self, finished: Sequence[bool], count: int) -> None:
        """Writes down what is finished and shrinks the batch, where that is worth a copy of the rest."""
        if sum(finished) < max(1, _SHRINK_AT * len(finished)):
            return
        self._take(finished, count)
        rows = [row for row, done in enumerate(finished) if not done]
        self.rows = [self.rows[row] for row in rows]
        if rows:
            kept = torch.tensor(rows, device=self.decoder.place)
            self.ids, self.said, self.done = self.ids[kept], self.said[kept], self.done[kept]
            self.cache.keep(rows)

    def _take(self, finished: Sequence[bool], count: int) -> None:
        said = self._new(count)
        for row, done in enumerate(finished):
            if done:
                self.results[self.rows[row]] = self._result(said[row])

    def _result(self, ids: list[int]) -> Hypothesis:
        """Up to the end token; a loop goes on to the cap, as it would have."""
        ids = ids[: ids.index(self.decoder.stop)] if self.decoder.stop in ids else ids
        for place in range(LOOP_TOKENS, len(ids) + 1):
            if period := loop_period(ids[:place]):
                phrase, rest = ids[place - period : place], self.max_tokens - place
                return Hypothesis(ids[:place] + (phrase * (rest // period + 1))[:rest], True)
        return Hypothesis(ids, False)


def _suppressed(whisper: Whisper) -> tuple[torch.Tensor, torch.Tensor]:
    """What is added to the logits [vocabulary] of the first token and of later ones: minus infinity where forbidden."""
    settings, vocabulary = whisper.model.generation_config, whisper.model.config.vocab_size

    def forbidden(name: str) -> list[int]:
        # Some checkpoints write -1 for none.
        return [index for index in getattr(settings, name, None) or [] if 0 <= index < vocabulary]

    later = torch.zeros(vocabulary, device=whisper.model.device)
    later[forbidden("suppress_tokens")] = -torch.inf
    at_start = later.clone()
    at_start[forbidden("begin_suppress_tokens")] = -torch.inf
    return at_start, later
