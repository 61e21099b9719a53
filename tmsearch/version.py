"""Which code this is: the release and, since results depend on every line, a digest of the sources."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from tmsearch import __version__


@functools.cache
def code_version() -> str:
    """`0.1.0+1a2b3c4d`: the release, and the first 8 hex digits of sha256 over both packages' sources."""
    digest = hashlib.sha256()
    packages = Path(__file__).resolve().parent, Path(__file__).resolve().parents[1] / "search"
    for package in packages:
        for file in sorted(package.rglob("*.py")):
            digest.update(file.relative_to(package.parent).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return f"{__version__}+{digest.hexdigest()[:8]}"
