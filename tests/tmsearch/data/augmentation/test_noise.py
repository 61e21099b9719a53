"""Noise under speech: how loud, which part, the same again; and folders that hold none."""

import numpy as np
import pytest
import soundfile

from tests.support.audio_files import tone
from tmsearch.data.augmentation.noise import load_noise
from tmsearch.errors import InputError


def hiss(seconds, seed=0):
    return 0.05 * np.random.default_rng(seed).standard_normal(round(16_000 * seconds))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "street").mkdir()
    soundfile.write(tmp_path / "hiss.flac", hiss(3), 16_000)
    soundfile.write(tmp_path / "street/hall.wav", np.stack([hiss(4, 1)[:32_000], hiss(4, 2)[:32_000]], 1), 8_000)
    (tmp_path / "notes.txt").write_text("not a recording")
    return tmp_path


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("snr_db", [-6.0, 0.0, 20.0])
def test_speech_is_as_many_decibels_over_the_noise_as_asked(folder, snr_db):
    noise = load_noise(str(folder))
    speech = tone(1.5).astype(np.float32)
    for seed in range(8):
        added = noise.mixed(speech, snr_db, rng(seed)) - speech
        ratio = 10 * np.log10(np.mean(np.square(speech)) / np.mean(np.square(added)))
        assert ratio == pytest.approx(snr_db, abs=0.01)


def test_the_part_is_drawn_by_the_generator_alone_and_short_noise_is_repeated(folder):
    noise = load_noise(str(folder))
    assert noise.seconds == pytest.approx(7.0)
    speech = tone(1.0).astype(np.float32)
    assert np.array_equal(noise.mixed(speech, 0, rng(1)), noise.mixed(speech, 0, rng(1)))
    parts = {noise.mixed(speech, 0, rng(seed)).tobytes() for seed in range(12)}
    assert len(parts) == 12
    long = tone(9.0).astype(np.float32)
    added = noise.mixed(long, 0, rng(3)) - long
    assert min(np.mean(np.square(block)) for block in np.split(added, 9)) > 0.1 * np.mean(np.square(added))
    silence = np.zeros(100, np.float32)
    assert noise.mixed(silence, 0, rng()) is silence


def test_a_folder_is_known_by_its_files(folder):
    before = load_noise(str(folder)).fingerprint
    assert load_noise(str(folder)).fingerprint == before
    soundfile.write(folder / "more.wav", hiss(1, 5), 16_000)
    assert load_noise(str(folder)).fingerprint != before


def test_folders_that_hold_no_noise_are_refused_in_one_line(folder, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / ".hidden.wav").write_bytes(b"RIFF")
    with pytest.raises(InputError, match=r"^data.noise: .*empty: holds no audio file; give a folder of noise"):
        load_noise(str(empty))
    with pytest.raises(InputError, match=r"^data.noise: nowhere: no such folder"):
        load_noise("nowhere")
    (folder / "broken.wav").write_bytes(b"RIFF")
    with pytest.raises(InputError, match=r"^data.noise: .*/broken.wav: unreadable.*take it out of the folder$"):
        load_noise(str(folder))
    soundfile.write(folder / "broken.wav", np.zeros(0), 16_000)
    with pytest.raises(InputError, match=r"broken.wav: empty; take it out"):
        load_noise(str(folder))


def test_a_file_that_goes_away_is_named(folder):
    noise = load_noise(str(folder))
    for path in folder.rglob("*.*"):
        path.unlink()
    with pytest.raises(InputError, match="readable at first, but no longer"):
        noise.mixed(tone(1.0).astype(np.float32), 0, rng())
