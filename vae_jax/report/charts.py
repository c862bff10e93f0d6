"""The style that all charts share, and charts as pictures, drawn without a display."""

from __future__ import annotations

from collections.abc import Mapping
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
STAR = "★"


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


def heat_map(
    values: Mapping[tuple[Any, Any], float],
    title: str,
    form: str,
    labels: tuple[str, str],
    best: tuple[Any, Any] | None = None,
    centred: bool = False,
) -> Image.Image:
    """Draws values over two quantities as coloured cells, with the values written into them.

    Args:
        values: Values by row and column, the numbers that rows and columns are ordered by; cells
            without a finite value stay empty.
        title: Title of the chart.
        form: Format of the values.
        labels: What rows and columns are.
        best: Row and column of the cell that gets a `STAR`.
        centred: Whether the colours show both signs around zero.
    """
    rows, columns = (sorted(set(places)) for places in zip(*values, strict=True))
    table = np.array([[values.get((row, column), np.nan) for column in columns] for row in rows])
    figure, ((axes,),) = new_chart(5.2, 3.6)
    axes.grid(False)
    cmap, reach = ("RdBu_r", np.nanmax(np.abs(table))) if centred else ("viridis", None)
    lowest = None if reach is None else -reach
    axes.imshow(table, aspect="auto", alpha=0.45, cmap=cmap, vmin=lowest, vmax=reach)
    for (i, j), value in np.ndenumerate(table):
        if np.isfinite(value):
            star = f"{STAR} " if best == (rows[i], columns[j]) else ""
            text = axes.text(j, i, star + form.format(value), ha="center", va="center")
            text.set(fontsize=7.5, fontweight="bold" if star else "normal")
    axes.set_yticks(range(len(rows)), [f"{row:g}" for row in rows])
    axes.set_xticks(range(len(columns)), [f"{column:g}" for column in columns])
    axes.set(title=title, xlabel=labels[1], ylabel=labels[0])
    return drawn(figure)
