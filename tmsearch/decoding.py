"""Batched greedy decoding with a key-value cache; the same tokens as transformers' generate."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from transformers import DynamicCache, EncoderDecoderCache

from tmsearch.labels import special_id
from tmsearch.model import Whisper

# Finished clips leave the batch once so large a share of it is done; copying the cache for each would cost more.
_SHRINK_AT = 0.25


def transcribe(whisper: Whisper, batches: Iterable[torch.Tensor], prompt: Sequence[int], max_tokens: int) -> list[str]:
    """The text heard in each clip of `batches`, each [clips, n_mels, frames], in order.

    `prompt` is what the decoder starts from; `max_tokens` bounds what it may add, within its positions.
    """
    heard: list[str] = []
    for mels in batches:
        for ids in greedy_ids(whisper, mels, prompt, max_tokens):
            heard.append(str(whisper.tokenizer.decode(ids, skip_special_tokens=True)).strip())
    return heard


@torch.no_grad()
def greedy_ids(whisper: Whisper, mels: torch.Tensor, prompt: Sequence[int], max_tokens: int) -> list[list[int]]:
    """The most likely token ids behind `prompt` for each clip of `mels` [clips, n_mels, frames], end token left out.

    The model must be in evaluation mode. Runs within the caller's autocast.
    """
    model, settings = whisper.model, whisper.model.config
    max_tokens = min(max_tokens, settings.max_target_positions - len(prompt))
    stop = special_id(whisper, "<|endoftext|>")
    at_start, later = _suppressed(whisper)
    encoded = model.model.encoder(mels.to(model.device)).last_hidden_state
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    count = len(mels)
    chosen = torch.full((count, max_tokens), stop, device=model.device)
    alive = torch.arange(count, device=model.device)  # rows of `chosen` that the batch still holds
    going = torch.ones(count, dtype=torch.bool, device=model.device)  # of the rows in `alive`
    ids = torch.tensor(prompt, device=model.device).repeat(count, 1)
    for place in range(max_tokens):
        hidden = model.model.decoder(
            input_ids=ids, encoder_hidden_states=encoded, past_key_values=cache, use_cache=True
        ).last_hidden_state[:, -1]
        logits = model.proj_out(hidden).float() + (at_start if place == 0 else later)
        best = torch.where(going, logits.argmax(-1), stop)
        chosen[alive, place] = best
        going = best != stop
        left = int(going.sum())
        if left == 0:
            break
        if left <= (1 - _SHRINK_AT) * len(alive):
            kept = going.nonzero().flatten()
            cache.batch_select_indices(kept)
            encoded, alive, going, best = encoded[kept], alive[kept], going[kept], best[kept]
        ids = best[:, None]
    return [row[: row.index(stop)] if stop in row else row for row in chosen.tolist()]


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
