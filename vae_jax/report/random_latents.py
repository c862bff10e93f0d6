"""Decoded random points: a sheet of rows for each run, a chart against the radius, a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vae_jax.report.charts import COLOURS, drawn, new_chart
from vae_jax.report.pictures import image_grid

LABEL_WIDTH = 150
MARKERS = {"codes": "*", "orthant": "o", "cube": "s", "normal": "D", "sphere": "^", "fitted": "P"}
KINDS = {
    "codes": "encoded images",
    "orthant": "uniform in (0, b)",
    "cube": "uniform in (-b, b)",
    "normal": "N(0, I)",
    "sphere": "sphere",
    "fitted": "fitted density",
}

PANELS = {
    "sliced_wasserstein": "Sliced Wasserstein distance to real images\n(dotted: real to real)",
    "frechet_pixels": "Frechet distance to them in 8 x 8 pixels\n(dotted: real to real)",
    "re_encoded_relative": "|E(D(z)) - z| / |z|",
}


def labelled_sheet(rows: Sequence[tuple[str, np.ndarray]], columns: int) -> Image.Image:
    """Rows of images with their names at the left.

    Args:
        rows: name and `[N, H, W, C]` images, of which the first `columns` are shown.
        columns: images a row.

    Returns:
        An RGB picture.
    """
    strips = [image_grid(images[:columns], columns) for _, images in rows]
    height = sum(strip.height for strip in strips)
    sheet = Image.new("RGB", (LABEL_WIDTH + strips[0].width, height), "white")
    pen, font, top = ImageDraw.Draw(sheet), ImageFont.load_default(size=13), 0
    for (name, _), strip in zip(rows, strips, strict=True):
        sheet.paste(strip, (LABEL_WIDTH, top))
        pen.text((4, top + strip.height / 2), name, fill="#222222", font=font, anchor="lm")
        top += strip.height
    return sheet


def radius_chart(
    figures: Mapping[str, Sequence[Mapping[str, Any]]], floors: Mapping[str, Mapping[str, float]]
) -> Image.Image:
    """Distances to real images and re-encoded distance against the mean radius, a colour a run."""
    figure, axes = new_chart(11, 4, 1, 3)
    for axis, (name, title) in zip(axes[0], PANELS.items(), strict=True):
        for colour, (run, rows) in zip(COLOURS, figures.items(), strict=False):
            for kind, marker in MARKERS.items():
                some = [row for row in rows if row["kind"] == kind]
                line = "-" if len(some) > 2 else ""
                points = [row["radius"] for row in some], [row[name] for row in some]
                axis.plot(*points, line + marker, color=colour, ms=5, lw=0.8)
            axis.plot([], [], "-", color=colour, label=run)
            if name in floors[run]:
                axis.axhline(floors[run][name], color=colour, ls=":", lw=1)
        axis.set_xscale("log")
        axis.set_xlabel("mean |z|")
        axis.set_title(title)
    axes[0, 1].set_yscale("log")
    axes[0, 0].legend(fontsize=8)
    handles = [
        axes[0, 2].plot([], [], marker, color="#555555", label=KINDS[kind])[0]
        for kind, marker in MARKERS.items()
    ]
    axes[0, 2].legend(handles=handles, fontsize=8)
    return drawn(figure)


def rows_table(
    figures: Mapping[str, Sequence[Mapping[str, Any]]], floors: Mapping[str, Mapping[str, float]]
) -> tuple[list[str], list[list[str]]]:
    """Header and rows: the points, then for each run radius, distances, re-encoded distance."""
    header = ["points"]
    for run in figures:
        header += [f"{run}: |z|", "sliced W.", "Frechet 8x8", "re-encoded", "relative"]
    table = []
    for rows in zip(*figures.values(), strict=True):
        line = [" / ".join(dict.fromkeys(row["name"] for row in rows))]
        for row in rows:
            line += [f"{row['radius']:.1f}", f"{row['sliced_wasserstein']:.3f}"]
            line += [f"{row['frechet_pixels']:.2f}", f"{row['re_encoded']:.1f}"]
            line.append(f"{row['re_encoded_relative']:.2f}")
        table.append(line)
    last = ["real images to real images"]
    for floor in floors.values():
        last += ["", f"{floor['sliced_wasserstein']:.3f}", f"{floor['frechet_pixels']:.2f}", "", ""]
    return header, [*table, last]
