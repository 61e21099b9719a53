"""Pre-training of a small Whisper on clean speech: labels as Whisper's own, and CTC beside them."""

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
from tmsearch.demo.stock import POSITIONS, Size, extractor_of, model_of, token_id


@dataclass(frozen=True)
class PretrainingRecipe:
    """How a model of one size is pre-trained: AdamW, linear warmup, half a cosine down to zero."""

    size: Size
    steps: int
    batch_size: int = 32
    learning_rate: float = 1.5e-3  # at its peak
    warmup_steps: int = 100
    ctc_weight: float = 0.3  # share of the loss; CTC teaches the encoder where the words are, then is thrown away
    seed: int = 0


MICRO = PretrainingRecipe(Size(d_model=128, heads=4, encoder_layers=3, decoder_layers=2), steps=1400)
NANO = PretrainingRecipe(Size(d_model=80, heads=4, encoder_layers=2, decoder_layers=1), steps=2000, learning_rate=2e-3)


@dataclass(frozen=True)
class Examples:
    """Clean speech, ready to learn from."""

    mels: torch.Tensor  # [clips, 80, 2 * POSITIONS], float16
    texts: tuple[str, ...]


def examples(waves: Sequence[Samples], texts: Sequence[str]) -> Examples:
    """The log-mels of `waves` beside what is said in them."""
    extractor = extractor_of()
    mels = np.empty((len(waves), 80, 2 * POSITIONS), np.float16)
    for first in range(0, len(waves), 64):
        some = list(waves[first : first + 64])
        mels[first : first + 64] = extractor(some, sampling_rate=SAMPLE_RATE, return_tensors="np")["input_features"]
    return Examples(torch.from_numpy(mels), tuple(texts))


def _padded(rows: Sequence[list[int]], fill: int) -> torch.Tensor:
    return nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=fill)


class _Loss:
    """Cross-entropy of the decoder and CTC of the encoder on one batch."""

    def __init__(
        self, model: WhisperForConditionalGeneration, tokenizer: WhisperTokenizer, recipe: PretrainingRecipe
    ) -> None:
        self.model, self.tokenizer, self.ctc_weight = model, tokenizer, recipe.ctc_weight
        self.start = token_id(tokenizer, "<|startoftranscript|>")
        self.stop = token_id(tokenizer, "<|endoftext|>")
        self.prompt = [token_id(tokenizer, token) for token in ("<|en|>", "<|transcribe|>", "<|notimestamps|>")]
        self.ctc = nn.Linear(recipe.size.d_model, self.stop + 1)  # <|endoftext|>, the id after the words, is its blank

    def __call__(self, mels: torch.Tensor, texts: Sequence[str]) -> torch.Tensor:
        words = [self.tokenizer(f" {text}", add_special_tokens=False)["input_ids"] for text in texts]
        rows = [[*self.prompt, *row, self.stop] for row in words]
        labels = _padded(rows, -100)
        inputs = _padded([[self.start, *row[:-1]] for row in rows], self.stop)
        with torch.autocast("cpu", torch.bfloat16):
            out = self.model(input_features=mels, decoder_input_ids=inputs, use_cache=False)
            frames = self.ctc(out.encoder_last_hidden_state).float().log_softmax(-1).transpose(0, 1)
        logits = out.logits.float().flatten(0, 1)
        loss = nn.functional.cross_entropy(logits, labels.flatten(), ignore_index=-100)
        heard = torch.full((len(texts),), POSITIONS)
        lengths = torch.tensor([len(row) for row in words])
        aligned = nn.functional.ctc_loss(frames, _padded(words, 0), heard, lengths, self.stop, zero_infinity=True)
        return (1 - self.ctc_weight) * loss + self.ctc_weight * aligned


def _rate(step: int, recipe: PretrainingRecipe) -> float:
    if step < recipe.warmup_steps:
        return recipe.learning_rate * step / recipe.warmup_steps
    share = (step - recipe.warmup_steps) / max(1, recipe.steps - recipe.warmup_steps)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * share))


def pretrain(
    recipe: PretrainingRecipe, tokenizer: WhisperTokenizer, clean: Examples, report: Callable[[str], None]
) -> WhisperForConditionalGeneration:
    """The recipe's model after its steps on `clean`; `report` gets a line every 50 steps."""
    model = model_of(recipe.size, tokenizer, recipe.seed)
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
        batch, order = order[: recipe.batch_size], order[recipe.batch_size :]
        for group in optimizer.param_groups:
            group["lr"] = _rate(step, recipe)
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
    """What the model hears in each clip, greedily."""
    heard: list[str] = []
    for first in range(0, len(clips.texts), 32):
        mels = clips.mels[first : first + 32].float()
        whole = torch.ones(mels.shape[0], mels.shape[2], dtype=torch.long)
        ids = model.generate(mels, attention_mask=whole, language="en", task="transcribe")
        heard += tokenizer.batch_decode(ids, skip_special_tokens=True)
    return heard


def word_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Of lower-cased words without punctuation: a check on the making, not the project's `wer`."""
    drop = str.maketrans("", "", string.punctuation)
    spoken, heard = ([text.lower().translate(drop) for text in texts] for texts in (references, hypotheses))
    return float(jiwer.wer(spoken, heard))
