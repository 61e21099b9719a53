"""Pictures and sounds of a clip: files that others read, equal for equal input."""

import io

import numpy as np
import pytest
import scipy.signal
import soundfile
from PIL import Image

from tmsearch.media import images, sounds

TONE = (0.5 * np.sin(2 * np.pi * 500 * np.arange(16_000) / 16_000)).astype(np.float32)


def image(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("L"), dtype=float)


def test_a_tone_is_a_line_at_its_frequency():
    drawn = image(images.spectrogram(TONE, width=4, height=2, axes=False))
    assert drawn.shape == (160, 320)
    brightest = drawn.mean(axis=1).argmax()
    assert (1 - brightest / 160) * images.TOP_HZ == pytest.approx(500, abs=60)  # Hz; a row of 50 Hz, a window of 40


@pytest.mark.parametrize("samples", [np.zeros(16_000, np.float32), np.zeros(1, np.float32), TONE[:399]])
def test_silence_and_very_short_clips_are_drawn(samples):
    assert image(images.spectrogram(samples)).size


@pytest.mark.parametrize("count", [400, 16_003])
def test_power_is_what_scipy_finds(count):
    samples = np.random.default_rng(1).normal(size=count).astype(np.float32)
    frequencies, power = images.power_density(samples)
    expected = scipy.signal.spectrogram(samples.astype(np.float64), 16_000, nperseg=400, noverlap=240)
    np.testing.assert_array_equal(frequencies, expected[0])
    np.testing.assert_allclose(power, expected[2], rtol=1e-9, atol=1e-20)


def test_equal_input_gives_equal_bytes():
    assert images.spectrogram(TONE) == images.spectrogram(TONE)
    curve = {20: 0.9, 40: 0.5}
    assert images.learning_curve(curve, 0.97, "trial 1") == images.learning_curve(curve, 0.97, "trial 1")


def test_a_title_is_text():
    assert images.learning_curve({20: 0.9}, None, r"trial $\frac{1}$ <b>")


def test_the_sound_is_the_clip():
    data = sounds.mp3(TONE)
    assert data == sounds.mp3(TONE)
    decoded, rate = soundfile.read(io.BytesIO(data))
    assert rate == 16_000
    assert len(decoded) == pytest.approx(16_000, abs=2_500)
    spectrum = np.abs(np.fft.rfft(decoded))
    assert spectrum.argmax() * rate / len(decoded) == pytest.approx(500, abs=2)
    assert len(data) < 8_000
