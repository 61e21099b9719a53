"""Batched greedy decoding with a key-value cache; the same tokens as transformers' generate.

On a GPU the step from one token to the next is a CUDA graph: captured once and, where attention is packed, replayed for
every batch that is no larger than the first. So the batch of the longest clips is best given first.

Dimension words in shape comments: clips, frames (mel, 10 ms), length (prompt, generated tokens and a spare),
vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from transformers import GenerationConfig

from tmsearch import devices
from tmsearch.model import forward, trainable
from tmsearch.model.attention import Layout
from tmsearch.model.forward import Encoded, GroupPlaces
from tmsearch.model.kv_cache import CrossCache, GroupedCrossCache, PackedCrossCache, SelfCache, TokenStep
from tmsearch.model.layers import EAGER, Layers
from tmsearch.model.tokens import special_id
from tmsearch.model.whisper import Whisper

# Finished clips leave the batch once they are this share of it; copying the cache for each one would cost more.
_SHRINK_AT = 0.25
# Tokens between two checks by the host of a GPU's batch: each check waits for the device.
_CHECK_EVERY = 8
# A hypothesis loops once its last tokens are a phrase of at most LOOP_PERIOD tokens, LOOP_TIMES over, LOOP_TOKENS in
# all. Nobody speaks so, and a Whisper that has started a loop continues it until it is cut off.
LOOP_PERIOD = 8
LOOP_TIMES = 4
LOOP_TOKENS = 24


@dataclass(frozen=True)
class Hypothesis:
    """What the model transcribes one clip as; `is_loop` where it repeats itself up to the token limit."""

    ids: list[int]
    is_loop: bool


class Groups(NamedTuple):
    """Clips of a batch, grouped by how many positions of each are encoded."""

    mels: Sequence[torch.Tensor]  # each [clips, n_mels, frames]
    places: Sequence[GroupPlaces] = ()  # see forward.encode


def transcribe(
    whisper: Whisper,
    batches: Iterable[Groups],
    prompt: Sequence[int],
    max_tokens: int,
    silence: bool = False,
    layers: Layers = EAGER,
) -> list[tuple[str, bool]]:
    """Transcribes clips greedily.

    Args:
        whisper: The model, in evaluation mode.
        batches: What the encoder gets of each batch.
        prompt: Token ids that the decoder starts from.
        max_tokens: Limit on the tokens after the prompt, besides the decoder's positions.
        silence: Whether the silence behind each clip is encoded, see forward.encode.
        layers: How the encoder's are run.

    Returns:
        For each clip, in order, its text and whether it is a loop.
    """
    decoder = Decoder(whisper, layers)
    texts = []
    try:
        for groups in batches:
            for hypothesis in decoder.greedy(groups.mels, prompt, max_tokens, silence, groups.places):
                text = str(whisper.tokenizer.decode(hypothesis.ids, skip_special_tokens=True)).strip()
                texts.append((text, hypothesis.is_loop))
    finally:
        decoder.release()
    return texts


class Decoder:
    """A Whisper in evaluation mode with its weights as they are now, in the caller's autocast format."""

    def __init__(self, whisper: Whisper, layers: Layers = EAGER) -> None:
        self.layers = layers  # of the encoder
        self.model = trainable.merge_adapters(whisper).model
        self.device = self.model.device
        device_type = self.device.type
        dtype = torch.float32
        if torch.is_autocast_enabled(device_type):
            dtype = torch.get_autocast_dtype(device_type)
        self.step = TokenStep(self.model, dtype)
        self.end = special_id(whisper, "<|endoftext|>")
        self.first_bias, self.later_bias = suppression(whisper)
        self._captured: _CapturedBatch | None = None  # the last one

    def release(self) -> None:
        """Lets go of the last batch: each refers to the other, and the next training would find their memory taken."""
        self._captured = None

    @torch.no_grad()
    def greedy(
        self,
        mels: Sequence[torch.Tensor],
        prompt: Sequence[int],
        max_tokens: int,
        silence: bool = False,
        places: Sequence[GroupPlaces] = (),
    ) -> list[Hypothesis]:
        """The most likely tokens after `prompt` for each clip of the groups `mels`, without the end token.

        `silence` and `places` are those of forward.encode.
        """
        on_device = [mel.to(self.device) for mel in mels]
        encoded = forward.encode(self.model, on_device, silence, self.layers, places)
        max_tokens = min(max_tokens, len(self.step.positions) - len(prompt))
        with torch.autocast(self.device.type, enabled=False):
            if self.device.type == "cuda":
                return self._captured_batch(encoded, prompt, max_tokens).run(encoded)
            cross_cache = GroupedCrossCache(self.step, encoded)
            return _Batch(self, cross_cache, encoded.layout.clip_count, prompt, max_tokens).run()

    def _captured_batch(self, encoded: Encoded, prompt: Sequence[int], max_tokens: int) -> _CapturedBatch:
        """The last one, if `encoded` fits into it, or a new one."""
        captured = self._captured
        if captured is None or not captured.fits(encoded.layout, prompt, max_tokens):
            self._captured = None  # its memory is needed for the next one
            captured = _CapturedBatch(self, encoded, prompt, max_tokens)
            self._captured = captured
        return captured


class _Batch:
    """Clips that are decoded together, and their tokens so far."""

    def __init__(
        self, decoder: Decoder, cross_cache: CrossCache, clips: int, prompt: Sequence[int], max_tokens: int
    ) -> None:
        self.decoder = decoder
        self.cross_cache = cross_cache
        self.prompt = list(prompt)
        self.max_tokens = max_tokens
        device = decoder.device
        self.self_cache = SelfCache(decoder.step, clips, len(prompt) + max_tokens, device)
        self.prompt_ids = torch.tensor(self.prompt, device=device)  # [tokens]
        self.ids = torch.empty(clips, dtype=torch.long, device=device)  # [clips], the last token of each
        self.position = torch.empty(1, dtype=torch.long, device=device)  # [1], of the last tokens
        length = len(prompt) + max_tokens + 1
        self.tokens = torch.empty(clips, length, dtype=torch.long, device=device)  # [clips, length]
        self.done = torch.empty(clips, dtype=torch.bool, device=device)  # [clips]
        self.start(clips)

    def start(self, clips: int) -> None:
        """Begins with the first `clips` rows anew; there are no clips in the others."""
        self.self_cache.restart()
        self.position.fill_(len(self.prompt) - 1)
        self.tokens.fill_(self.decoder.end)
        self.done.fill_(False)
        self.done[clips:] = True
        self.clip_indices = list(range(clips))  # into the hypotheses, by row of the batch
        self.hypotheses = [Hypothesis([], False)] * clips

    def run(self) -> list[Hypothesis]:
        """Token by token; finished clips leave the batch."""
        self.decode_prompt()
        for count in range(1, self.max_tokens):
            self._remove(self.finished(count), count)
            if not self.clip_indices:
                return self.hypotheses
            self.decode_next()
        self.collect([True] * len(self.clip_indices), self.max_tokens)
        return self.hypotheses

    def decode_prompt(self) -> None:
        """The prompt, in one pass, and the first token after it."""
        positions = torch.arange(len(self.prompt), device=self.decoder.device)
        ids = self.prompt_ids.expand(len(self.ids), -1)  # [clips, tokens]
        self._append(self.decoder.step(ids, positions, self.self_cache, self.cross_cache), self.decoder.first_bias)

    def decode_next(self) -> None:
        """One more token for each clip, on the device alone and in place."""
        ids = self.ids[:, None]  # [clips, 1]
        logits = self.decoder.step(ids, self.position, self.self_cache, self.cross_cache)
        self._append(logits, self.decoder.later_bias)

    def _append(self, logits: torch.Tensor, bias: torch.Tensor) -> None:
        """The likeliest tokens by `logits` [clips, vocabulary]; `bias` [vocabulary] suppresses tokens."""
        best = torch.where(self.done, self.decoder.end, (logits + bias).argmax(-1))  # [clips]
        self.position += 1
        self.tokens.index_copy_(1, self.position, best[:, None])
        self.done |= best == self.decoder.end
        self.ids.copy_(best)

    def _new_tokens(self, count: int) -> list[list[int]]:
        """The first `count` tokens after the prompt, by row."""
        tokens: list[list[int]] = self.tokens[:, len(self.prompt) : len(self.prompt) + count].tolist()
        return tokens

    def finished(self, count: int) -> list[bool]:
        """Rows that have ended or loop after `count` tokens."""
        finished: list[bool] = self.done.tolist()
        if count < LOOP_TOKENS:
            return finished
        return [done or loop_period(ids) > 0 for done, ids in zip(finished, self._new_tokens(count), strict=True)]

    def _remove(self, finished: Sequence[bool], count: int) -> None:
        """Collects what is finished and shrinks the batch, where that is worth a copy of the rest."""
        if sum(finished) < max(1, _SHRINK_AT * len(finished)):
            return
        self.collect(finished, count)
        assert isinstance(self.cross_cache, GroupedCrossCache)  # a captured batch keeps its size
        rows = [row for row, done in enumerate(finished) if not done]
        self.clip_indices = [self.clip_indices[row] for row in rows]
        if rows:
            remaining = torch.tensor(rows, device=self.decoder.device)
            self.ids = self.ids[remaining]
            self.tokens = self.tokens[remaining]
            self.done = self.done[remaining]
            self.self_cache.keep(remaining)
            self.cross_cache.keep(rows)

    def collect(self, finished: Sequence[bool], count: int) -> None:
        tokens = self._new_tokens(count)
        for row, done in enumerate(finished):
            if done:
                self.hypotheses[self.clip_indices[row]] = self._hypothesis(tokens[row])

    def _hypothesis(self, ids: list[int]) -> Hypothesis:
        """Up to the end token; a loop is continued to the limit, as the model would have."""
        if self.decoder.end in ids:
            ids = ids[: ids.index(self.decoder.end)]
        for length in range(LOOP_TOKENS, len(ids) + 1):
            period = loop_period(ids[:length])
            if period:
                phrase = ids[length - period : length]
                missing = self.max_tokens - length
                repeated = phrase * (missing // period + 1)
                return Hypothesis(ids[:length] + repeated[:missing], True)
        return Hypothesis(ids, False)


class _CapturedBatch:
    """A batch of one size, whose step from one token to the next is a CUDA graph; later batches may use both."""

    def __init__(self, decoder: Decoder, encoded: Encoded, prompt: Sequence[int], max_tokens: int) -> None:
        is_packed = encoded.layout.packed is not None
        self._cross_cache = (PackedCrossCache if is_packed else GroupedCrossCache)(decoder.step, encoded)
        self._batch = _Batch(decoder, self._cross_cache, encoded.layout.clip_count, prompt, max_tokens)
        self._graph: torch.cuda.CUDAGraph | None = None

    def fits(self, layout: Layout, prompt: Sequence[int], max_tokens: int) -> bool:
        """Whether clips of this layout can be decoded with the memory and the graph of this one."""
        if not isinstance(self._cross_cache, PackedCrossCache) or not self._cross_cache.fits(layout):
            return False
        return self._batch.prompt == list(prompt) and self._batch.max_tokens == max_tokens

    def run(self, encoded: Encoded) -> list[Hypothesis]:
        """The hypotheses of the clips of `encoded`."""
        self.prepare(encoded)
        batch = self._batch
        count = 1
        if self._graph is None and devices.uses_graphs(batch.decoder.device):
            self._graph = self._capture()
            count = 2
        decode_next = batch.decode_next if self._graph is None else self._graph.replay
        while count < batch.max_tokens and not all(batch.finished(count)):
            for _ in range(min(_CHECK_EVERY, batch.max_tokens - count)):
                decode_next()
            count = min(count + _CHECK_EVERY, batch.max_tokens)
        batch.collect([True] * len(batch.clip_indices), batch.max_tokens)
        return batch.hypotheses

    def prepare(self, encoded: Encoded) -> None:
        """Puts the clips in, and decodes the prompt and the first token."""
        if isinstance(self._cross_cache, PackedCrossCache):
            self._cross_cache.load(encoded)
        self._batch.start(encoded.layout.clip_count)
        self._batch.decode_prompt()

    def _capture(self) -> torch.cuda.CUDAGraph:
        """Decodes one token, and records the step to the next without running it."""
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # so that libraries do their first-call setup outside the graph
            self._batch.decode_next()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # Another thread may allocate memory meanwhile, as the one that prepares the next batch of a training does.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self._batch.decode_next()
        return graph


def loop_period(ids: Sequence[int]) -> int:
    """The length in tokens of the phrase that `ids` end in again and again; 0 where they do not."""
    for period in range(1, LOOP_PERIOD + 1):
        needed = max(LOOP_TOKENS, LOOP_TIMES * period)
        tail = ids[-needed:]
        if len(tail) >= needed and tail[period:] == tail[:-period]:
            return period
    return 0


def suppression(whisper: Whisper) -> tuple[torch.Tensor, torch.Tensor]:
    """What is added to the logits of the first token and of later ones [vocabulary]: minus infinity if suppressed."""
    settings = whisper.model.generation_config
    later = torch.zeros(whisper.model.config.vocab_size, device=whisper.model.device)
    later[_suppressed_ids(settings, "suppress_tokens", len(later))] = -torch.inf
    first = later.clone()
    first[_suppressed_ids(settings, "begin_suppress_tokens", len(later))] = -torch.inf
    return first, later


def _suppressed_ids(settings: GenerationConfig, name: str, vocabulary: int) -> list[int]:
    ids = getattr(settings, name, None) or []
    return [index for index in ids if 0 <= index < vocabulary]  # some checkpoints write -1 for none
