"""A plotly figure that a notebook shows without plotly's script in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go


class CurveFigure(go.Figure):  # type: ignore[misc]  # plotly has no types
    """Curves: plotly's own JSON for front ends that know it, and a picture for all others.

    plotly itself would write its script of megabytes into the notebook's file.

    Args:
        content: `data` and `layout` as plotly has them.
        picture: the same as SVG.
    """

    _ipython_display_ = None

    def __init__(self, content: Mapping[str, Any] | None = None, picture: str = "", **more: Any) -> None:
        super().__init__(dict(content) if content is not None else None, **more)
        self.__dict__["_picture"] = picture

    def _repr_mimebundle_(self, *_: Any, **__: Any) -> dict[str, Any]:
        """IPython's hook."""
        picture = self.__dict__["_picture"]
        content = self.to_plotly_json()
        content["layout"].pop("template", None)
        return {"application/vnd.plotly.v1+json": content, "text/html": picture, "text/plain": repr(type(self))}
