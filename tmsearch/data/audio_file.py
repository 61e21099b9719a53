"""Encoded audio -> samples: whatever libsndfile reads, as 16 kHz mono.

Shapes: `positions` are sample positions in time, `channels` the recording's channels.
"""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import numpy.typing as npt

from tmsearch.data.declared_length import held_share
from tmsearch.errors import TmsearchError
from tmsearch.foreign import plain_files
from tmsearch.foreign.plain_files import ForeignFileError

if TYPE_CHECKING:
    import soundfile

Samples = npt.NDArray[np.float32]

SAMPLE_RATE = 16_000  # Hz, of every Whisper checkpoint
MAX_SECONDS = 30.0  # the window that Whisper was trained on

MOST_BYTES = 128 * 2**20  # of a clip's file: 30 s of four channels at 192 kHz in 32 bits have 92 MB
_MOST_VALUES = 2**26  # samples of all channels, 268 MB decoded: compression makes a small file of many silent channels

_WAV_FLOAT = 3  # WAV's code of floating-point samples

# What libsndfile does not read, by its first bytes, and what to do about it.
_CONVERT = "libsndfile does not read it; convert it: ffmpeg -i FILE FILE.flac"
_UNREADABLE = (
    (0, b"\xff\xf1", f"AAC: {_CONVERT}"),
    (0, b"\xff\xf9", f"AAC: {_CONVERT}"),
    (4, b"ftyp", f"m4a or MP4 (AAC): {_CONVERT}"),
    (0, b"\x30\x26\xb2\x75", f"WMA: {_CONVERT}"),
    (0, b"\x1a\x45\xdf\xa3", f"WebM or Matroska: {_CONVERT}"),
    (0, b"#!AMR", f"AMR: {_CONVERT}"),
    (0, b"version https://git-lfs", "a pointer of Git LFS instead of the file; run `git lfs pull` where it came from"),
    (0, b"<!", "a web page instead of audio; download it again"),
    (0, b"<html", "a web page instead of audio; download it again"),
)

# A sample counts as clipped when it and a neighbour lie within 0.009 dB of full scale: a lone one is only a peak.
_FULL_SCALE = 0.999


class UnusableAudioError(TmsearchError):
    """A recording that no model can learn from; the message is the reason."""


@dataclass(frozen=True)
class Recording:
    """A clip before it became 16 kHz mono: rate in Hz, levels relative to full scale, share of samples clipped."""

    sample_rate: int
    channels: int
    peak: float
    rms: float
    clipped: float


UNKNOWN_RECORDING = Recording(sample_rate=SAMPLE_RATE, channels=1, peak=0.0, rms=0.0, clipped=0.0)


def read_file(path: Path) -> bytes:
    """The bytes of a plain file that is no larger than a clip can be; raises UnusableAudioError or OSError."""
    try:
        return plain_files.read_bytes(path, MOST_BYTES)
    except ForeignFileError as error:
        raise UnusableAudioError(str(error)) from None


def open_sound(stream: BinaryIO) -> soundfile.SoundFile:
    """A recording, opened at its start; raises UnusableAudioError that says what the file is instead."""
    import soundfile

    head = stream.read(32)
    stream.seek(0)
    try:
        return soundfile.SoundFile(stream)
    except soundfile.LibsndfileError as error:
        for start, magic, reason in _UNREADABLE:
            if head.lower().startswith(magic.lower(), start):
                raise UnusableAudioError(f"unreadable: {reason}") from None
        raise UnusableAudioError(f"unreadable: {error.error_string}") from None


def decode(encoded: bytes) -> tuple[Samples, int]:
    """Decodes a file's bytes; never more than MAX_SECONDS of it.

    Returns:
        The samples [positions, channels] at their own rate, and that rate in Hz.

    Raises:
        UnusableAudioError: libsndfile cannot read it, it is cut short, holds NaN or infinities, or is longer than
            MAX_SECONDS.
    """
    import soundfile

    held = held_share(encoded)
    if held < 1:
        raise UnusableAudioError(f"cut short: the file holds {held:.0%} of the audio that its header declares")
    with open_sound(io.BytesIO(encoded)) as file:
        rate = file.samplerate
        frames = int(MAX_SECONDS * rate) + 1
        declared_seconds = file.frames / rate
        if min(frames, file.frames) * file.channels > _MOST_VALUES:
            raise UnusableAudioError(f"too large: {file.channels} channels at {rate} Hz")
        try:
            samples = file.read(frames, dtype="float32", always_2d=True)  # [positions, channels]
        except soundfile.LibsndfileError as error:
            raise UnusableAudioError(f"unreadable: {error.error_string}") from None
    if len(samples) > MAX_SECONDS * rate:
        seconds = max(declared_seconds, len(samples) / rate)
        raise UnusableAudioError(f"longer than {MAX_SECONDS:g} s: {seconds:.1f} s")
    if not np.isfinite(samples).all():
        raise UnusableAudioError("unreadable: holds NaN or infinite samples")
    return samples, rate


def float_wav(samples: Samples, rate: int) -> bytes:
    """`samples` [positions, channels] as a WAV of floats: what libsndfile decodes fits in without rounding.

    By hand, since libsndfile writes the time of day into such a file, and the same samples must have the same bytes.
    """
    channels = samples.shape[1]
    content = samples.astype("<f4").tobytes()
    block = 4 * channels  # bytes a position
    chunks = b"WAVEfmt " + struct.pack("<IHHIIHH", 16, _WAV_FLOAT, channels, rate, rate * block, block, 32)
    chunks += b"data" + struct.pack("<I", len(content)) + content
    return b"RIFF" + struct.pack("<I", len(chunks)) + chunks


def read_channel(read: Callable[[], bytes], channel: int) -> bytes:
    """The recording that `read` returns with this one of its channels alone, counted from 0.

    Raises:
        UnusableAudioError: As `decode`, and where the recording has no such channel.
    """
    encoded = read()
    if not encoded:
        return b""
    samples, rate = decode(encoded)  # [positions, channels]
    channels = samples.shape[1]
    if channel >= channels:
        there = "one channel, 0" if channels == 1 else f"channels 0 to {channels - 1}"
        raise UnusableAudioError(f"has {there}, and no channel {channel}: see data.channel")
    return float_wav(samples[:, channel : channel + 1], rate)


def mono(samples: Samples, rate: int) -> Samples:
    """Averages the channels and resamples by soxr at its high quality.

    Args:
        samples: [positions, channels].
        rate: Of `samples`, in Hz.

    Returns:
        [positions] at SAMPLE_RATE.
    """
    mixed = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
    if rate == SAMPLE_RATE:
        return np.ascontiguousarray(mixed)
    import soxr

    resampled: Samples = soxr.resample(mixed, rate, SAMPLE_RATE)
    return resampled


def measure(encoded: bytes) -> tuple[float, Recording, str]:
    """Duration in seconds and levels of a file's bytes, and a sha256, in hex, of its samples, whatever the format.

    Raises:
        UnusableAudioError: As `decode`, and for empty and silent recordings.
    """
    samples, rate = decode(encoded)
    if len(samples) * SAMPLE_RATE // rate < 1:
        raise UnusableAudioError("empty: not one sample")
    mixed = samples.mean(axis=1)
    if mixed.max() == mixed.min():
        raise UnusableAudioError("all digital silence")
    recording = Recording(
        sample_rate=rate,
        channels=samples.shape[1],
        peak=float(np.abs(samples).max()),
        rms=float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))),
        clipped=_clipped_share(samples),
    )
    return len(samples) / rate, recording, hashlib.sha256(samples.tobytes()).hexdigest()


def _clipped_share(samples: Samples) -> float:
    full_scale = np.abs(samples) >= _FULL_SCALE  # [positions, channels]
    has_full_scale_neighbour = np.zeros_like(full_scale)
    has_full_scale_neighbour[1:] |= full_scale[:-1]
    has_full_scale_neighbour[:-1] |= full_scale[1:]
    return float(np.mean(full_scale & has_full_scale_neighbour))
