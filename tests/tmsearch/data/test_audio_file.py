"""Every rate, format and channel count becomes 16 kHz mono, and what no model can learn from is refused."""

import io

import numpy as np
import pytest
import soundfile

from tests.support import audio_files
from tests.support.audio_files import RecordedClip, write_recordings
from tmsearch.config import DataConfig
from tmsearch.data import audio_file
from tmsearch.data.audio_file import UnusableAudioError
from tmsearch.data.corpus import load


def tone(rate=16_000, channels=1):
    """[positions, channels]."""
    return np.stack([audio_files.tone(0.5, 440.0, rate, amplitude=0.4)] * channels, axis=1)


def test_every_rate_format_and_channel_count_becomes_16_khz_mono(tmp_path):
    kinds = {
        "a.wav": (8_000, 2, "PCM_16"),
        "b.flac": (44_100, 1, "PCM_24"),
        "c.ogg": (48_000, 2, "VORBIS"),
        "d.mp3": (22_050, 1, "MPEG_LAYER_III"),
        "e.wav": (16_000, 1, "FLOAT"),
        "f.aiff": (11_025, 3, "PCM_16"),
        "g.opus": (48_000, 1, "OPUS"),
    }
    clips = []
    for name, (rate, channels, subtype) in kinds.items():
        container = "OGG" if name.endswith(".opus") else None  # a codec of Ogg for libsndfile
        clips.append(RecordedClip(name, f"sentence {name}", tone(rate, channels), rate, container, subtype))
    corpus = load(DataConfig(dataset=str(write_recordings(tmp_path, clips)), max_dropped=0.0))
    assert [clip.name for clip in corpus.clips] == sorted(kinds)
    for clip in corpus.clips:
        rate, channels, _ = kinds[clip.name]
        samples = corpus.samples(clip.name)
        assert (samples.dtype, samples.ndim) == (np.float32, 1)
        assert (clip.recording.sample_rate, clip.recording.channels) == (rate, channels)
        assert len(samples) == pytest.approx(8_000, abs=900)  # a lossy codec pads to whole packets
        assert clip.seconds == pytest.approx(len(samples) / 16_000, abs=1e-3)
        spectrum = np.abs(np.fft.rfft(samples))
        assert np.argmax(spectrum) * 16_000 / len(samples) == pytest.approx(440, abs=4), clip.name
        assert np.abs(samples[2_000:6_000]).max() == pytest.approx(0.4, rel=0.05), clip.name


def test_channels_are_averaged(tmp_path):
    left = tone()
    both = np.concatenate([left, -0.5 * left], axis=1)
    clips = [RecordedClip("a.wav", "hello", both, subtype="FLOAT")]
    corpus = load(DataConfig(dataset=str(write_recordings(tmp_path, clips))))
    np.testing.assert_allclose(corpus.samples("a.wav"), 0.25 * left[:, 0], atol=1e-7)


def test_a_lone_peak_is_not_clipped_and_two_are():
    encoded = io.BytesIO()
    samples = audio_files.tone()
    samples[100] = 1.0
    samples[200:202] = 1.0
    soundfile.write(encoded, samples, 16_000, format="WAV", subtype="FLOAT")
    seconds, recording, _ = audio_file.measure(encoded.getvalue())
    assert seconds == pytest.approx(0.2)
    assert recording.clipped == pytest.approx(2 / len(samples))
    assert recording.peak == 1.0


def test_what_is_not_audio_is_refused():
    with pytest.raises(UnusableAudioError, match="unreadable"):
        audio_file.decode(b"this is not audio" * 20)
