"""Pictures of the patterns that excite feature maps: arrays in, pictures out."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from vae_jax.report.pictures import GAP, MIN_SHOWN_HEIGHT, to_uint8

CAPTION_HEIGHT = 13
CHARACTER_WIDTH = 6  # of PIL's built-in font


def captioned_grid(images: np.ndarray, captions: Sequence[str], columns: int) -> Image.Image:
    """Images row by row on white, each with a line of text below it.

    Small images are enlarged by a whole factor without smoothing.

    Args:
        images: `[N, H, W, C]`, uint8 or floats in [0, 1]; C is 1 or 3.
        captions: `[N]`, cut to the width of an image.
        columns: images a row.

    Returns:
        An RGB picture.
    """
    pixels = to_uint8(np.asarray(images))
    enlarge = max(1, -(-MIN_SHOWN_HEIGHT // pixels.shape[1]))
    pixels = pixels.repeat(enlarge, axis=1).repeat(enlarge, axis=2)
    if pixels.shape[-1] == 1:
        pixels = np.repeat(pixels, 3, axis=-1)
    count, height, width, _ = pixels.shape
    cell = (height + CAPTION_HEIGHT + GAP, width + GAP)
    rows = -(-count // columns)
    sheet = Image.new("RGB", (columns * cell[1] + GAP, rows * cell[0] + GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (image, caption) in enumerate(zip(pixels, captions, strict=True)):
        left, top = GAP + (i % columns) * cell[1], GAP + (i // columns) * cell[0]
        sheet.paste(Image.fromarray(image), (left, top))
        text = caption[: width // CHARACTER_WIDTH]
        draw.text((left, top + height), text, fill="black")
    return sheet


def response_curves(curves: np.ndarray, names: Sequence[str]) -> Image.Image:
    """Responses over steps, both axes as they are best read: steps logarithmic.

    Args:
        curves: `[T, M]`, response of M maps at T steps.
        names: `[M]`, for the legend.

    Returns:
        An RGB picture.
    """
    figure = Figure(figsize=(7, 4.5), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for curve, name in zip(curves.T, names, strict=True):
        axes.plot(np.arange(1, len(curves) + 1), curve, linewidth=1, label=name)
    axes.set(xscale="log", xlabel="step", ylabel="mean activation of the map")
    axes.grid(alpha=0.3)
    if len(names) <= 12:
        axes.legend(fontsize="small")
    buffer = io.BytesIO()
    canvas.print_png(buffer)
    return Image.open(buffer).convert("RGB")
