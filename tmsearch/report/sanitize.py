"""Other people's text made safe for a page: shown as text, with nothing that runs and nothing invisible."""

from __future__ import annotations

import html
import json
from typing import Any

from tmsearch.formatting import INVISIBLE

_LABEL = 60  # characters of a label in a chart


def visible(text: object) -> str:
    """`text` with invisible characters as escapes such as \\u202e."""
    return INVISIBLE.sub(lambda match: match[0].encode("unicode_escape", "replace").decode("ascii"), str(text))


def shortened(text: str, longest: int = _LABEL) -> str:
    """`text` in at most `longest` characters."""
    return text if len(text) <= longest else text[: longest - 1] + "\u2026"


def label(text: object) -> str:
    """`text` for a chart: escaped, since plotly reads a few HTML tags in labels."""
    return html.escape(shortened(visible(text)), quote=False)


def script_json(value: Any) -> str:
    """JSON that is safe inside a script element: ASCII without `<`, `>` or `&`; raises ValueError for NaN."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def rate(value: float | None) -> str:
    """A WER with three decimals, an en dash where there is none."""
    return "\u2013" if value is None else f"{value:.3f}"


def signed(value: float) -> str:
    """A difference of WERs with its sign."""
    return f"{value:+.3f}".replace("-", "\u2212")


def span(interval: tuple[float, float] | None) -> str:
    """An interval as `0.194 to 0.365`; empty where there is none."""
    return "" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"
