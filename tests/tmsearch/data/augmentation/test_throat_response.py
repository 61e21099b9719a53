"""The filter from one microphone to another, learnt from what both recorded."""

import numpy as np
import pytest
import scipy.signal

from tmsearch.data.augmentation import throat_response
from tmsearch.data.augmentation.throat_response import learn, long_term_spectrum, smoothed

RATE = 16_000


def speech(seed, seconds=1.0):
    """Noise that falls by 6 dB an octave from 500 Hz on, as speech does [samples]."""
    white = np.random.default_rng(seed).standard_normal(round(seconds * RATE))
    return (0.1 * scipy.signal.sosfilt(scipy.signal.butter(1, 500, fs=RATE, output="sos"), white)).astype(np.float32)


def throat(samples):
    """A band-pass of 12 dB an octave, 100 to 900 Hz [samples]."""
    band = scipy.signal.butter(2, [100, 900], "bandpass", fs=RATE, output="sos")
    return scipy.signal.sosfilt(band, samples).astype(np.float32)


def gain_of_throat(hertz):
    band = scipy.signal.butter(2, [100, 900], "bandpass", fs=RATE, output="sos")
    return 20 * np.log10(np.abs(scipy.signal.sosfreqz(band, [300.0, hertz], fs=RATE)[1]))


@pytest.fixture(scope="module")
def learnt():
    """From other speech than it is applied to, at other levels."""
    recorded = long_term_spectrum(0.3 * throat(speech(seed)) for seed in range(20))
    return learn(recorded, long_term_spectrum(speech(seed) for seed in range(100, 120)))


@pytest.mark.parametrize("hertz", [120, 300, 600, 1000, 2000, 4000])
def test_the_gain_at_each_frequency_is_the_microphones(learnt, hertz):
    reference, expected = gain_of_throat(hertz)
    assert learnt.gain_db(hertz) - learnt.gain_db(300) == pytest.approx(expected - reference, abs=1.5)


def test_speech_through_it_has_the_microphones_spectrum_and_level(learnt):
    target = long_term_spectrum(0.3 * throat(speech(seed)) for seed in range(20))
    made = long_term_spectrum(learnt.apply(speech(seed)) for seed in range(200, 220))
    assert made.level == pytest.approx(target.level, rel=1e-3)
    difference = 10 * np.log10(smoothed(made.power) / smoothed(target.power))
    assert np.abs(difference[8:192]).max() < 2  # 125 Hz to 3 kHz


def test_nothing_is_delayed_or_lengthened(learnt):
    click = np.zeros(4000, np.float32)
    click[1000] = 1.0
    filtered = learnt.apply(click)
    assert len(filtered) == 4000
    assert filtered.dtype == np.float32
    assert np.argmax(np.abs(filtered)) == 1000
    assert np.allclose(filtered[1001:1200], filtered[999:800:-1], atol=1e-6)  # linear phase
    assert len(learnt.apply(click[:0])) == 0
    assert not learnt.apply(np.zeros(100, np.float32)).any()


def test_what_one_of_the_two_did_not_record_is_not_made_of_noise():
    tone = np.sin(2 * np.pi * 500 * np.arange(RATE) / RATE).astype(np.float32)
    response = learn(long_term_spectrum([speech(0)]), long_term_spectrum([tone]))
    gains = [response.gain_db(hertz) for hertz in (100, 2000, 7000)]
    assert max(gains) - response.gain_db(500) <= throat_response.MOST_DB - throat_response.LEAST_DB


def test_smoothing_is_a_mean_over_a_third_of_an_octave():
    assert np.allclose(smoothed(np.ones(513)), 1.0)
    line = np.zeros(513)
    line[100] = 1.0
    touched = np.flatnonzero(smoothed(line))
    assert (touched.min(), touched.max()) == (90, 112)
    assert smoothed(line)[100] == pytest.approx(1 / (112 - 90 + 1), rel=0.05)


def test_a_band_is_where_nearly_all_of_the_energy_lies_and_silence_has_no_spectrum():
    assert long_term_spectrum([throat(speech(0)), np.zeros(10, np.float32)]).band < 1800
    assert long_term_spectrum([speech(0, 0.01)]).band > 2000
    with pytest.raises(ValueError, match="no clip has any sound"):
        long_term_spectrum([np.zeros(100, np.float32)])
