"""Synthetic speech: espeak-ng's voices, and a filter that makes clean speech sound like a throat microphone's."""

from __future__ import annotations

import random
import subprocess
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import soxr

from tmsearch.errors import InputError

Samples = npt.NDArray[np.float32]

SAMPLE_RATE = 16_000
ESPEAK_RATE = 22_050
WAV_HEADER = 44  # bytes
CLEAN_PEAK = 0.5  # of full scale: the one level in pre-training
LONGEST = 3.7  # seconds; the models' context is 4

ACCENTS = ("en-us", "en-gb", "en-gb-x-rp", "en-us-nyc")
VARIANTS = ("m1", "m3", "m7", "f2", "f4")


@dataclass(frozen=True)
class Voice:
    """A voice of espeak-ng."""

    name: str
    pitch: int  # 0 to 99
    speed: int  # words a minute
    lead: float  # silence in front, seconds


def voice(rng: random.Random) -> Voice:
    """Draws a voice from four accents and five speakers, with a pitch, a speed and a lead."""
    name = f"{rng.choice(ACCENTS)}+{rng.choice(VARIANTS)}"
    return Voice(name, rng.randint(35, 65), rng.randint(155, 200), rng.uniform(0.05, 0.25))


def speak(text: str, voice: Voice) -> Samples:
    """Speaks `text`: [samples] at 16 kHz, trimmed, peak at CLEAN_PEAK. Raises InputError where espeak-ng is missing."""
    command = ["espeak-ng", "-v", voice.name, "-p", str(voice.pitch), "-s", str(voice.speed), "--stdout", text]
    try:
        wav = subprocess.run(command, capture_output=True, check=True).stdout
    except FileNotFoundError as error:
        raise InputError("espeak-ng: not found; install it first (Debian: apt-get install espeak-ng)") from error
    # A streamed WAV's header has no length, so it is skipped: 44 bytes, then 16-bit mono.
    count = (len(wav) - WAV_HEADER) // 2
    wave = np.frombuffer(wav, "<i2", count, WAV_HEADER).astype(np.float32) / 32_768
    wave = soxr.resample(wave, ESPEAK_RATE, SAMPLE_RATE)
    loud = np.flatnonzero(np.abs(wave) > 0.01 * np.abs(wave).max())
    wave = wave[loud[0] : loud[-1] + 1] * (CLEAN_PEAK / np.abs(wave).max())
    pad = (round(voice.lead * SAMPLE_RATE), round(0.1 * SAMPLE_RATE))
    return np.pad(wave, pad).astype(np.float32)


def throat(clean: Samples, rng: np.random.Generator) -> Samples:
    """Samples [samples] as a throat microphone records them, in -1..1.

    A band-pass of about 70 to 1500 Hz (fourth-order Butterworth slopes) with the resonance of tissue near 450 Hz,
    noise of the body below 150 Hz, and a level that varies by 32 dB from clip to clip: the loudest clips are clipped.
    """
    low_hz = rng.uniform(60, 80)
    high_hz = rng.uniform(1350, 1650)
    resonance_hz = rng.uniform(380, 520)
    gain = rng.uniform(0.0, 0.6)
    hertz = np.fft.rfftfreq(len(clean), 1 / SAMPLE_RATE)  # [samples / 2 + 1]
    positive = np.maximum(hertz, 1.0)
    band = 1 / np.sqrt((1 + (low_hz / positive) ** 8) * (1 + (hertz / high_hz) ** 8))
    band *= 1 + gain * np.exp(-(((hertz - resonance_hz) / 120) ** 2))
    wave = np.fft.irfft(np.fft.rfft(clean) * band, len(clean))  # [samples]
    noise = np.fft.rfft(rng.standard_normal(len(clean))) / (1 + (hertz / 60) ** 4) * (positive > 15)
    body = np.fft.irfft(noise, len(clean))  # [samples]
    wave /= np.abs(wave).max()
    wave += body / np.abs(body).max() * 10 ** (rng.uniform(-46, -30) / 20)
    level = 10 ** (rng.uniform(-26, 6) / 20)
    return np.clip(wave * level, -1, 1).astype(np.float32)
