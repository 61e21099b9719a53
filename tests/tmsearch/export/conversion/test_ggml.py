"""The GGML file holds what whisper.cpp reads, of every size; what it would read wrongly is refused."""

import struct

import numpy as np
import pytest

from tests.support import whisper_sizes
from tests.support.whisper_sizes import SIZES, WIDTH
from tmsearch.errors import InputError
from tmsearch.export.conversion import ggml

NUMBER = {0: np.float32, 1: np.float16}


class Reader:
    """Reads the file by the layout that ggml.py describes, and nothing that it does not describe."""

    def __init__(self, content):
        self.content = content
        self.at = 0

    def take(self, count):
        self.at += count
        return self.content[self.at - count : self.at]

    def integers(self, count):
        return struct.unpack(f"<{count}i", self.take(4 * count))

    def tensors(self):
        found = {}
        while self.at < len(self.content):
            dimensions, length, kind = self.integers(3)
            shape = self.integers(dimensions)[::-1]
            name = self.take(length).decode()
            size = int(np.prod(shape)) * np.dtype(NUMBER[kind]).itemsize
            found[name] = np.frombuffer(self.take(size), NUMBER[kind]).reshape(shape)
        return found


@pytest.mark.parametrize("name", SIZES)
def test_the_file_has_the_layout_of_whisper_cpp(whispers, tmp_path, name):
    whisper, size = whispers[name], SIZES[name]
    ggml.check(whisper)
    ggml.write(whisper, tmp_path)
    reader = Reader((tmp_path / "ggml-model.bin").read_bytes())
    assert reader.integers(1) == (0x67676D6C,)
    layers = size.layers
    encoder, decoder = (1500, WIDTH, 2, layers), (448, WIDTH, 2, layers)
    assert reader.integers(11) == (size.vocabulary, *encoder, *decoder, size.n_mels, ggml.FLOAT16)
    assert reader.integers(2) == (size.n_mels, 201)
    filters = np.frombuffer(reader.take(4 * size.n_mels * 201), np.float32).reshape(size.n_mels, 201)
    assert np.array_equal(filters, whisper.extractor.mel_filters.T.astype(np.float32))
    (words,) = reader.integers(1)
    assert words == 50_256 + (name != "tiny.en"), "whisper.cpp names the special tokens itself"
    texts = [reader.take(reader.integers(1)[0]) for _ in range(words)]
    assert texts[-1] == (b"filler50255" if name == "tiny.en" else b"")
    assert sorted(texts[:256]) == [bytes([byte]) for byte in range(256)]
    tensors = reader.tensors()
    assert len(tensors) == 7 + 15 * layers + 4 + 24 * layers, "the output layer is the token table"
    table = tensors["decoder.token_embedding.weight"]
    expected = whisper.model.model.decoder.embed_tokens.weight.detach().half().numpy()
    assert table.dtype == np.float16
    assert np.array_equal(table, expected)
    assert tensors["encoder.conv1.bias"].shape == (WIDTH, 1)
    assert tensors["decoder.positional_embedding"].dtype == np.float32
    last = f"decoder.blocks.{layers - 1}.cross_attn.key.weight"
    key = whisper.model.model.decoder.layers[-1].encoder_attn.k_proj.weight.detach().numpy()
    assert np.allclose(tensors[last], key, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", SIZES)
def test_whisper_cpp_reads_every_size(whispers, tmp_path, name):
    pywhispercpp = pytest.importorskip(
        "pywhispercpp.model", reason="pywhispercpp is not installed: the extra whisper-cpp has it"
    )
    ggml.write(whispers[name], tmp_path)
    quick = {"max_tokens": 3, "n_threads": 1, "audio_ctx": 64, "print_progress": False}
    loaded = pywhispercpp.Model(str(tmp_path / ggml.FILE), redirect_whispercpp_logs_to=None, **quick)
    assert isinstance(loaded.transcribe(np.zeros(16_000, dtype=np.float32)), list)


def test_added_tokens_shift_whisper_cpps_special_tokens_and_are_refused():
    whisper = whisper_sizes.whisper("tiny")
    whisper.model.resize_token_embeddings(51_868, mean_resizing=False)
    with pytest.raises(InputError, match=r"<\|translate\|> is token 50358, whisper.cpp takes it to be 50361 of 51868"):
        ggml.check(whisper)


def test_a_width_that_whisper_cpp_has_not_is_refused(whispers, monkeypatch):
    whisper = whispers["tiny"]
    monkeypatch.setattr(whisper.model.config, "decoder_ffn_dim", 100)
    with pytest.raises(InputError, match="a feed-forward width of 100 is not 4 times 64"):
        ggml.check(whisper)
