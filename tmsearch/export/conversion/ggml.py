"""A Whisper as one file of whisper.cpp's GGML layout, which whisper.cpp and what is built on it read.

The layout, little-endian, as whisper.cpp 1.8 reads it (`whisper_model_load` in src/whisper.cpp, 2026-08):

    uint32       0x67676d6c, "ggml"
    int32 * 11   vocabulary, positions, width, heads and layers of the encoder; the same four of the decoder, from its
                 positions on; mel bins; format of the matrices: 1, float16
    int32 * 2    mel bins, frequency bins; then as many float32, the mel filters
    int32        words; then for each its length as int32, and its bytes
    tensors      int32 * 3: dimensions, length of the name, format (0 float32, 1 float16); the sizes, the last
                 dimension first; the name; the values

Matrices in float32 it reads, and then ends in an assertion on a CPU: its convolutions take float16 alone.

Special tokens are not written: whisper.cpp counts them from the size of the vocabulary. Nor are suppressed tokens and
alignment heads: it has rules of its own for the first, and presets by model size (`--dtw`) for the others.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from transformers.convert_slow_tokenizer import bytes_to_unicode

from tmsearch.errors import InputError
from tmsearch.model.tokens import special_id
from tmsearch.model.whisper import ENGLISH_VOCABULARY, Whisper

FILE = "ggml-model.bin"
MAGIC = 0x67676D6C
FLOAT32, FLOAT16 = 0, 1  # formats
# Parts of a parameter's name as transformers has them -> as whisper.cpp has them; all that match are replaced.
_NAMES = {
    "model.": "",
    "decoder.embed_tokens.weight": "decoder.token_embedding.weight",
    "embed_positions.weight": "positional_embedding",
    "encoder.layer_norm.": "encoder.ln_post.",
    "decoder.layer_norm.": "decoder.ln.",
    ".layers.": ".blocks.",
    ".self_attn_layer_norm.": ".attn_ln.",
    ".encoder_attn_layer_norm.": ".cross_attn_ln.",
    ".final_layer_norm.": ".mlp_ln.",
    ".self_attn.": ".attn.",
    ".encoder_attn.": ".cross_attn.",
    ".q_proj.": ".query.",
    ".k_proj.": ".key.",
    ".v_proj.": ".value.",
    ".out_proj.": ".out.",
    ".fc1.": ".mlp.0.",
    ".fc2.": ".mlp.2.",
}


def check(whisper: Whisper) -> None:
    """Raises InputError where whisper.cpp could not read the model, or would take other tokens for its special ones."""
    config = whisper.model.config
    for width in (config.encoder_ffn_dim, config.decoder_ffn_dim):
        if width != 4 * config.d_model:
            raise InputError(
                f"{whisper.name}: a feed-forward width of {width} is not 4 times {config.d_model}, as whisper.cpp "
                "takes it to be; choose another --to"
            )
    for token, expected in expected_ids(config.vocab_size).items():
        actual = special_id(whisper, token)
        if actual != expected:
            raise InputError(
                f"{whisper.name}: {token} is token {actual}, whisper.cpp takes it to be {expected} of "
                f"{config.vocab_size}; only Whisper's own vocabularies can be converted, without added tokens"
            )


def expected_ids(vocabulary: int) -> dict[str, int]:
    """The ids that whisper.cpp counts special tokens to have: one token more where there are several languages, and
    one for each language more than 99."""
    several = int(vocabulary > ENGLISH_VOCABULARY)
    end = 50_256 + several
    languages = vocabulary - ENGLISH_VOCABULARY - several + 99
    tasks = end + 1 + languages  # the last language's
    return {
        "<|endoftext|>": end,
        "<|startoftranscript|>": end + 1,
        "<|translate|>": tasks + 1,
        "<|transcribe|>": tasks + 2,
        "<|startofprev|>": tasks + 4,
        "<|notimestamps|>": tasks + 6,
    }


def write(whisper: Whisper, folder: Path) -> None:
    """Writes the model, its adapters merged, as `folder`/ggml-model.bin: matrices in float16, vectors in float32.

    `check` must have passed.
    """
    config = whisper.model.config
    with (folder / FILE).open("wb") as stream:
        encoder = (whisper.positions, config.d_model, config.encoder_attention_heads, config.encoder_layers)
        decoder = (
            config.max_target_positions,
            config.d_model,
            config.decoder_attention_heads,
            config.decoder_layers,
        )
        stream.write(struct.pack("<I", MAGIC))
        _write_integers(stream, config.vocab_size, *encoder, *decoder, config.num_mel_bins, FLOAT16)
        filters = np.ascontiguousarray(whisper.extractor.mel_filters.T, dtype="<f4")  # [n_mels, frequencies]
        _write_integers(stream, *filters.shape)
        stream.write(filters.tobytes())
        words = list(_words(whisper))
        _write_integers(stream, len(words))
        for word in words:
            _write_integers(stream, len(word))
            stream.write(word)
        for name, parameter in whisper.model.state_dict().items():
            if name != "proj_out.weight":  # the token table again
                _write_tensor(stream, tensor_name(name), parameter)


def tensor_name(name: str) -> str:
    """A parameter's name in whisper.cpp."""
    for ours, theirs in _NAMES.items():
        name = name.replace(ours, theirs)
    return name


def _write_integers(stream: BinaryIO, *numbers: int) -> None:
    stream.write(struct.pack(f"<{len(numbers)}i", *numbers))


def _words(whisper: Whisper) -> Iterator[bytes]:
    """The bytes of each token in front of `<|endoftext|>`."""
    letters: dict[int, str] = bytes_to_unicode()  # type: ignore[no-untyped-call]
    byte_of = {letter: byte for byte, letter in letters.items()}
    for token in whisper.tokenizer.convert_ids_to_tokens(list(range(special_id(whisper, "<|endoftext|>")))):
        yield bytes(byte_of[letter] for letter in token)


def _write_tensor(stream: BinaryIO, name: str, parameter: torch.Tensor) -> None:
    kind = FLOAT32 if parameter.dim() == 1 or name.endswith("positional_embedding") else FLOAT16
    if name in ("encoder.conv1.bias", "encoder.conv2.bias"):
        parameter = parameter[:, None]  # [width, 1]: added to every frame
    values = parameter.detach().cpu().float().numpy().astype("<f2" if kind == FLOAT16 else "<f4")
    encoded = name.encode()
    _write_integers(stream, values.ndim, len(encoded), kind, *reversed(values.shape))
    stream.write(encoded)
    stream.write(np.ascontiguousarray(values).tobytes())
