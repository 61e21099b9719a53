"""A dataset and a Whisper that need no file and no audio library: clips of given lengths, random weights.

All that train() asks of either is here; a machine with torch and transformers alone can time it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration

from tmsearch.config import TrainConfig
from tmsearch.data.corpus import Clip, Corpus
from tmsearch.data.splits import Split
from tmsearch.features.dataset import Speech
from tmsearch.features.log_mel import LogMels
from tmsearch.model.whisper import ModelInfo, Whisper

TOKENS = 40  # labels of a clip, and tokens of a hypothesis
MIX = (2.0, 11.0, 4.5)  # seconds: shortest, longest and most frequent of the mixed clips, 5.8 on average
FRAMES_PER_SECOND = 100
POSITIONS = 1500  # of every Whisper's encoder
SPECIALS = ("<|startoftranscript|>", "<|endoftext|>", "<|notimestamps|>", "<|en|>", "<|transcribe|>")
_START, _END = 1, 2  # ids of the first two


@dataclass(frozen=True)
class Shapes:
    """A Whisper's dimensions."""

    d_model: int
    layers: int  # of encoder and decoder each
    heads: int
    n_mels: int
    vocabulary: int


LARGE_V3 = Shapes(1280, 32, 20, 128, 51_866)
TOY = Shapes(64, 2, 2, 80, 600)


class MadeTokens:
    """All that is asked of a tokenizer: five special tokens, and a text for every id."""

    def convert_tokens_to_ids(self, token: str) -> int:
        return 1 + SPECIALS.index(token) if token in SPECIALS else _END

    def convert_ids_to_tokens(self, index: int) -> str:
        return SPECIALS[index - 1]

    def decode(self, ids: Sequence[int], skip_special_tokens: bool) -> str:
        return " ".join(map(str, ids))


@dataclass(frozen=True)
class MadeSpeech(Speech):
    """Clips with random log-mels [n_mels, frames] and TOKENS random labels each."""

    shapes: Shapes = TOY

    def mels(self, names: Sequence[str], whisper: Whisper, config: TrainConfig) -> LogMels:
        noise = torch.Generator().manual_seed(1)
        trimmed = {}
        for clip in self.clips(names):
            frames = round(FRAMES_PER_SECOND * clip.seconds)
            trimmed[clip.name] = torch.randn(self.shapes.n_mels, frames, generator=noise)
        return LogMels(trimmed, dict.fromkeys(trimmed, -1.0), whisper.extractor)

    def kept_mels(self, names: Sequence[str], whisper: Whisper, config: TrainConfig, device: torch.device) -> LogMels:
        key = (" ".join(names), device)
        if key not in self.kept:
            self.kept[key] = self.mels(names, whisper, config).to(device)
        return self.kept[key]

    def label_ids(self, names: Sequence[str], whisper: Whisper) -> dict[str, list[int]]:
        rng = random.Random(2)
        first = 1 + len(SPECIALS)
        return {name: [*rng.choices(range(first, self.shapes.vocabulary), k=TOKENS - 1), _END] for name in names}


def clip_seconds(seconds: str, clips: int, seed: int) -> list[float]:
    """Lengths of clips: `mix`, or a number for all of them."""
    if seconds != "mix":
        return [float(seconds)] * clips
    rng = random.Random(seed)
    return [round(rng.triangular(*MIX), 2) for _ in range(clips)]


def made_speech(shapes: Shapes, train: Sequence[float], validation: Sequence[float]) -> MadeSpeech:
    """Clips of these lengths in seconds, to train on and to score."""
    names = [f"clip{index:04d}" for index in range(len(train) + len(validation))]
    clips = []
    for name, seconds in zip(names, (*train, *validation), strict=True):
        clips.append(Clip(name, "made", seconds, ()))
    split = Split(train=tuple(names[: len(train)]), validation=tuple(names[len(train) :]), test=())
    corpus = Corpus(tuple(clips), (), "made")
    return MadeSpeech(corpus, split, "en", "transcribe", Path(), shapes=shapes)


def made_model(
    shapes: Shapes, device: torch.device, dtype: torch.dtype = torch.float32
) -> WhisperForConditionalGeneration:
    """Random weights, made where they are used."""
    settings = WhisperConfig(
        vocab_size=shapes.vocabulary,
        num_mel_bins=shapes.n_mels,
        d_model=shapes.d_model,
        encoder_layers=shapes.layers,
        decoder_layers=shapes.layers,
        encoder_attention_heads=shapes.heads,
        decoder_attention_heads=shapes.heads,
        encoder_ffn_dim=4 * shapes.d_model,
        decoder_ffn_dim=4 * shapes.d_model,
        decoder_start_token_id=_START,
        bos_token_id=_END,
        eos_token_id=_END,
        pad_token_id=_END,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    torch.manual_seed(0)
    with device:
        model = WhisperForConditionalGeneration._from_config(settings, attn_implementation="sdpa", dtype=dtype)
    model.generation_config = GenerationConfig(
        bos_token_id=_END,
        eos_token_id=_END,
        pad_token_id=_END,
        decoder_start_token_id=_START,
        max_length=448,
        is_multilingual=True,
        no_timestamps_token_id=3,
        return_timestamps=False,
        suppress_tokens=[_END],  # so that every hypothesis has all of its tokens
    )
    return model


def made_whisper(model: WhisperForConditionalGeneration, shapes: Shapes) -> Whisper:
    """The model with what stands in for its tokenizer and its feature extractor."""
    extractor = SimpleNamespace(feature_size=shapes.n_mels, nb_max_frames=2 * POSITIONS)
    return Whisper(model, cast(Any, MadeTokens()), cast(Any, extractor), "made", True, POSITIONS)


def made_info(shapes: Shapes) -> ModelInfo:
    """What config.json would say of it."""
    outline = made_model(shapes, torch.device("meta"))
    return ModelInfo(
        name="made",
        parameters=sum(weight.numel() for weight in outline.parameters()),
        d_model=shapes.d_model,
        layers=2 * shapes.layers,
        context_seconds=30.0,
        n_mels=shapes.n_mels,
        is_multilingual=True,
        encoder_layers=shapes.layers,
        decoder_layers=shapes.layers,
        encoder_ffn_dim=4 * shapes.d_model,
        decoder_ffn_dim=4 * shapes.d_model,
        vocab_size=shapes.vocabulary,
        max_target_positions=448,
    )
