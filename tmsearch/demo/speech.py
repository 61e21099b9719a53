"""Speech without a speaker: espeak-ng's voices, and the filter that makes clean speech sound like a throat mic."""

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
CLEAN_PEAK = 0.5  # of full scale: the one level that pre-training hears
LONGEST = 3.7  # seconds; the models hear 4

ACCENTS = ("en-us", "en-gb", "en-gb-x-rp", "en-us-nyc")
VARIANTS = ("m1", "m3", "m7", "f2", "f4")


@dataclass(frozen=True)
class Voice:
    """One way to speak: espeak-ng's voice name, pitch (0 to 99), speed in words a minute, silence in front in s."""

    name: str
    pitch: int
    speed: int
    lead: float


def voice(rng: random.Random) -> Voice:
    """A voice drawn from four accents and five speakers, around each one's own pitch."""
    name = f"{rng.choice(ACCENTS)}+{rng.choice(VARIANTS)}"
    return Voice(name, rng.randint(35, 65), rng.randint(155, 200), rng.uniform(0.05, 0.25))


def speak(text: str, voice: Voice) -> Samples:
    """`text` in `voice`: [n] at 16 kHz, trimmed, peak at CLEAN_PEAK; raises InputError where espeak-ng is missing."""
    command = ["espeak-ng", "-v", voice.name, "-p", str(voice.pitch), "-s", str(voice.speed), "--stdout", text]
    try:
        spoken = subprocess.run(command, capture_output=True, check=True).stdout
    except FileNotFoundError as error:
        raise InputError("espeak-ng: not found; install it first (Debian: apt-get install espeak-ng)") from error
    # The header of a streamed WAV cannot know its length, so it is skipped: 44 bytes, then 16-bit mono.
    wave = np.frombuffer(spoken[44 : 44 + (len(spoken) - 44) // 2 * 2], "<i2").astype(np.float32) / 32_768
    wave = soxr.resample(wave, ESPEAK_RATE, SAMPLE_RATE)
    loud = np.flatnonzero(np.abs(wave) > 0.01 * np.abs(wave).max())
    wave = wave[loud[0] : loud[-1] + 1] * (CLEAN_PEAK / np.abs(wave).max())
    pad = (round(voice.lead * SAMPLE_RATE), round(0.1 * SAMPLE_RATE))
    return np.pad(wave, pad).astype(np.float32)


def throat(clean: Samples, rng: np.random.Generator) -> Samples:
    """The same [n] samples as a throat microphone hears them, in -1..1.

    A band-pass of about 70 to 1500 Hz (fourth-order Butterworth slopes) with the resonance of tissue near 450 Hz,
    noise of the body below 150 Hz, and a level that varies by 32 dB from clip to clip: the loudest clips are clipped.
    """
    low, high = rng.uniform(60, 80), rng.uniform(1350, 1650)  # Hz
    resonance, gain = rng.uniform(380, 520), rng.uniform(0.0, 0.6)  # Hz, linear
    frequency = np.fft.rfftfreq(len(clean), 1 / SAMPLE_RATE)
    safe = np.maximum(frequency, 1.0)
    band = 1 / np.sqrt((1 + (low / safe) ** 8) * (1 + (frequency / high) ** 8))
    band *= 1 + gain * np.exp(-(((frequency - resonance) / 120) ** 2))
    wave = np.fft.irfft(np.fft.rfft(clean) * band, len(clean))
    body = np.fft.irfft(
        np.fft.rfft(rng.standard_normal(len(clean))) / (1 + (frequency / 60) ** 4) * (safe > 15), len(clean)
    )
    wave /= np.abs(wave).max()
    wave += body / np.abs(body).max() * 10 ** (rng.uniform(-46, -30) / 20)
    level = 10 ** (rng.uniform(-26, 6) / 20)
    return np.clip(wave * level, -1, 1).astype(np.float32)
