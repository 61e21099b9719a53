"""A recording that was cut short is known by what its header declares, in every format whose header declares it."""

import io
import struct

import numpy as np
import pytest
import soundfile

from tests.support.audio_files import RecordedClip, tone, wav, write_recordings
from tmsearch.config import DataConfig
from tmsearch.data import audio_file
from tmsearch.data.corpus import load
from tmsearch.data.declared_length import held_share

FORMATS = [
    ("WAV", "PCM_16"),
    ("WAV", "IMA_ADPCM"),
    ("WAVEX", "FLOAT"),
    ("RF64", "PCM_16"),
    ("W64", "PCM_16"),
    ("AIFF", "PCM_16"),
    ("AU", "PCM_16"),
    ("CAF", "PCM_16"),
    ("NIST", "PCM_16"),
    ("SVX", "PCM_16"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
]


@pytest.mark.parametrize(("container", "subtype"), FORMATS)
def test_half_a_recording_is_known_in_every_format(container, subtype):
    noise = 0.1 * np.random.default_rng(0).standard_normal(48_000)
    file = io.BytesIO()
    soundfile.write(file, noise, 16_000, format=container, subtype=subtype)
    encoded = file.getvalue()
    assert held_share(encoded) == 1.0
    assert held_share(encoded + b"LIST") == 1.0
    assert held_share(encoded[: len(encoded) // 2]) < 1
    for length in range(0, 200, 7):
        assert 0 <= held_share(encoded[:length]) <= 1


def test_a_wav_cut_in_half_is_dropped_by_name(tmp_path):
    folder = write_recordings(tmp_path, [RecordedClip(f"{name}.wav", name, tone(3)) for name in ("whole", "half")])
    (tmp_path / "half.wav").write_bytes((tmp_path / "half.wav").read_bytes()[:48_044])
    corpus = load(DataConfig(dataset=str(folder), max_dropped=0.5))
    assert [clip.name for clip in corpus.clips] == ["whole.wav"]
    reason = "cut short: the file holds 50% of the audio that its header declares"
    assert [(row.name, row.reason) for row in corpus.dropped] == [("half.wav", reason)]


@pytest.mark.parametrize("length", [0xFFFF_FFFF, 0x7FFF_F000, 0x8000_0000])
def test_a_header_written_to_a_pipe_says_nothing_of_the_length(length):
    encoded = bytearray(wav(1.0))
    encoded[4:8] = struct.pack("<I", length)
    encoded[40:44] = struct.pack("<I", length)
    assert audio_file.measure(bytes(encoded))[0] == 1.0
