"""Measures of recordings, on signals whose every figure is known."""

import numpy as np
import pytest

from tmsearch.data_quality import signal

RATE = 16_000


def seconds(length):
    return np.arange(round(RATE * length)) / RATE


def noise(length, level, seed=0):
    """White, `level` its RMS in dBFS."""
    return 10 ** (level / 20) * np.random.default_rng(seed).standard_normal(round(RATE * length))


def voice(length, pitch=110.0):
    """A gliding harmonic tone in bursts: energy near the mains' harmonics, as a voice has, and no steady phase."""
    time = seconds(length)
    phase = 2 * np.pi * np.cumsum(pitch * (1 + 0.1 * np.sin(2 * np.pi * 1.7 * time))) / RATE
    return 0.1 * sum(np.sin(k * phase) / k for k in range(1, 20)) * (np.sin(2 * np.pi * 2 * time) > -0.3)


def single(samples):
    return samples.astype(np.float32)


@pytest.mark.parametrize("mains", [50.0, 60.0])
@pytest.mark.parametrize("level", [-35.0, -50.0])
def test_a_hum_of_known_level_is_found_under_a_voice(mains, level):
    amplitude = 10 ** (level / 20) * np.sqrt(2)
    tone = amplitude * np.sin(2 * np.pi * (mains + 0.05) * seconds(4) + 1.0)
    hum = signal.hum(single(voice(4) + noise(4, -75) + tone))
    assert hum.is_present
    assert hum.frequency == mains
    assert hum.level == pytest.approx(level, abs=2.0)


def test_harmonics_alone_are_a_hum_too():
    time = seconds(4)
    tones = sum(0.003 * np.sin(2 * np.pi * hertz * time) for hertz in (100, 200))
    hum = signal.hum(single(noise(4, -60) + tones))
    assert (hum.is_present, hum.frequency) == (True, 50.0)
    assert hum.level == pytest.approx(20 * np.log10(0.003), abs=0.5)  # two of amplitude a have an RMS of a


@pytest.mark.parametrize("seed", range(5))
def test_no_hum_where_there_is_none(seed):
    assert not signal.hum(single(noise(3, -50, seed))).is_present
    assert not signal.hum(single(voice(3, 90 + 23 * seed) + noise(3, -60, seed))).is_present


@pytest.mark.parametrize("samples", [np.zeros(1), np.zeros(8000), np.ones(5000), noise(0.1, -20)])
def test_next_to_nothing_is_measured(samples):
    recording = single(samples)
    assert not signal.hum(recording).is_present
    floor, snr = signal.noise_and_snr(recording)
    assert -120 <= floor <= 0
    assert snr >= 0
    assert min(vars(signal.pauses(recording)).values()) >= 0
    assert np.isfinite(signal.spectrum(recording)).all()


@pytest.mark.parametrize("snr", [10.0, 20.0, 40.0])
def test_noise_floor_and_snr(snr):
    floor = -30.0 - snr
    speech = np.zeros(3 * RATE)
    speech[RATE : 2 * RATE] = 10 ** (-30 / 20) * np.sqrt(2) * np.sin(2 * np.pi * 300 * seconds(1))
    measured_floor, measured_snr = signal.noise_and_snr(single(speech + noise(3, floor)))
    assert measured_floor == pytest.approx(floor, abs=1.0)
    assert measured_snr == pytest.approx(snr, abs=1.0)


@pytest.mark.parametrize("floor", [-110.0, -50.0])
def test_pauses(floor):
    """0.5 s of nothing, 1 s of tone, 0.7 s, 0.5 s of tone, 0.3 s."""
    tone = 0.3 * np.sin(2 * np.pi * 200 * seconds(3))
    on = np.zeros(3 * RATE)
    on[RATE // 2 : 3 * RATE // 2] = on[round(2.2 * RATE) : round(2.7 * RATE)] = 1
    pauses = signal.pauses(single(tone * on + noise(3, floor)))
    assert pauses.before == pytest.approx(0.5, abs=0.03)
    assert pauses.inside == pytest.approx(0.7, abs=0.05)
    assert pauses.after == pytest.approx(0.3, abs=0.03)


def test_the_spectrum_has_its_peak_where_the_tone_is():
    power = signal.spectrum(single(0.5 * np.sin(2 * np.pi * 1000 * seconds(1))))
    assert power.argmax() == 64  # 1,000 Hz in bins of 15.625
    assert 10 * np.log10(power.max()) == pytest.approx(20 * np.log10(0.5 / np.sqrt(2)), abs=0.1)


def test_outliers():
    assert signal.outliers([1.0, 1.1, 0.9, 1.0, 1.05, 5.0]) == [False] * 5 + [True]
    assert signal.outliers([2.0, 2.0, 2.0, 9.0]) == [False] * 4, "no spread, nothing to measure by"
    assert signal.outliers([]) == []
