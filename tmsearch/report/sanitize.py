"""Text of strangers made fit for a page: all of it is shown as text, and nothing of it runs or hides."""

from __future__ import annotations

import html
import json
import re
from typing import Any

# What a browser would not show, or would obey: controls, marks that turn the direction of writing, halves of
# surrogate pairs. Letters that are written from the right, and what joins emoji, stay.
_HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff\ufff9-\ufffb]"
)
_LABEL = 60  # characters of a label in a chart


def visible(text: object) -> str:
    """`text` with what hides in it as escapes such as \\u202e."""
    return _HIDDEN.sub(lambda found: found[0].encode("unicode_escape", "replace").decode("ascii"), str(text))


def shortened(text: str, longest: int = _LABEL) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "\u2026"


def label(text: object) -> str:
    """For a chart: plotly reads labels as a little markup of its own."""
    return html.escape(shortened(visible(text)), quote=False)


def script_json(value: Any) -> str:
    """JSON that can stand in a script element: no `<`, `>` or `&`, nothing beyond ASCII, no NaN."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def rate(value: float | None) -> str:
    """A WER."""
    return "\u2013" if value is None else f"{value:.3f}"


def signed(value: float) -> str:
    """A difference of WERs."""
    return f"{value:+.3f}".replace("-", "\u2212")


def span(interval: tuple[float, float] | None) -> str:
    """An interval."""
    return "" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"


def duration(seconds: float) -> str:
    """`42 s`, `7 min`, `3.4 h`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def size(count: int) -> str:
    """`512 bytes`, `38 kB`, `3.2 MB`."""
    if count < 1000:
        return f"{count} bytes"
    return f"{count / 1000:.0f} kB" if count < 1_000_000 else f"{count / 1e6:.1f} MB"
