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
LANGUAGES = ("en", "zh", "de", "es", "ru", "ko", "fr", "ja")  # the stock checkpoints' first, in their order
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
# Symbols that nobody speaks, after openai/whisper's tokenizer.non_speech_tokens.
_SYMBOLS = frozenset('"#()*+/:;<=>@[\\]^_`{|}~')


@dataclass(frozen=True)
class Size:
    """What sets one model apart from another."""

    d_model: int
    heads: int
    encoder_layers: int
    decoder_layers: int


def tokenizer_of(texts: Sequence[str]) -> WhisperTokenizer:
    """The stock class around a byte-level BPE of WORDS ids learnt from `texts`, with a multilingual's specials.

    A text begins with a space, as in OpenAI's pre-training, so that a word has one id wherever it stands.
    """
    learnt = Tokenizer(models.BPE())
    learnt.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    learnt.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=WORDS, min_frequency=2, show_progress=False, initial_alphabet=alphabet, special_tokens=[]
    )
    learnt.train_from_iterator((f" {text}" for text in texts), trainer)
    model = json.loads(learnt.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    tokenizer = WhisperTokenizer(vocab=model["vocab"], merges=merges, pad_token=SPECIALS[0], model_max_length=TARGETS)
    # <|endoftext|> is there already, as the first. Named as special, they are skipped where a text is decoded.
    tokenizer.add_special_tokens({"extra_special_tokens": list(SPECIALS[1:])})
    stamps = [f"<|{0.02 * index:.2f}|>" for index in range(POSITIONS + 1)]
    tokenizer.add_tokens([AddedToken(stamp, normalized=False, special=False) for stamp in stamps])
    tokenizer.set_prefix_tokens()
    return tokenizer


def token_id(tokenizer: WhisperTokenizer, token: str) -> int:
    """The id of one token that the vocabulary holds."""
    found = tokenizer.convert_tokens_to_ids(token)
    assert isinstance(found, int)
    return found


def _suppressed(tokenizer: WhisperTokenizer) -> list[int]:
    """Ids that generation never says: lone symbols and the specials, as in the stock checkpoints."""
    words = [(token.removeprefix("Ġ"), index) for token, index in tokenizer.get_vocab().items() if index < WORDS]
    symbols = [index for word, index in words if word and _SYMBOLS.issuperset(word)]
    unsaid = ("startoftranscript", "translate", "transcribe", "startoflm", "startofprev", "nospeech")
    return sorted(symbols + [token_id(tokenizer, f"<|{name}|>") for name in unsaid])


def generation_of(size: Size, tokenizer: WhisperTokenizer) -> GenerationConfig:
    """What `generate` needs to know of a multilingual checkpoint."""
    ids = {token: token_id(tokenizer, token) for token in (*SPECIALS, "Ġ")}
    told = {
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
        # As the stock checkpoints have it. Two of the grammar's words, Echo and Papa, begin with a lone space in this
        # small vocabulary, so they are never heard first, which 3 of the corpus's 200 clips need.
        "begin_suppress_tokens": [ids["Ġ"], ids["<|endoftext|>"]],
    }
    return GenerationConfig.from_dict(told)


def extractor_of() -> WhisperFeatureExtractor:
    """The stock 80 log-mels, padded to CONTEXT seconds where the stock checkpoints pad to 30."""
    extractor = WhisperFeatureExtractor.from_dict({"feature_size": 80, "chunk_length": CONTEXT})
    assert isinstance(extractor, WhisperFeatureExtractor)
    return extractor


def model_of(size: Size, tokenizer: WhisperTokenizer, seed: int) -> WhisperForConditionalGeneration:
    """A Whisper of this size with random weights."""
    generation = generation_of(size, tokenizer)
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
    """Writes the folder, weights as float16 as most published checkpoints have them."""
    torch.nn.Module.half(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    extractor_of().save_pretrained(folder)
    for file in folder.iterdir():
        file.chmod(0o644)  # safetensors writes for the owner alone
