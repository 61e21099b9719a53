"""A folder of noise recordings, and noise mixed under speech at a given ratio.

Dimension words in shape comments: samples (16 kHz), positions (at a file's own rate), channels.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tmsearch.data.audio_file import SAMPLE_RATE, Samples, UnusableAudioError, open_sound
from tmsearch.data.audiofolder import AUDIO_SUFFIXES, visible
from tmsearch.errors import InputError
from tmsearch.foreign import plain_files
from tmsearch.foreign.plain_files import ForeignFileError

_KEY = "data.noise"
_MOST_CHANNELS = 64
_BLOCK = 2**20  # bytes
_MARGIN = 0.05  # seconds more than are needed are read, for the resampler's edge


@dataclass(frozen=True)
class NoiseRecording:
    """One file of noise, of any length."""

    path: Path
    rate: int  # Hz
    frames: int  # positions

    @property
    def seconds(self) -> float:
        return self.frames / self.rate


@dataclass(frozen=True)
class Noise:
    """The recordings of a folder; `fingerprint` is a sha256 over their names and bytes."""

    folder: str
    recordings: tuple[NoiseRecording, ...]
    fingerprint: str

    @property
    def seconds(self) -> float:
        return sum(recording.seconds for recording in self.recordings)

    def mixed(self, speech: Samples, snr_db: float, rng: np.random.Generator) -> Samples:
        """`speech` [samples] over a part of a recording, both drawn by `rng`.

        The mean powers of all of `speech` and of the noise are `snr_db` dB apart. Speech is returned as it is where it
        or the part drawn is digital silence.

        Raises:
            InputError: The file can no longer be read.
        """
        recording = self.recordings[int(rng.integers(len(self.recordings)))]
        noise = _part(recording, len(speech), float(rng.random()))
        noise_power = float(np.mean(np.square(noise, dtype=np.float64)))
        speech_power = float(np.mean(np.square(speech, dtype=np.float64)))
        if noise_power == 0 or speech_power == 0:
            return speech
        gain = math.sqrt(speech_power / noise_power / 10 ** (snr_db / 10))
        mixture: Samples = (speech + gain * noise).astype(np.float32)
        return mixture


def load_noise(folder: str) -> Noise:
    """All audio files below `folder` that are not hidden; each is opened, and read once for the fingerprint.

    Raises:
        InputError: There is no such folder, it holds no audio, or a file of it cannot be read.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise InputError(f"{_KEY}: {folder}: no such folder; give one of noise recordings")
    files = [path for path in visible(root, "*") if path.suffix.lower() in AUDIO_SUFFIXES]
    if not files:
        raise InputError(f"{_KEY}: {folder}: holds no audio file; give a folder of noise recordings (wav, flac, ogg)")
    recordings = []
    sha256 = hashlib.sha256()
    for path in files:
        name = path.relative_to(root).as_posix()
        recording, digest = _opened(path, f"{_KEY}: {folder}/{name}")
        recordings.append(recording)
        sha256.update(f"{name}\0{digest}\0".encode("utf-8", "surrogatepass"))
    return Noise(folder, tuple(recordings), sha256.hexdigest())


def _opened(path: Path, shown: str) -> tuple[NoiseRecording, str]:
    """A recording and the sha256 of its bytes; raises InputError that begins with `shown`."""
    try:
        with plain_files.open_plain(path) as stream:
            sha256 = hashlib.sha256()
            while block := stream.read(_BLOCK):
                sha256.update(block)
            stream.seek(0)
            with open_sound(stream) as file:
                recording = NoiseRecording(path, file.samplerate, file.frames)
                channels = file.channels
    except (OSError, ForeignFileError, UnusableAudioError) as error:
        raise InputError(f"{shown}: {error}; repair it or take it out of the folder") from None
    if recording.frames < 1 or channels > _MOST_CHANNELS:
        fault = "empty" if recording.frames < 1 else f"{channels} channels"
        raise InputError(f"{shown}: {fault}; take it out of the folder")
    return recording, sha256.hexdigest()


def _part(recording: NoiseRecording, count: int, place: float) -> Samples:
    """`count` samples [samples], mono at 16 kHz, from a share `place` of where they may start; repeated if too few."""
    import soundfile
    import soxr

    needed = math.ceil((count / SAMPLE_RATE + _MARGIN) * recording.rate)
    start = int(place * max(0, recording.frames - needed))
    try:
        with plain_files.open_plain(recording.path) as stream, open_sound(stream) as file:
            file.seek(start)
            positions = file.read(needed, dtype="float32", always_2d=True)  # [positions, channels]
    except (OSError, ForeignFileError, UnusableAudioError, soundfile.LibsndfileError) as error:
        raise InputError(f"{_KEY}: {recording.path}: readable at first, but no longer: {error}") from None
    mono = np.nan_to_num(positions.mean(axis=1))
    samples = mono if recording.rate == SAMPLE_RATE else soxr.resample(mono, recording.rate, SAMPLE_RATE)
    if not len(samples):
        return np.zeros(count, np.float32)
    repeated: Samples = np.resize(samples, count).astype(np.float32)
    return repeated
