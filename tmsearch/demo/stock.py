"""An untrained small Whisper in the stock layout: tokenizer, feature extractor, generation settings, folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)

CONTEXT = 4  # seconds
POSITIONS = 50 * CONTEXT  # the encoder's, 20 ms each
TARGETS = 96  # the decoder's positions
WORDS = 640  # ids of text; special tokens follow, as in every Whisper
LANGUAGES = ("en", "zh", "de", "es", "ru", "ko", "fr", "ja")  # the stock checkpoints' first ones, in their order
SPECIALS = (
    "<|endoftext|>",
    "<|startoftranscript|>",
    *(f"<|{language}|>" for language in LANGUAGES),
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
)
# Symbols that are not spoken, after openai/whisper's tokenizer.non_speech_tokens.
_SYMBOLS = frozenset('"#()*+/:;<=>@[\\]^_`{|}~')


@dataclass(frozen=True)
class Size:
    """The dimensions in which the models differ."""

    d_model: int
    heads: int
    encoder_layers: int
    decoder_layers: int


def train_tokenizer(texts: Sequence[str]) -> WhisperTokenizer:
    """The stock class around a byte-level BPE of WORDS ids trained on `texts`, with a multilingual's specials.

    A text starts with a space, as in OpenAI's pre-training, so that a word has the same ids wherever it stands.
    """
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=WORDS, min_frequency=2, show_progress=False, initial_alphabet=alphabet, special_tokens=[]
    )
    bpe.train_from_iterator((f" {text}" for text in texts), trainer)
    model = json.loads(bpe.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    tokenizer = WhisperTokenizer(vocab=model["vocab"], merges=merges, pad_token=SPECIALS[0], model_max_length=TARGETS)
    # <|endoftext|> exists already, as the first. Being special, they are skipped where a text is decoded.
    tokenizer.add_special_tokens({"extra_special_tokens": list(SPECIALS[1:])})
    times = [f"<|{0.02 * index:.2f}|>" for index in range(POSITIONS + 1)]
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in times])
    tokenizer.set_prefix_tokens()
    return tokenizer


def token_id(tokenizer: WhisperTokenizer, token: str) -> int:
    """The id of a token in the vocabulary."""
    index = tokenizer.convert_tokens_to_ids(token)
    assert isinstance(index, int)
    return index


def _suppressed(tokenizer: WhisperTokenizer) -> list[int]:
    """Ids that generation never outputs: lone symbols and the specials, as in the stock checkpoints."""
    suppressed = []
    for token, index in tokenizer.get_vocab().items():
        word = token.removeprefix("Ġ")
        if index < WORDS and word and _SYMBOLS.issuperset(word):
            suppressed.append(index)
    for name in ("startoftranscript", "translate", "transcribe", "startoflm", "startofprev", "nospeech"):
        suppressed.append(token_id(tokenizer, f"<|{name}|>"))
    return sorted(suppressed)


def generation_config(size: Size, tokenizer: WhisperTokenizer) -> GenerationConfig:
    """The settings of a multilingual checkpoint for `generate`."""
    ids = {token: token_id(tokenizer, token) for token in (*SPECIALS, "Ġ")}
    settings = {
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|endoftext|>"],
        "pad_token_id": ids["<|endoftext|>"],
        "decoder_start_token_id": ids["<|startoftranscript|>"],
        "max_length": TARGETS,
        "max_initial_timestamp_index": 50,
        # Stock checkpoints without known alignment heads use all of the last layers'.
        "alignment_heads": [[size.decoder_layers - 1, head] for head in range(size.heads)],
        "is_multilingual": True,
        "lang_to_id": {f"<|{language}|>": ids[f"<|{language}|>"] for language in LANGUAGES},
        "task_to_id": {task: ids[f"<|{task}|>"] for task in ("transcribe", "translate")},
        "no_timestamps_token_id": ids["<|notimestamps|>"],
        "prev_sot_token_id": ids["<|startofprev|>"],
        "return_timestamps": False,
        "suppress_tokens": _suppressed(tokenizer),
        # As the stock checkpoints have it. Two of the grammar's words, Echo and Papa, start with a lone space in this
        # small vocabulary, so they are never decoded as a text's first word, which they are in 3 of 200 clips.
        "begin_suppress_tokens": [ids["Ġ"], ids["<|endoftext|>"]],
    }
    return GenerationConfig.from_dict(settings)


def feature_extractor() -> WhisperFeatureExtractor:
    """The stock 80 log-mels, padded to CONTEXT seconds where the stock checkpoints pad to 30."""
    extractor = WhisperFeatureExtractor.from_dict({"feature_size": 80, "chunk_length": CONTEXT})
    assert isinstance(extractor, WhisperFeatureExtractor)
    return extractor


def random_model(size: Size, tokenizer: WhisperTokenizer, seed: int) -> WhisperForConditionalGeneration:
    """A Whisper of this size with random weights."""
    generation = generation_config(size, tokenizer)
    torch.manual_seed(seed)
    config = WhisperConfig(
        vocab_size=len(tokenizer),
        num_mel_bins=80,
        d_model=size.d_model,
        encoder_layers=size.encoder_layers,
        decoder_layers=size.decoder_layers,
        encoder_attention_heads=size.heads,
        decoder_attention_heads=size.heads,
        encoder_ffn_dim=4 * size.d_model,
        decoder_ffn_dim=4 * size.d_model,
        max_source_positions=POSITIONS,
        max_target_positions=TARGETS,
        decoder_start_token_id=generation.decoder_start_token_id,
        bos_token_id=generation.bos_token_id,
        eos_token_id=generation.eos_token_id,
        pad_token_id=generation.pad_token_id,
    )
    model = WhisperForConditionalGeneration(config)
    model.generation_config = generation
    return model


def save(model: WhisperForConditionalGeneration, tokenizer: WhisperTokenizer, folder: Path) -> None:
    """Writes the folder; the weights are float16, as most published checkpoints have them."""
    torch.nn.Module.half(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    feature_extractor().save_pretrained(folder)
    for file in folder.iterdir():
        file.chmod(0o644)  # safetensors files are readable by their owner alone
