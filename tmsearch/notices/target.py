"""Where a notice goes: a webhook's URL, which may be a secret, or the desktop of this machine."""

from __future__ import annotations

from urllib.parse import urlsplit

DESKTOP = "desktop"


def is_target(text: str) -> bool:
    """Whether it is `desktop` or an http(s) URL."""
    if text == DESKTOP:
        return True
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and text.isprintable() and " " not in text
    except ValueError:
        return False
