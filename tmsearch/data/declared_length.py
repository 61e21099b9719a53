"""How much of the audio that a file's header declares the file holds: a download or copy that was cut short holds less.

libsndfile shortens such a recording without a word, so that a model would learn half of a sentence's sound with all of
its text. Offsets are in bytes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

# A program that writes to a pipe cannot know the length: ffmpeg writes 0xFFFFFFFF, sox 0x7FFFF000, arecord 0x80000000.
_UNKNOWN = 0x7FFF_0000
_TOLERANCE = 64  # bytes, 2 ms of 16 kHz mono: some writers count a header among the samples
_MP3_TOLERANCE = 1500  # bytes, one frame: encoders differ in whether they count the one with the table
_W64_DATA = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"


def held_share(encoded: bytes) -> float:
    """The share of the declared audio that is there: 1.0 where all of it is, or where nothing says how much it is."""
    for magic, measure in _FORMATS.items():
        if encoded.startswith(magic):
            return measure(encoded)
    return 1.0


def _share(held: int, declared: int, tolerance: int = _TOLERANCE) -> float:
    if declared >= _UNKNOWN or held >= declared - tolerance:
        return 1.0
    return max(0, held) / declared


def _chunks(encoded: bytes, start: int, order: str) -> Iterator[tuple[bytes, int, int]]:
    """Name, start of the content and declared size of each chunk of a RIFF or FORM file."""
    while start + 8 <= len(encoded):
        name = encoded[start : start + 4]
        size = int.from_bytes(encoded[start + 4 : start + 8], order)  # type: ignore[arg-type]
        yield name, start + 8, size
        start += 8 + size + size % 2


def _in_chunks(encoded: bytes) -> float:
    """Of a WAV (RIFF, big-endian RIFX, 64-bit RF64 and BW64), an AIFF or an 8SVX."""
    order = "big" if encoded.startswith((b"RIFX", b"FORM")) else "little"
    long_size = _UNKNOWN
    for name, start, size in _chunks(encoded, 12, order):
        if name == b"ds64":
            long_size = int.from_bytes(encoded[start + 8 : start + 16], "little")
        if name in (b"data", b"SSND", b"BODY"):
            is_long = size == 0xFFFF_FFFF and encoded.startswith((b"RF64", b"BW64"))
            return _share(len(encoded) - start, long_size if is_long else size)
    return 1.0


def _in_w64(encoded: bytes) -> float:
    start = 40
    while start + 24 <= len(encoded):
        size = int.from_bytes(encoded[start + 16 : start + 24], "little")  # of the whole chunk with its 24 bytes
        if encoded.startswith(_W64_DATA, start):
            return _share(len(encoded) - start, size)
        start += max(24, size + -size % 8)
    return 1.0


def _in_caf(encoded: bytes) -> float:
    start = 8
    while start + 12 <= len(encoded):
        size = int.from_bytes(encoded[start + 4 : start + 12], "big")  # 2^64 - 1: unknown
        if encoded.startswith(b"data", start):
            return _share(len(encoded) - start - 12, size)
        start += 12 + size
    return 1.0


def _in_sphere(encoded: bytes) -> float:
    """Of a NIST SPHERE file, by the fields of its text header."""
    fields = dict(re.findall(rb"^(\w+) -i (\d{1,12})\s*$", encoded[:1024], re.MULTILINE))
    header = re.match(rb"NIST_1A\n\s*(\d{1,6})\n", encoded)
    names = (b"sample_count", b"channel_count", b"sample_n_bytes")
    if header is None or not all(name in fields for name in names) or b"shorten" in encoded[:1024]:
        return 1.0
    return _share(len(encoded) - int(header[1]), math.prod(int(fields[name]) for name in names))


def _in_au(encoded: bytes) -> float:
    order = "big" if encoded.startswith(b".snd") else "little"
    start = int.from_bytes(encoded[4:8], order)  # type: ignore[arg-type]
    return _share(len(encoded) - start, int.from_bytes(encoded[8:12], order))  # type: ignore[arg-type]


def _in_ogg(encoded: bytes) -> float:
    """Of Vorbis, Opus and FLAC in Ogg: whether the last page is whole, as each says its own length alone."""
    start = 0
    while encoded.startswith(b"OggS", start):
        segments = encoded[start + 27 : start + 27 + encoded[start + 26]] if start + 27 <= len(encoded) else b""
        end = start + 27 + len(segments) + sum(segments)
        if end > len(encoded) or not segments:
            return len(encoded) / max(end, len(encoded) + 1)
        start = end
    return 1.0


def _in_mp3(encoded: bytes) -> float:
    """Of an MP3 whose first frame holds a table (Xing or Info) with the length in bytes; others say nothing."""
    start = 0
    if encoded.startswith(b"ID3"):
        start = 10
        for shift, byte in zip((21, 14, 7, 0), encoded[6:10], strict=False):
            start += (byte & 0x7F) << shift
    head = encoded[start : start + 200]
    table = max(head.find(b"Xing"), head.find(b"Info"))
    if table < 0 or len(head) < table + 16:
        return 1.0
    flags = int.from_bytes(head[table + 4 : table + 8], "big")
    if not flags & 2:
        return 1.0
    size_at = table + 8 + 4 * (flags & 1)  # after the number of frames, where that is given
    declared = int.from_bytes(head[size_at : size_at + 4], "big")
    return _share(len(encoded) - start, declared, min(_MP3_TOLERANCE, declared // 4))


_FORMATS = {
    b"RIFF": _in_chunks,
    b"RIFX": _in_chunks,
    b"RF64": _in_chunks,
    b"BW64": _in_chunks,
    b"FORM": _in_chunks,
    b"riff\x2e\x91\xcf\x11": _in_w64,
    b"caff": _in_caf,
    b"NIST_1A": _in_sphere,
    b".snd": _in_au,
    b"dns.": _in_au,
    b"OggS": _in_ogg,
    b"ID3": _in_mp3,
    b"\xff\xfb": _in_mp3,
    b"\xff\xfa": _in_mp3,
    b"\xff\xf3": _in_mp3,
    b"\xff\xf2": _in_mp3,
    b"\xff\xe3": _in_mp3,
    b"\xff\xe2": _in_mp3,
}
