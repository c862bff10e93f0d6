"""The style that all charts share, and charts as pictures, drawn without a display."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter
from PIL import Image

STYLE: dict[Any, Any] = {
    "axes.grid": True,
    "grid.color": "#e5e5e5",
    "axes.axisbelow": True,
    "axes.edgecolor": "#888888",
    "font.size": 9,
    "axes.titlesize": 9,
    "legend.frameon": False,
}
COLOURS = ("#1f6fb4", "#d9542b", "#3a9457", "#8659b5", "#b08a1e", "#5b5b5b")


def new_chart(width: float, height: float, rows: int = 1, columns: int = 1):
    """Returns a figure of `width` x `height` inches and its axes `[rows, columns]`."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure.subplots(rows, columns, squeeze=False)


class _PlainNumbers(LogFormatter):
    """Labels a logarithmic axis with 20 where Matplotlib writes 2 x 10^1."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        """Returns the label of a tick; empty if there is no room for it."""
        return f"{x:g}" if super().__call__(x, pos) else ""


def drawn(figure: Figure) -> Image.Image:
    """Returns the figure as a picture; equal figures give equal pixels."""
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        if axis.get_scale() == "log":
            axis.set_major_formatter(_PlainNumbers())
            axis.set_minor_formatter(_PlainNumbers())
    figure.set_dpi(110)
    canvas = FigureCanvasAgg(figure)
    with matplotlib.rc_context(STYLE):
        canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
