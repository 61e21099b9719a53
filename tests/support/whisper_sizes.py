"""Whispers with the vocabularies and mel bins of the published sizes, at toy widths: random, and quick to make."""

from __future__ import annotations

from dataclasses import dataclass

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
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from tmsearch.model.whisper import Whisper

WIDTH = 64  # of 2 heads


@dataclass(frozen=True)
class Size:
    """What differs between the published sizes, besides width and depth."""

    vocabulary: int
    languages: int
    n_mels: int
    alignment_heads: tuple[tuple[int, int], ...]  # (layer, head), for times of words
    layers: int = 1


SIZES = {
    "tiny.en": Size(51_864, 99, 80, ((0, 1),)),
    "tiny": Size(51_865, 99, 80, ((1, 0), (1, 1)), layers=2),
    "large-v3": Size(51_866, 100, 128, ((0, 0),)),
}


def whisper(name: str) -> Whisper:
    """A random Whisper with the vocabulary of the size `name`; words of more than a byte are fillers."""
    size = SIZES[name]
    is_multilingual = name != "tiny.en"
    end = 50_256 + is_multilingual
    languages = [f"<|{code}|>" for code in list(LANGUAGES)[: size.languages]]
    specials = ["<|endoftext|>", "<|startoftranscript|>", *languages, "<|translate|>", "<|transcribe|>"]
    specials += ["<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]
    tokenizer = _tokenizer(specials, end)
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(_config(size, end))
    task = specials.index("<|translate|>") + end
    known = {"lang_to_id": {token: end + 2 + index for index, token in enumerate(languages)}}
    model.generation_config = GenerationConfig(
        eos_token_id=end,
        pad_token_id=end,
        decoder_start_token_id=end + 1,
        max_length=448,
        is_multilingual=is_multilingual,
        no_timestamps_token_id=end + len(specials) - 1,
        suppress_tokens=[1, 2, 7, end + 1, task, task + 1],
        begin_suppress_tokens=[220, end],
        alignment_heads=[list(pair) for pair in size.alignment_heads],
        **(known if is_multilingual else {}),
    )
    model.train(False)
    return Whisper(model, tokenizer, WhisperFeatureExtractor(feature_size=size.n_mels), name, is_multilingual, 1500)


def _tokenizer(specials: list[str], end: int) -> WhisperTokenizer:
    """A token a byte, fillers up to `end`, the last of them empty in a multilingual vocabulary, then `specials`."""
    words = sorted(bytes_to_unicode().values())
    words += [f"filler{index}" for index in range(len(words), end)]
    if end > 50_256:
        words[-1] = ""
    tokenizer = WhisperTokenizer(vocab={word: index for index, word in enumerate(words)}, merges=[])
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=True) for token in specials])
    return tokenizer


def _config(size: Size, end: int) -> WhisperConfig:
    return WhisperConfig(
        vocab_size=size.vocabulary,
        num_mel_bins=size.n_mels,
        d_model=WIDTH,
        encoder_layers=size.layers,
        decoder_layers=size.layers,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=4 * WIDTH,
        decoder_ffn_dim=4 * WIDTH,
        decoder_start_token_id=end + 1,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
        init_std=0.2,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
