import dataclasses

import numpy as np
import pytest
import torch

from tests.support import toy_whisper
from tmsearch.config import TrainConfig
from tmsearch.features import augment, log_mel
from tmsearch.model import whisper

RATE = 16_000


def noise(seconds, seed=0, level=0.1):
    return (level * np.random.default_rng(seed).standard_normal(round(seconds * RATE))).astype(np.float32)


def tone(hertz, seconds=1.0):
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


@pytest.fixture(scope="module")
def extractor(tmp_path_factory):
    return whisper.load(TrainConfig(model=str(toy_whisper.whisper_folder(tmp_path_factory.mktemp("toy"))))).extractor


def mels(count=3, frames=200):
    return torch.randn(count, 80, frames, generator=torch.Generator().manual_seed(0))


def test_nothing_is_changed_by_default():
    config = TrainConfig()
    assert augment.waveform(noise(1), config, 1, 0, 30.0) is None
    assert not augment.changes_waveform(config)
    assert torch.equal(augment.log_mels(mels(), [200, 100, 50], config, 1, range(3)), mels())


def test_masks_are_drawn_on_a_copy_inside_the_clip_and_no_wider_than_configured():
    config = TrainConfig(spec_time_masks=1, spec_time_width=0.1, spec_freq_masks=1, spec_freq_width=8)
    original = mels()
    widest_time = 0
    widest_frequency = 0
    for step in range(60):
        masked = augment.log_mels(original, [200, 100, 50], config, step, range(3))
        assert torch.equal(original, mels())
        for row, length in enumerate((200, 100, 50)):
            changed = masked[row] != original[row]
            assert not changed[:, length:].any()
            columns = int(changed[:, :length].all(0).sum())
            rows = int(changed[:, :length].all(1).sum())
            assert columns <= 0.1 * length
            assert rows <= 8
            assert set(masked[row][changed].tolist()) <= {original[row][:, :length].mean().item()}
            widest_time = max(widest_time, columns)
            widest_frequency = max(widest_frequency, rows)
    assert widest_time >= 15
    assert widest_frequency == 8


@pytest.mark.parametrize("decibels", [-9.0, 9.0])
def test_a_shift_of_the_log_mel_is_a_gain_on_the_waveform(extractor, decibels):
    samples = noise(1.2)
    mel = log_mel.from_samples([samples], extractor, 200)[0]
    augment._shift_level(mel, decibels)
    gained = log_mel.from_samples([samples * np.float32(10 ** (decibels / 20))], extractor, 200)[0]
    assert torch.allclose(mel, gained, atol=2e-5)


def test_levels_differ_from_clip_to_clip_within_bounds():
    shifted = augment.log_mels(torch.zeros(40, 80, 10), [10] * 40, TrainConfig(level_db=12.0), 1, range(40))
    decibels = shifted[:, 0, 0] / augment.LOG_MEL_PER_DB
    assert decibels.abs().max() <= 12.0
    assert decibels.min() < -6 < 6 < decibels.max()


def test_speed_changes_length_and_pitch_within_bounds():
    config = TrainConfig(speed=0.2)
    lengths = []
    pitches = []
    for index in range(30):
        changed = augment.waveform(tone(400), config, 1, index, 30.0)
        lengths.append(len(changed) / RATE)
        pitches.append(np.argmax(np.abs(np.fft.rfft(changed))) / lengths[-1])
    assert 1 / 1.2 <= min(lengths) < 0.9
    assert 1.1 < max(lengths) <= 1 / 0.8
    assert [length * pitch for length, pitch in zip(lengths, pitches, strict=True)] == pytest.approx(
        [400] * 30, rel=0.01
    )


def test_nothing_is_slowed_down_beyond_what_the_encoder_takes():
    config = TrainConfig(speed=0.5)
    for index in range(20):
        assert len(augment.waveform(noise(1.9), config, 1, index, 2.0)) <= 2.0 * RATE


def test_a_throat_filter_passes_the_throats_band_and_keeps_loudness():
    samples = noise(2.0)
    for seed in range(5):
        filtered = augment.throat_filter(samples, np.random.default_rng(seed))
        power = np.abs(np.fft.rfft(filtered)) ** 2
        hertz = np.fft.rfftfreq(len(filtered), 1 / RATE)
        inside = power[(hertz > 150) & (hertz < 500)].mean()
        assert inside > 1000 * power[hertz > 3200].mean()
        assert inside > 1000 * power[(hertz > 0) & (hertz < 20)].mean()
        assert np.sqrt(np.mean(filtered**2)) == pytest.approx(np.sqrt(np.mean(samples**2)), rel=1e-4)
        assert filtered.dtype == np.float32
    assert not np.any(augment.throat_filter(np.zeros(1000, np.float32), np.random.default_rng(0)))


def test_the_share_of_filtered_clips_is_as_configured():
    config = TrainConfig(throat_filter=0.3)
    clip = noise(0.1)
    clips = [augment.waveform(clip, config, step, index, 30.0) for step in range(20) for index in range(10)]
    assert sum(changed is not None for changed in clips) / 200 == pytest.approx(0.3, abs=0.08)


def test_augmentations_depend_on_seed_step_and_index_alone():
    config = TrainConfig(speed=0.1, throat_filter=0.5, spec_time_masks=2, spec_freq_masks=2, level_db=6.0)
    clip = noise(0.5)
    assert np.array_equal(augment.waveform(clip, config, 7, 3, 30.0), augment.waveform(clip, config, 7, 3, 30.0))
    batch = augment.log_mels(mels(4), [200] * 4, config, 7, range(4))
    pairs = ((0, 1), (2, 3))
    halves = [augment.log_mels(mels(4)[list(pair)], [200] * 2, config, 7, pair) for pair in pairs]
    assert torch.equal(batch, torch.cat(halves))
    for changed, step in ((dataclasses.replace(config, seed=1), 7), (config, 8)):
        assert not torch.equal(augment.log_mels(mels(4), [200] * 4, changed, step, range(4)), batch)
        assert len(augment.waveform(clip, changed, step, 3, 30.0)) != len(augment.waveform(clip, config, 7, 3, 30.0))


def test_turning_on_one_kind_leaves_the_other_as_it_was():
    masks = TrainConfig(spec_time_masks=2)
    both = TrainConfig(spec_time_masks=2, speed=0.1)
    assert torch.equal(
        augment.log_mels(mels(), [200] * 3, masks, 1, range(3)), augment.log_mels(mels(), [200] * 3, both, 1, range(3))
    )
