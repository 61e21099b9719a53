"""Pre-trains a small Whisper on clean speech: cross-entropy of Whisper's labels, and CTC of the encoder beside it.

Dimension words in shape comments: clips, tokens, positions (encoder, 20 ms), vocabulary.
"""

from __future__ import annotations

import math
import random
import string
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jiwer
import numpy as np
import torch
from torch import nn
from transformers import WhisperForConditionalGeneration, WhisperTokenizer

from tmsearch.demo.speech import SAMPLE_RATE, Samples
from tmsearch.demo.stock import POSITIONS, Size, feature_extractor, random_model, token_id


@dataclass(frozen=True)
class PretrainingRecipe:
    """How a model of one size is pre-trained: AdamW, linear warmup, half a cosine down to zero."""

    size: Size
    steps: int
    batch_size: int = 32
    learning_rate: float = 1.5e-3  # at its peak
    warmup_steps: int = 100
    ctc_weight: float = 0.3  # share of the loss; teaches the encoder where the words are, then is discarded
    seed: int = 0


MICRO = PretrainingRecipe(Size(d_model=128, heads=4, encoder_layers=3, decoder_layers=2), steps=1400)
NANO = PretrainingRecipe(Size(d_model=80, heads=4, encoder_layers=2, decoder_layers=1), steps=2000, learning_rate=2e-3)


@dataclass(frozen=True)
class Examples:
    """Clean speech with its texts."""

    mels: torch.Tensor  # [clips, 80, 2 * POSITIONS], float16
    texts: tuple[str, ...]


def examples(waves: Sequence[Samples], texts: Sequence[str]) -> Examples:
    """The log-mels of `waves`, each [samples], beside their texts."""
    extractor = feature_extractor()
    mels = np.empty((len(waves), 80, 2 * POSITIONS), np.float16)  # [clips, n_mels, frames]
    for first in range(0, len(waves), 64):
        features = extractor(list(waves[first : first + 64]), sampling_rate=SAMPLE_RATE, return_tensors="np")
        mels[first : first + 64] = features["input_features"]
    return Examples(torch.from_numpy(mels), tuple(texts))


def _padded(rows: Sequence[list[int]], fill: int) -> torch.Tensor:
    """[clips, tokens]"""
    return nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=fill)


class _Loss:
    """Cross-entropy of the decoder and CTC of the encoder on one batch."""

    def __init__(
        self, model: WhisperForConditionalGeneration, tokenizer: WhisperTokenizer, recipe: PretrainingRecipe
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.ctc_weight = recipe.ctc_weight
        self.start = token_id(tokenizer, "<|startoftranscript|>")
        self.end = token_id(tokenizer, "<|endoftext|>")
        self.prompt = [token_id(tokenizer, token) for token in ("<|en|>", "<|transcribe|>", "<|notimestamps|>")]
        self.ctc = nn.Linear(recipe.size.d_model, self.end + 1)  # <|endoftext|>, the id after the words, is its blank

    def __call__(self, mels: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
        words = [self.tokenizer(f" {text}", add_special_tokens=False)["input_ids"] for text in texts]
        rows = [[*self.prompt, *row, self.end] for row in words]
        labels = _padded(rows, -100)
        inputs = _padded([[self.start, *row[:-1]] for row in rows], self.end)
        with torch.autocast("cpu", torch.bfloat16):
            out = self.model(input_features=mels, decoder_input_ids=inputs, use_cache=False)
            ctc_logits = self.ctc(out.encoder_last_hidden_state).float()  # [clips, positions, words and blank]
        log_shares = ctc_logits.log_softmax(-1).transpose(0, 1)  # [positions, clips, words and blank]
        logits = out.logits.float().flatten(0, 1)  # [clips * tokens, vocabulary]
        loss = nn.functional.cross_entropy(logits, labels.flatten(), ignore_index=-100)
        positions = torch.full((len(texts),), POSITIONS)
        lengths = torch.tensor([len(row) for row in words])
        ctc = nn.functional.ctc_loss(log_shares, _padded(words, 0), positions, lengths, self.end, zero_infinity=True)
        return (1 - self.ctc_weight) * loss + self.ctc_weight * ctc


def _learning_rate(step: int, recipe: PretrainingRecipe) -> float:
    if step < recipe.warmup_steps:
        return recipe.learning_rate * step / recipe.warmup_steps
    share = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * share))


def pretrain(
    recipe: PretrainingRecipe, tokenizer: WhisperTokenizer, clean: Examples, report: Callable[[str], None]
) -> WhisperForConditionalGeneration:
    """Pre-trains the recipe's model on `clean`; `report` gets a line every 50 steps."""
    model = random_model(recipe.size, tokenizer, recipe.seed)
    loss_of = _Loss(model, tokenizer, recipe)
    weights = [weight for weight in [*model.parameters(), *loss_of.ctc.parameters()] if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=0.0, betas=(0.9, 0.98), weight_decay=0.01)
    rng = random.Random(recipe.seed)
    order: list[int] = []
    model.train()
    started = time.monotonic()
    for step in range(1, recipe.steps + 1):
        while len(order) < recipe.batch_size:
            order.extend(rng.sample(range(len(clean.texts)), len(clean.texts)))
        batch = order[: recipe.batch_size]
        order = order[recipe.batch_size :]
        for group in optimizer.param_groups:
            group["lr"] = _learning_rate(step, recipe)
        loss = loss_of(clean.mels[batch].float(), [clean.texts[index] for index in batch])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        if step % 50 == 0:
            report(f"step {step}/{recipe.steps} loss {loss.item():.3f} {time.monotonic() - started:.0f} s")
    model.train(False)
    return model


def transcripts(model: WhisperForConditionalGeneration, tokenizer: WhisperTokenizer, clips: Examples) -> list[str]:
    """The model's hypothesis for each clip, by greedy decoding."""
    hypotheses: list[str] = []
    for first in range(0, len(clips.texts), 32):
        mels = clips.mels[first : first + 32].float()
        mask = torch.ones(mels.shape[0], mels.shape[2], dtype=torch.long)  # [clips, frames]
        ids = model.generate(mels, attention_mask=mask, language="en", task="transcribe")
        hypotheses += tokenizer.batch_decode(ids, skip_special_tokens=True)
    return hypotheses


def word_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Of lower-cased words without punctuation: a check on pre-training, not the project's `wer`."""
    return float(jiwer.wer([_words(text) for text in references], [_words(text) for text in hypotheses]))


def _words(text: str) -> str:
    return text.lower().translate(str.maketrans("", "", string.punctuation))
