"""Small datasets on disk for the tests: signals, and the one writer of a folder of recordings with metadata.csv."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import soundfile

RATE = 16_000  # Hz


@dataclass(frozen=True)
class RecordedClip:
    """One row of metadata.csv; without `samples` no file is written for it."""

    name: str
    text: str
    samples: np.ndarray | None  # [positions] or [positions, channels]
    rate: int = RATE
    container: str | None = None  # soundfile's format; None: by the name's suffix
    subtype: str | None = None  # soundfile's; None: the container's default
    columns: Mapping[str, object] = field(default_factory=dict)  # further columns of metadata.csv


def write_recordings(folder: Path, clips: Iterable[RecordedClip]) -> Path:
    """Writes audio files and metadata.csv, and returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for clip in clips:
        rows.append({"file_name": clip.name, "text": clip.text, **clip.columns})
        if clip.samples is not None:
            soundfile.write(folder / clip.name, clip.samples, clip.rate, clip.subtype, format=clip.container)
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    return folder


def tone(seconds=0.2, frequency=300.0, rate=RATE, amplitude=0.3):
    """A sine [positions]."""
    return amplitude * np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate)


def voice(seconds, pitch=110.0, loudness=1.0, noise=None):
    """A gliding harmonic tone in bursts [positions], as a voice has: no steady phase. `noise`: a NumPy generator."""
    time = np.arange(round(RATE * seconds)) / RATE
    phase = 2 * np.pi * np.cumsum(pitch + 20 * np.sin(2 * np.pi * 2 * time)) / RATE
    harmonics = sum(np.sin(number * phase) / number for number in range(1, 12))
    samples = 0.1 * loudness * harmonics * (np.sin(2 * np.pi * 1.5 * time) > -0.5)
    if noise is not None:
        samples = samples + 0.002 * noise.standard_normal(len(time))
    return samples


def wav(seconds=0.2, frequency=300.0, rate=RATE):
    """A tone as the bytes of a WAV file."""
    encoded = io.BytesIO()
    soundfile.write(encoded, tone(seconds, frequency, rate), rate, format="WAV")
    return encoded.getvalue()


def tone_folder(folder, *names):
    """A tone for each name, 50 Hz apart, with `sentence NAME` as its text."""
    clips = []
    for index, name in enumerate(names):
        clips.append(RecordedClip(f"{name}.wav", f"sentence {name}", tone(frequency=200.0 + 50 * index)))
    return write_recordings(folder, clips)


def air_folder(folder, count=6):
    """Speech-like clips of a second as a microphone in air hears them, with energy up to 8 kHz."""
    noise = np.random.default_rng(0)
    clips = []
    for index in range(count):
        samples = voice(1.0, pitch=100.0 + 10 * index) + 0.1 * noise.standard_normal(RATE)
        clips.append(RecordedClip(f"air{index}.wav", f"spoken in air {index}", 0.5 * samples))
    return write_recordings(folder, clips)


def struct_table(names, texts=None, **columns):
    """An Arrow table with audio as the datasets library stores it, a tone a clip."""
    audio = []
    for index, name in enumerate(names):
        audio.append({"bytes": wav(frequency=200.0 + 50 * index), "path": name})
    return pa.table({"audio": audio, "text": texts or [f"sentence {index}" for index in range(len(names))], **columns})
