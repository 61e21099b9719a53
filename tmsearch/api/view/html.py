"""Pages of styled lines as HTML for a notebook, by rich: no widget, no script, no extension."""

from __future__ import annotations

import io
from collections.abc import Sequence

from tmsearch.cli.view.terminal import StyledLine

_FORMAT = '<pre style="line-height:1.3;font-size:90%;overflow-x:auto;background:none">{code}</pre>'
_WIDEST = 400  # columns: no line is wrapped


def page(lines: Sequence[StyledLine]) -> str:
    """Lines with rich's styles as a block of HTML; all text is escaped."""
    from rich.console import Console
    from rich.text import Text

    console = Console(record=True, file=io.StringIO(), width=_WIDEST, force_jupyter=False, highlight=False)
    for line in lines:
        console.print(Text.assemble(*line), soft_wrap=True)
    return console.export_html(inline_styles=True, code_format=_FORMAT)
