"""Waveform to log-mel, exactly as the checkpoint's feature extractor makes it, computed once and kept on disk."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy
import torch
import transformers
from transformers import WhisperFeatureExtractor

from tmsearch import files
from tmsearch.config import NORMALIZATIONS
from tmsearch.data.audio_file import SAMPLE_RATE, Samples
from tmsearch.data.corpus import Corpus
from tmsearch.errors import InputError

__all__ = ["SAMPLE_RATE", "LogMels", "from_samples", "log_mels", "normalize"]

PEAK = -1.0  # dBFS, EBU R 128's highest permitted level
RMS = -26.0  # dBFS, the level of speech in ITU-T's tests (P.56, G.191)
LOUDNESS = -23.0  # LUFS, EBU R 128's programme loudness
_GATE = 0.4  # seconds, the block of ITU-R BS.1770: what is shorter has no gated loudness

_ABANDONED = 3600  # seconds after which nobody is still writing a file
_FORMAT = "1"  # of the cache files; part of their key


def normalize(samples: Samples, how: str) -> Samples:
    """`samples` [n] with one gain: `peak` to PEAK, `rms` to RMS, `loudness` (ITU-R BS.1770-4, gated) to LOUDNESS.

    No gain lifts the peak above PEAK, so nothing clips. Silence, and `none`, come back as they are.
    """
    assert how in NORMALIZATIONS, how
    peak = float(np.abs(samples).max(initial=0.0))
    if how == "none" or peak == 0.0:
        return samples
    highest = 10 ** (PEAK / 20) / peak
    gains: dict[str, Callable[[], float]] = {
        "peak": lambda: highest,
        "rms": lambda: _rms_gain(samples),
        "loudness": lambda: _loudness_gain(samples),
    }
    gained: Samples = (samples * np.float64(min(highest, gains[how]()))).astype(np.float32)
    return gained


def _rms_gain(samples: Samples) -> float:
    rms = math.sqrt(np.mean(np.square(samples, dtype=np.float64)))
    return float(10 ** (RMS / 20) / rms) if rms > 0 else math.inf


def _loudness_gain(samples: Samples) -> float:
    """Falls back to the RMS where no block is long or loud enough to pass the gate of -70 LUFS."""
    import pyloudnorm

    if len(samples) < _GATE * SAMPLE_RATE:
        return _rms_gain(samples)
    meter = pyloudnorm.Meter(SAMPLE_RATE, block_size=_GATE)
    loudness = float(meter.integrated_loudness(samples.astype(np.float64)))
    return float(10 ** ((LOUDNESS - loudness) / 20)) if math.isfinite(loudness) else _rms_gain(samples)


def from_samples(samples: Sequence[Samples], extractor: WhisperFeatureExtractor, frames: int) -> torch.Tensor:
    """[len(samples), n_mels, frames]: the extractor's output[..., :frames] for each waveform, uncached.

    Equal to a float's rounding and not to the bit, since each waveform is padded only as far as its own end and
    `frames` need, which is up to ten times faster; n_fft of silence keeps the transform's reflected edge out of sight.
    The same waveform and `frames` always give the same bits.
    """
    _check_frames(frames, extractor)
    hop = extractor.hop_length
    made = []
    with _one_thread():
        for waveform in samples:
            needed = max(len(waveform), frames * hop) + extractor.n_fft
            padded = min(extractor.n_samples, math.ceil(needed / hop) * hop)
            made.append(torch.from_numpy(_extract(waveform, extractor, padded)[:, :frames]))
    return torch.stack(made) if made else torch.empty(0, extractor.feature_size, frames)


class LogMels:
    """The log-mels of a set of clips, held without the padding that each one repeats to the window's end."""

    def __init__(
        self,
        trimmed: Mapping[str, torch.Tensor],
        padding: Mapping[str, float],
        extractor: WhisperFeatureExtractor,
        place: torch.device | None = None,
    ) -> None:
        self._padding, self._extractor, self._place = padding, extractor, place or torch.device("cpu")
        self._trimmed = {name: mel.to(self._place) for name, mel in trimmed.items()}

    def __contains__(self, name: str) -> bool:
        return name in self._trimmed

    def length(self, name: str) -> int:
        """Frames (10 ms) until the clip's padding begins."""
        return int(self._trimmed[name].shape[1])

    def on(self, place: torch.device) -> LogMels:
        """The same on another device: two hours of speech are 0.25 GB with 80 mel bins, 0.4 GB with 128."""
        return self if place == self._place else LogMels(self._trimmed, self._padding, self._extractor, place)

    def batch(self, names: Sequence[str], frames: int) -> torch.Tensor:
        """[len(names), n_mels, frames] float32, equal to the bit to the extractor's output[..., :frames]."""
        _check_frames(frames, self._extractor)
        whole = torch.empty(len(names), self._extractor.feature_size, frames, device=self._place)
        for row, name in zip(whole, names, strict=True):
            kept = self._trimmed[name][:, :frames]
            row[:, : kept.shape[1]] = kept
            row[:, kept.shape[1] :] = self._padding[name]
        return whole


def log_mels(
    corpus: Corpus, names: Sequence[str], extractor: WhisperFeatureExtractor, normalization: str, cache: Path
) -> LogMels:
    """The log-mels of `names` after `normalise`, from a file in `cache` if one was made from the same inputs.

    A file that is cut, altered or of other inputs is made anew. Raises InputError where the cache cannot be written.
    """
    assert extractor.dither == 0.0, "dithered features are random: they can neither be cached nor trimmed"
    wanted = sorted(set(names))
    path = cache / f"mels-{_key(corpus, wanted, extractor, normalization)}.safetensors"
    found = _read(path, wanted)
    if found is None:
        with _one_thread():
            made = (_trim(_extract(normalize(corpus.decode(name), normalization), extractor)) for name in wanted)
            found = dict(zip(wanted, made, strict=True))
        try:
            _write(path, found)
        except (OSError, safetensors.SafetensorError) as error:
            raise InputError(f"{path}: the log-mel cache cannot be written: {error}") from None
    mels = {name: torch.from_numpy(mel) for name, (mel, _) in found.items()}
    return LogMels(mels, {name: padding for name, (_, padding) in found.items()}, extractor)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """One clip's transform is too small to share: 20 ms on one thread, 290 ms on two of a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _check_frames(frames: int, extractor: WhisperFeatureExtractor) -> None:
    if not 1 <= frames <= extractor.nb_max_frames:
        raise ValueError(f"{frames} frames are outside the extractor's window of {extractor.nb_max_frames}")


def _extract(waveform: Samples, extractor: WhisperFeatureExtractor, padded: int | None = None) -> Samples:
    """[n_mels, frames] of one waveform: alone, so that no other clip can change a bit of it."""
    features = extractor(waveform, sampling_rate=SAMPLE_RATE, max_length=padded, return_tensors="np")
    mel: Samples = features["input_features"][0]
    return mel


def _trim(mel: Samples) -> tuple[Samples, float]:
    """The frames before the padding, and the padding's one value.

    Silence is raised to 8 (2 after scaling) below the clip's own maximum, so the value differs from clip to clip.
    Where the last frame is not flat there is no padding, and every frame stays.
    """
    last = mel[0, -1]
    uneven = np.flatnonzero((mel != last).any(axis=0))
    kept = int(uneven[-1]) + 1 if len(uneven) else 1
    return np.ascontiguousarray(mel[:, :kept]), float(last)


def _key(corpus: Corpus, names: Sequence[str], extractor: WhisperFeatureExtractor, normalization: str) -> str:
    settings = {name: value for name, value in extractor.to_dict().items() if name != "mel_filters"}
    inputs = {
        "format": _FORMAT,
        "versions": [torch.__version__, transformers.__version__],
        "corpus": corpus.fingerprint,
        "names": list(names),
        "extractor": settings,
        "filters": hashlib.sha256(np.ascontiguousarray(extractor.mel_filters).tobytes()).hexdigest(),
        "normalisation": normalization if normalization == "none" else [normalization, PEAK, RMS, LOUDNESS],
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:32]


Stored = dict[str, tuple[Samples, float]]


def _write(path: Path, stored: Stored) -> None:
    """Writes a file that a reader sees complete or not at all."""
    for abandoned in path.parent.glob(files.SCRATCH):  # by a process that was killed
        with contextlib.suppress(OSError):
            if time.time() - abandoned.stat().st_mtime > _ABANDONED:
                abandoned.unlink()
    mels = [mel for mel, _ in stored.values()]
    paddings = np.array([padding for _, padding in stored.values()], dtype=np.float32)
    tensors = {f"{index:06d}": mel for index, mel in enumerate(mels)} | {"padding": paddings}
    with files.replacing(path) as scratch:
        safetensors.numpy.save_file(tensors, scratch, metadata={"sha256": _digest([*mels, paddings])})


def _read(path: Path, names: Sequence[str]) -> Stored | None:
    """What `_write` wrote, or None if there is no such file or it is not whole."""
    if not path.is_file():
        return None
    try:
        with safetensors.safe_open(path, framework="np") as file:
            paddings = file.get_tensor("padding")
            mels = [file.get_tensor(f"{index:06d}") for index in range(len(paddings))]
            if len(mels) != len(names) or (file.metadata() or {})["sha256"] != _digest([*mels, paddings]):
                return None
    except (OSError, ValueError, KeyError, safetensors.SafetensorError):
        return None
    return dict(zip(names, zip(mels, map(float, paddings), strict=True), strict=True))


def _digest(arrays: Sequence[Samples]) -> str:
    whole = hashlib.sha256()
    for array in arrays:
        whole.update(array.tobytes())
    return whole.hexdigest()
