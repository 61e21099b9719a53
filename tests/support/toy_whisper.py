"""A random tiny Whisper and a corpus of hums, written to a test's folder: the real classes, untrained."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import AddedToken
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)
from transformers.convert_slow_tokenizer import bytes_to_unicode

from tests.support.audio_files import RecordedClip, write_recordings
from tmsearch.config import DataConfig, TrainConfig
from tmsearch.data import corpus as clips
from tmsearch.data.splits import Split
from tmsearch.features.dataset import Speech
from tmsearch.training.train import Stretch

SECONDS = 2  # context of the toy's encoder
SPECIALS = (
    "<|endoftext|>",
    "<|startoftranscript|>",
    "<|en|>",
    "<|de|>",
    "<|translate|>",
    "<|transcribe|>",
    "<|startofprev|>",
    "<|notimestamps|>",
)


@dataclass(frozen=True)
class Shape:
    """The dimensions of a toy model."""

    d_model: int = 16
    encoder_layers: int = 2
    decoder_layers: int = 2
    heads: int = 2
    ffn: int = 32
    n_mels: int = 80
    targets: int = 64


def tokenizer(specials: tuple[str, ...] = SPECIALS, filled_to: int = 256) -> WhisperTokenizer:
    """A token a byte, fillers up to `filled_to`, then `specials`."""
    letters = sorted(bytes_to_unicode().values())
    vocabulary = {letter: index for index, letter in enumerate(letters)}
    vocabulary |= {f"filler{index}": index for index in range(len(letters), filled_to)}
    toy = WhisperTokenizer(vocab=vocabulary, merges=[], model_max_length=64)
    toy.add_tokens([AddedToken(token, normalized=False, special=True) for token in specials])
    return toy


def whisper_folder(
    folder: Path, shape: Shape = Shape(), *, multilingual: bool = True, old_style: bool = False, seed: int = 0
) -> Path:
    """Saves a random Whisper in `folder`. `old_style` puts generation settings where checkpoints of 2022 have them."""
    words = tokenizer()
    ids = words.convert_tokens_to_ids
    end = ids("<|endoftext|>")
    start = ids("<|startoftranscript|>")
    settings = WhisperConfig(
        vocab_size=len(words),
        d_model=shape.d_model,
        encoder_layers=shape.encoder_layers,
        decoder_layers=shape.decoder_layers,
        encoder_attention_heads=shape.heads,
        decoder_attention_heads=shape.heads,
        encoder_ffn_dim=shape.ffn,
        decoder_ffn_dim=shape.ffn,
        num_mel_bins=shape.n_mels,
        max_source_positions=50 * SECONDS,
        max_target_positions=shape.targets,
        decoder_start_token_id=start,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        suppress_tokens=None,
        begin_suppress_tokens=None,
        init_std=0.3,  # wide, so that a random model's output depends on its input
        apply_spec_augment=True,
    )
    torch.manual_seed(seed)
    model = WhisperForConditionalGeneration(settings)
    languages = {"lang_to_id": {f"<|{code}|>": ids(f"<|{code}|>") for code in ("en", "de")}}
    tasks = {"task_to_id": {task: ids(f"<|{task}|>") for task in ("transcribe", "translate")}}
    model.generation_config = GenerationConfig(
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        decoder_start_token_id=start,
        max_length=shape.targets,
        is_multilingual=multilingual,
        no_timestamps_token_id=ids("<|notimestamps|>"),
        return_timestamps=False,
        suppress_tokens=[1, 2, 7, start, *(ids(token) for token in SPECIALS[2:])],
        begin_suppress_tokens=[ids("Ġ"), end],
        **(languages | tasks if multilingual else {}),
    )
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=shape.n_mels, chunk_length=SECONDS).save_pretrained(folder)
    if old_style:
        _age(folder, ids("<|transcribe|>"))
    return folder


def _age(folder: Path, task: int) -> None:
    """Adds what openai's first uploads have: the language is to be detected, in both files."""
    for name in ("config.json", "generation_config.json"):
        content = json.loads((folder / name).read_text())
        content["forced_decoder_ids"] = [[1, None], [2, task]]
        content["max_length"] = 64
        (folder / name).write_text(json.dumps(content))


TEXTS = (
    "Alpha one, over.",
    "Bravo two",
    "move to the gate",
    "hold",
    "Copy that, moving now!",
    "say again",
    "Delta four is late",
    "all clear",
    "stand by",
    "negative, wait",
    "Echo five",
    "two men at the wall",
)


def corpus_folder(folder: Path, texts: tuple[str, ...] = TEXTS, seconds: float | None = None) -> Path:
    """Saves a hum for each text, 16 kHz, between 0.4 and 1.6 s long, with metadata.csv."""
    noise = np.random.default_rng(0)
    recorded = []
    for index, text in enumerate(texts):
        length = seconds or 0.4 + 0.1 * (index % 13)
        time = np.arange(round(16_000 * length)) / 16_000  # [positions]
        hum = 0.2 * np.sin(2 * np.pi * (120 + 60 * index) * time) + 0.01 * noise.standard_normal(len(time))
        recorded.append(RecordedClip(f"{index:03d}.flac", text, hum.astype(np.float32)))
    return write_recordings(folder, recorded)


def speech(folder: Path, cache: Path, *, validation: int = 4, language: str = "en") -> Speech:
    """The corpus in `folder`, its last `validation` clips held out."""
    corpus = clips.load(DataConfig(dataset=str(folder), language=language))
    names = tuple(clip.name for clip in corpus.clips)
    cut = len(names) - validation
    return Speech(corpus, Split(train=names[:cut], validation=names[cut:], test=()), language, "transcribe", cache)


def config(model: Path | str, **knobs: object) -> TrainConfig:
    """A quick recipe for a toy."""
    defaults = {"model": str(model), "max_steps": 8, "batch_size": 4, "learning_rate": 1e-2, "warmup_steps": 2}
    return TrainConfig(**{**defaults, **knobs})  # type: ignore[arg-type]


def stretch(save_to: Path, last_step: int, **fields: object) -> Stretch:
    """A segment from the start to `last_step`, unless `fields` change it."""
    defaults = {"first_step": 0, "threads": 1, "micro_batch": 4, "checkpoint": None}
    return Stretch(last_step=last_step, save_to=save_to, **{**defaults, **fields})  # type: ignore[arg-type]
