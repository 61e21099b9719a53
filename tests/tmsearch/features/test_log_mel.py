"""Log-mels equal to the extractor's to the bit, whatever their length, and a cache that cannot lie."""

import os
import time
from pathlib import Path

import numpy as np
import pyloudnorm
import pytest
import safetensors
import torch
from transformers import WhisperFeatureExtractor

from tests.support.audio_files import RecordedClip, write_recordings
from tmsearch.config import NORMALIZATIONS, DataConfig
from tmsearch.data.corpus import Corpus, load
from tmsearch.errors import InputError, UnavailableError
from tmsearch.features import log_mel
from tmsearch.features.log_mel import from_samples, log_mels, normalize

ASSETS = Path(os.environ.get("TMSEARCH_ASSETS", Path(__file__).parents[3].parent / "shared/assets"))
KINDS = {
    "tiny.en": {"feature_size": 80, "chunk_length": 30},
    "large-v3": {"feature_size": 128, "chunk_length": 30},
    "micro": {"feature_size": 80, "chunk_length": 4},
}


def speechlike(seconds, seed=0):
    """Noise whose level swells and fades, so that the clamp at 8 below the maximum is reached."""
    generator = np.random.default_rng(seed)
    noise = generator.standard_normal(int(seconds * 16_000))
    swell = np.exp(-6 * np.linspace(-1, 1, len(noise)) ** 2)
    return (0.03 * swell * noise).astype(np.float32)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    clips = []
    for index, seconds in enumerate((0.001, 0.37, 1.0, 3.99, 4.0, 11.3, 29.985, 29.9995, 30.0)):
        samples = speechlike(seconds, index)
        clips.append(RecordedClip(f"{seconds}.wav", f"clip of {seconds} seconds", samples, subtype="FLOAT"))
    write_recordings(folder, clips)
    return load(DataConfig(dataset=str(folder)))


@pytest.fixture(params=KINDS)
def extractor(request):
    return WhisperFeatureExtractor(**KINDS[request.param])


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Several are slower, by a factor of ten where other tests run beside these."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def expected(extractor, samples):
    return extractor(samples, sampling_rate=16_000, return_tensors="pt").input_features[0]


def names_of(corpus):
    return [clip.name for clip in corpus.clips]


def cached(folder):
    return next(folder.glob("*.safetensors"))


def test_equal_to_the_extractor_to_the_bit_fresh_and_cached(corpus, extractor, tmp_path):
    names = names_of(corpus)
    right = torch.stack([expected(extractor, corpus.samples(name)) for name in names])
    for _ in ("made", "read"):
        mels = log_mels(corpus, names, extractor, "none", tmp_path)
        for frames in (1, 100, 399, extractor.nb_max_frames):
            batch = mels.batch(names, frames)
            assert (batch.shape, batch.dtype) == ((len(names), extractor.feature_size, frames), torch.float32)
            assert torch.equal(batch, right[..., :frames]), frames


def test_equal_to_the_extractor_at_any_thread_count(corpus, tmp_path):
    extractor = WhisperFeatureExtractor()
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = log_mels(corpus, ["11.3.wav"], extractor, "none", tmp_path).batch(["11.3.wav"], 3000)
        torch.set_num_threads(2)
        assert torch.equal(alone[0], expected(extractor, corpus.decode("11.3.wav")))
    finally:
        torch.set_num_threads(threads)


def test_padding_is_not_stored(corpus, tmp_path):
    mels = log_mels(corpus, ["1.0.wav"], WhisperFeatureExtractor(), "none", tmp_path)
    assert 90 <= mels.length("1.0.wav") <= 102
    assert cached(tmp_path).stat().st_size < 40_000  # all 3,000 frames are 960,000 bytes


def test_waveforms_made_on_the_fly(corpus, extractor):
    waves = [corpus.samples(name) for name in names_of(corpus)]
    right = torch.stack([expected(extractor, wave) for wave in waves])
    for frames in (1, 399, extractor.nb_max_frames):
        batch = from_samples(waves, extractor, frames)
        assert torch.allclose(batch, right[..., :frames], rtol=0, atol=1e-5), frames
        assert torch.equal(batch[3:4], from_samples(waves[3:4], extractor, frames))
    assert from_samples([], extractor, 7).shape == (0, extractor.feature_size, 7)


def test_frames_outside_the_window_are_refused(corpus, tmp_path):
    extractor = WhisperFeatureExtractor(**KINDS["micro"])
    mels = log_mels(corpus, ["1.0.wav"], extractor, "none", tmp_path)
    for frames in (0, 401):
        with pytest.raises(ValueError, match="400"):
            mels.batch(["1.0.wav"], frames)
        with pytest.raises(ValueError, match="400"):
            from_samples([speechlike(1.0)], extractor, frames)
    assert mels.batch([], 10).shape == (0, 80, 10)


class Silent(Corpus):
    def decode(self, name):
        raise AssertionError(f"{name} was decoded although its log-mel is cached")


def test_the_cache_is_used_and_keyed_by_every_input(corpus, tmp_path):
    names = ["0.37.wav", "1.0.wav"]
    tiny, micro = (WhisperFeatureExtractor(**KINDS[kind]) for kind in ("tiny.en", "micro"))
    log_mels(corpus, names, tiny, "none", tmp_path)
    silent = Silent(corpus.clips, (), corpus.fingerprint)
    assert log_mels(silent, names[::-1], tiny, "none", tmp_path).length("1.0.wav") > 0
    for changed in (
        (silent, names[:1], tiny, "none"),
        (silent, names, micro, "none"),
        (silent, names, tiny, "peak"),
        (Silent(corpus.clips, (), "another"), names, tiny, "none"),
    ):
        with pytest.raises(AssertionError, match="was decoded"):
            log_mels(*changed, tmp_path)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("damage", ["cut", "empty", "header", "flipped", "foreign"])
def test_a_broken_cache_is_made_anew(corpus, tmp_path, damage):
    names, extractor = ["0.37.wav", "1.0.wav"], WhisperFeatureExtractor()
    right = log_mels(corpus, names, extractor, "none", tmp_path).batch(names, 200)
    path = cached(tmp_path)
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[-1000] ^= 0x40
    path.write_bytes(
        {
            "cut": content[: len(content) // 2],
            "empty": b"",
            "header": b"\xff" * 64 + content[64:],
            "flipped": bytes(flipped),
            "foreign": b"not a safetensors file at all",
        }[damage]
    )
    assert torch.equal(log_mels(corpus, names, extractor, "none", tmp_path).batch(names, 200), right)
    assert path.read_bytes() == content
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


def test_what_a_killed_process_left_is_removed(corpus, tmp_path):
    for name, age in (("mels-0.safetensors.1-aa.part", 7_200), ("mels-0.safetensors.2-bb.part", 10)):
        (tmp_path / name).write_bytes(b"half")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    log_mels(corpus, ["1.0.wav"], WhisperFeatureExtractor(), "none", tmp_path)
    assert [path.name for path in tmp_path.glob("*.part")] == ["mels-0.safetensors.2-bb.part"]


def test_a_cache_that_cannot_be_written_is_one_line(corpus, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="log-mel cache cannot be written") as error:
        log_mels(corpus, ["1.0.wav"], WhisperFeatureExtractor(), "none", tmp_path / "file")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("shape", [(80,), (40, 100), (80, 0), (80, 4000)])
def test_a_cache_of_the_right_checksum_and_a_wrong_shape_is_made_anew(corpus, tmp_path, shape):
    name = "1.0.wav"
    right = log_mels(corpus, [name], WhisperFeatureExtractor(), "none", tmp_path).batch([name], 3000)
    path = next(tmp_path.glob("mels-*.safetensors"))
    content = path.read_bytes()
    log_mel._write(path, {name: (np.zeros(shape, np.float32), 0.0)})
    assert path.read_bytes() != content
    again = log_mels(corpus, [name], WhisperFeatureExtractor(), "none", tmp_path).batch([name], 3000)
    assert torch.equal(again, right)
    assert path.read_bytes() == content


def test_a_full_cache_is_this_machines_problem(corpus, tmp_path, monkeypatch):
    def full(*_, **__):
        raise safetensors.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(log_mel.safetensors.numpy, "save_file", full)
    with pytest.raises(UnavailableError, match=r"No space left on device .*TMSEARCH_CACHE"):
        log_mels(corpus, ["1.0.wav"], WhisperFeatureExtractor(), "none", tmp_path)


def test_normalization_changes_the_features(corpus, tmp_path):
    extractor = WhisperFeatureExtractor()
    name = "11.3.wav"
    mels = {how: log_mels(corpus, [name], extractor, how, tmp_path).batch([name], 3000) for how in NORMALIZATIONS}
    for how, other in (("none", "peak"), ("none", "rms"), ("none", "loudness"), ("peak", "rms"), ("rms", "loudness")):
        assert (mels[how] - mels[other]).abs().max() > 0.01, (how, other)
    gain = np.abs(normalize(corpus.decode(name), "peak")).max() / np.abs(corpus.decode(name)).max()
    loud = mels["none"] > mels["none"].min() + 0.1  # above the floor a gain moves all bins alike
    shift = (mels["peak"] - mels["none"])[loud]
    assert torch.allclose(shift, torch.full_like(shift, float(np.log10(gain**2) / 4)), atol=1e-3)


def test_levels_that_normalization_reaches():
    quiet = 0.05 * speechlike(3.0)
    assert 20 * np.log10(np.abs(normalize(quiet, "peak")).max()) == pytest.approx(log_mel.PEAK_DBFS, abs=1e-3)
    rms = np.sqrt(np.mean(normalize(quiet, "rms").astype(float) ** 2))
    assert 20 * np.log10(rms) == pytest.approx(log_mel.RMS_DBFS, abs=1e-3)
    loudness = pyloudnorm.Meter(16_000).integrated_loudness(normalize(quiet, "loudness").astype(float))
    assert loudness == pytest.approx(log_mel.LOUDNESS_LUFS, abs=0.01)
    assert normalize(quiet, "none") is quiet


def test_no_gain_clips_and_silence_stays_silent():
    click = np.zeros(16_000, dtype=np.float32)
    click[::4_000] = 0.5  # a crest far above speech's
    short = speechlike(0.1)
    for how in NORMALIZATIONS:
        for samples in (click, short, speechlike(2.0) * 1e-6, np.full(8_000, 1e-40, dtype=np.float32)):
            result = normalize(samples, how)
            assert result.dtype == np.float32
            assert np.isfinite(result).all()
            assert how == "none" or np.abs(result).max() <= 10 ** (log_mel.PEAK_DBFS / 20) + 1e-6
        np.testing.assert_array_equal(normalize(np.zeros(8_000, dtype=np.float32), how), np.zeros(8_000))
        assert normalize(np.zeros(0, dtype=np.float32), how).shape == (0,)
    np.testing.assert_array_equal(normalize(short, "loudness"), normalize(short, "rms"))


@pytest.mark.skipif(not (ASSETS / "whisper-tiny.en").is_dir(), reason="needs shared/assets/whisper-tiny.en")
@pytest.mark.skipif(not (ASSETS / "allison-throat").is_dir(), reason="needs shared/assets/allison-throat")
def test_real_speech_through_the_checkpoints_own_extractor(tmp_path):
    extractor = WhisperFeatureExtractor.from_pretrained(ASSETS / "whisper-tiny.en")
    speech = load(DataConfig(dataset=str(ASSETS / "allison-throat")))
    names = names_of(speech)[::23]
    mels = log_mels(speech, names, extractor, "peak", tmp_path)
    for name in names:
        wave = normalize(speech.decode(name), "peak")
        assert torch.equal(mels.batch([name], 3000)[0], expected(extractor, wave))


def test_a_callers_autocast_changes_no_bit(extractor, corpus, tmp_path):
    waves = [speechlike(1.0)]
    plain = [from_samples(waves, extractor, 100)[0], log_mel.of_recording(waves[0], extractor)]
    plain.append(log_mels(corpus, ["1.0.wav"], extractor, "none", tmp_path / "plain").batch(["1.0.wav"], 100)[0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = [from_samples(waves, extractor, 100)[0], log_mel.of_recording(waves[0], extractor)]
        under.append(log_mels(corpus, ["1.0.wav"], extractor, "none", tmp_path / "under").batch(["1.0.wav"], 100)[0])
    for expected_mel, mel in zip(plain, under, strict=True):
        assert torch.equal(mel, expected_mel)
