"""Waveform to log-mel, exactly as the checkpoint's feature extractor computes it, once, and cached on disk.

Dimension words in shape comments: samples (16 kHz), clips, frames (mel, 10 ms).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from tmsearch.errors import UnavailableError
from tmsearch.features.quiet import QuietEdges, quiet_edges

PEAK_DBFS = -1.0  # EBU R 128's highest permitted level
RMS_DBFS = -26.0  # the level of speech in ITU-T's tests (P.56, G.191)
LOUDNESS_LUFS = -23.0  # EBU R 128's programme loudness
_GATE = 0.4  # seconds, the block of ITU-R BS.1770: what is shorter has no gated loudness

_ABANDONED = 3600  # seconds after which a file is no longer being written
_FORMAT = "1"  # of the cache files; part of their key


def normalize(samples: Samples, how: str) -> Samples:
    """Applies one gain to `samples` [samples]; no gain lifts the peak above PEAK_DBFS, so nothing clips.

    Args:
        samples: The clip; silence is returned as it is.
        how: One of NORMALIZATIONS: `none`, `peak` to PEAK_DBFS, `rms` to RMS_DBFS, `loudness` (ITU-R BS.1770-4,
            gated) to LOUDNESS_LUFS.
    """
    assert how in NORMALIZATIONS, how
    peak = float(np.abs(samples).max(initial=0.0))
    if how == "none" or peak == 0.0:
        return samples
    gain = 10 ** (PEAK_DBFS / 20) / peak
    if how == "rms":
        gain = min(gain, _rms_gain(samples))
    elif how == "loudness":
        gain = min(gain, _loudness_gain(samples))
    gained: Samples = (samples * np.float64(gain)).astype(np.float32)
    return gained


def _rms_gain(samples: Samples) -> float:
    rms = math.sqrt(np.mean(np.square(samples, dtype=np.float64)))
    return float(10 ** (RMS_DBFS / 20) / rms) if rms > 0 else math.inf


def _loudness_gain(samples: Samples) -> float:
    """Falls back to the RMS where no block is long or loud enough to pass the gate of -70 LUFS."""
    import pyloudnorm

    if len(samples) < _GATE * SAMPLE_RATE:
        return _rms_gain(samples)
    meter = pyloudnorm.Meter(SAMPLE_RATE, block_size=_GATE)
    loudness = float(meter.integrated_loudness(samples.astype(np.float64)))
    return float(10 ** ((LOUDNESS_LUFS - loudness) / 20)) if math.isfinite(loudness) else _rms_gain(samples)


def from_samples(samples: Sequence[Samples], extractor: WhisperFeatureExtractor, frames: int) -> torch.Tensor:
    """Log-mels [clips, n_mels, frames] of waveforms, uncached: the extractor's output[..., :frames] for each.

    Equal to a float's rounding and not to the bit, since each waveform is padded only as far as its own end and
    `frames` need, which is up to ten times faster; n_fft of silence keeps the transform's reflected edge out of
    reach. The same waveform and `frames` always give the same bits.
    """
    _check_frames(frames, extractor)
    hop = extractor.hop_length
    mels = []
    with _one_thread_in_float32():
        for waveform in samples:
            needed = max(len(waveform), frames * hop) + extractor.n_fft
            padded = min(extractor.n_samples, math.ceil(needed / hop) * hop)
            mels.append(torch.from_numpy(_extract(waveform, extractor, padded)[:, :frames]))
    if not mels:
        return torch.empty(0, extractor.feature_size, frames)
    return torch.stack(mels)  # [clips, n_mels, frames]


def of_recording(samples: Samples, extractor: WhisperFeatureExtractor) -> torch.Tensor:
    """The log-mel [n_mels, frames] of a recording of any length, without silence behind it."""
    with _one_thread_in_float32():
        features = extractor(
            samples, sampling_rate=SAMPLE_RATE, truncation=False, padding="longest", return_tensors="pt"
        )
    mel: torch.Tensor = features["input_features"][0]
    return mel


class LogMels:
    """The log-mels of a set of clips, held without the padding that each one repeats to the window's end."""

    def __init__(
        self,
        trimmed: Mapping[str, torch.Tensor],
        padding: Mapping[str, float],
        extractor: WhisperFeatureExtractor,
        device: torch.device | None = None,
    ) -> None:
        """`trimmed` are log-mels [n_mels, frames] and `padding` the values that continue them, by clip name."""
        self._padding = padding
        self._extractor = extractor
        self.device = device or torch.device("cpu")
        self._trimmed = {name: mel.to(self.device) for name, mel in trimmed.items()}
        self._edges: dict[str, QuietEdges] = {}

    def length(self, name: str) -> int:
        """Frames until the clip's padding starts."""
        return int(self._trimmed[name].shape[1])

    def quiet_edges(self, name: str) -> QuietEdges:
        """How much of the clip is quiet in front of its speech and behind it."""
        if name not in self._edges:
            self._edges[name] = quiet_edges(self._trimmed[name].cpu().numpy())
        return self._edges[name]

    def to(self, device: torch.device) -> LogMels:
        """The same on another device: two hours of speech are 0.25 GB with 80 mel bins, 0.4 GB with 128."""
        return self if device == self.device else LogMels(self._trimmed, self._padding, self._extractor, device)

    def batch(self, names: Sequence[str], frames: int) -> torch.Tensor:
        """[clips, n_mels, frames] float32, equal to the bit to the extractor's output[..., :frames]."""
        _check_frames(frames, self._extractor)
        batch = torch.empty(len(names), self._extractor.feature_size, frames, device=self.device)
        for row, name in zip(batch, names, strict=True):
            mel = self._trimmed[name][:, :frames]
            row[:, : mel.shape[1]] = mel
            row[:, mel.shape[1] :] = self._padding[name]
        return batch


def log_mels(
    corpus: Corpus, names: Sequence[str], extractor: WhisperFeatureExtractor, normalization: str, cache: Path
) -> LogMels:
    """The log-mels of clips, normalized, from a file in `cache` if one was made from the same inputs.

    A file that is cut off, altered, of other inputs or of another shape is made anew.

    Args:
        corpus: Where the clips are decoded from.
        names: The clips.
        extractor: The checkpoint's own feature extractor.
        normalization: One of NORMALIZATIONS.
        cache: Folder of the cached files.

    Raises:
        UnavailableError: The cache cannot be written.
    """
    assert extractor.dither == 0.0, "dithered features are random: they can neither be cached nor trimmed"
    wanted = sorted(set(names))
    path = cache / f"mels-{cache_key(corpus, wanted, extractor, normalization)}.safetensors"
    cached = _read(path, wanted, extractor)
    if cached is None:
        cached = {}
        with _one_thread_in_float32():
            for name in wanted:
                cached[name] = _trim(_extract(normalize(corpus.decode(name), normalization), extractor))
        try:
            _write(path, cached)
        except (OSError, safetensors.SafetensorError) as error:
            raise UnavailableError(
                f"{path}: the log-mel cache cannot be written: {error}; make room, or set TMSEARCH_CACHE"
            ) from None
    mels = {name: torch.from_numpy(mel) for name, (mel, _) in cached.items()}
    padding = {name: value for name, (_, value) in cached.items()}
    return LogMels(mels, padding, extractor)


@contextlib.contextmanager
def _one_thread_in_float32() -> Iterator[None]:
    """One clip's transform is too small to share: 20 ms on one thread, 290 ms on two of a busy machine.

    A log-mel is float32 wherever it is computed: under a caller's autocast the extractor's product with the mel
    filters would be bfloat16, which NumPy has no type for.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.autocast("cpu", enabled=False):
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
    """The frames before the padding [n_mels, frames], and the padding's one value.

    Silence is raised to 8 (2 after scaling) below the clip's own maximum, so the value differs from clip to clip.
    Where the last frame is not flat there is no padding, and every frame stays.
    """
    last = mel[0, -1]
    uneven = np.flatnonzero((mel != last).any(axis=0))
    frames = int(uneven.max(initial=0)) + 1
    return np.ascontiguousarray(mel[:, :frames]), float(last)


def cache_key(corpus: Corpus, names: Sequence[str], extractor: WhisperFeatureExtractor, normalization: str) -> str:
    """What cached log-mels are known by: a digest of all that they are made of, whatever the order of `names`."""
    settings = {name: value for name, value in extractor.to_dict().items() if name != "mel_filters"}
    levels = [normalization, PEAK_DBFS, RMS_DBFS, LOUDNESS_LUFS]
    inputs = {
        "format": _FORMAT,
        "versions": [torch.__version__, transformers.__version__],
        "corpus": corpus.fingerprint,
        "names": sorted(set(names)),
        "extractor": settings,
        "filters": hashlib.sha256(np.ascontiguousarray(extractor.mel_filters).tobytes()).hexdigest(),
        "normalisation": normalization if normalization == "none" else levels,
    }
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:32]


CachedMels = dict[str, tuple[Samples, float]]  # by clip name: trimmed log-mel [n_mels, frames] and padding's value


def _write(path: Path, cached: CachedMels) -> None:
    """Writes a file that a reader sees complete or not at all."""
    _remove_abandoned(path.parent)
    tensors = {}
    paddings = []
    for index, (mel, padding) in enumerate(cached.values()):
        tensors[f"{index:06d}"] = mel
        paddings.append(padding)
    tensors["padding"] = np.array(paddings, dtype=np.float32)  # [clips]
    with files.replacing(path) as scratch:
        safetensors.numpy.save_file(tensors, scratch, metadata={"sha256": _digest(tensors.values())})


def _remove_abandoned(folder: Path) -> None:
    """Files that a killed process left half written."""
    for part in folder.glob(files.SCRATCH):
        with contextlib.suppress(OSError):
            if abs(time.time() - part.stat().st_mtime) > _ABANDONED:  # or the clock was stepped back
                part.unlink()


def _read(path: Path, names: Sequence[str], extractor: WhisperFeatureExtractor) -> CachedMels | None:
    """What `_write` wrote, or None if there is no such file or it is damaged."""
    if not path.is_file():
        return None
    try:
        with safetensors.safe_open(path, framework="np") as file:
            paddings = file.get_tensor("padding")  # [clips]
            if paddings.shape != (len(names),):
                return None
            mels = [file.get_tensor(f"{index:06d}") for index in range(len(paddings))]
            if len(mels) != len(names) or (file.metadata() or {})["sha256"] != _digest([*mels, paddings]):
                return None
            if not all(_has_shape(mel, extractor) for mel in mels) or not _is_finite_float32(paddings):
                return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, safetensors.SafetensorError):
        return None
    cached = {}
    for name, mel, padding in zip(names, mels, paddings, strict=True):
        cached[name] = (mel, float(padding))
    return cached


def _has_shape(mel: Samples, extractor: WhisperFeatureExtractor) -> bool:
    """Whether it is a trimmed log-mel [n_mels, frames] of the extractor's: a checksum agrees with any content."""
    if mel.ndim != 2 or mel.shape[0] != extractor.feature_size:
        return False
    return 1 <= mel.shape[1] <= extractor.nb_max_frames and _is_finite_float32(mel)


def _is_finite_float32(array: Samples) -> bool:
    return array.dtype == np.float32 and bool(np.isfinite(array).all())


def _digest(arrays: Iterable[Samples]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(array.tobytes())
    return digest.hexdigest()
