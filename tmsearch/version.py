"""Which code this is: the release and, since results depend on every line, a digest of the sources."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from tmsearch import __version__


@functools.cache
def code_version() -> str:
    """The release and the first 8 hex digits of a sha256 over both packages' sources: `0.1.0+1a2b3c4d`."""
    digest = hashlib.sha256()
    root = Path(__file__).resolve().parents[1]
    for package in ("tmsearch", "search"):
        for file in sorted((root / package).rglob("*.py")):
            digest.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return f"{__version__}+{digest.hexdigest()[:8]}"
