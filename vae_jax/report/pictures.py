"""Pictures from arrays of images, and the one way to save them, with facts in text chunks."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from PIL.PngImagePlugin import PngInfo

from vae_jax.files import write_file
from vae_jax.memory import require_memory

# All in pixels.
GAP = 2  # between the images of a grid
MIN_SHOWN_HEIGHT = 64  # below about which images are enlarged
LABEL_WIDTH = 150  # of the names beside the rows of a sheet
CAPTION_HEIGHT = 13  # of the line of text below an image
CHARACTER_WIDTH = 6  # of PIL's built-in font


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Maps [0, 1] floats to uint8, rounded; uint8 passes through. Any shape."""
    if images.dtype == np.uint8:
        return images
    return np.round(np.clip(images, 0.0, 1.0) * 255.0).astype(np.uint8)


def image_grid(images: np.ndarray, columns: int) -> Image.Image:
    """Lays images out row by row on white.

    Small images are enlarged by a whole factor without smoothing.

    Args:
        images: `[N, H, W, C]`, uint8 or floats in [0, 1]; C is 1 or 3.
        columns: Images per row.

    Returns:
        An RGB picture.

    >>> image_grid(np.zeros((6, 64, 64, 3), np.uint8), columns=3).mode
    'RGB'
    """
    pixels = to_uint8(images)
    if pixels.shape[-1] == 1:
        pixels = np.repeat(pixels, 3, axis=-1)
    enlarge = max(1, MIN_SHOWN_HEIGHT // pixels.shape[1])
    pixels = pixels.repeat(enlarge, axis=1).repeat(enlarge, axis=2)
    count, height, width, _ = pixels.shape
    rows = -(-count // columns)
    shape = (rows * (height + GAP) + GAP, columns * (width + GAP) + GAP, 3)
    require_memory(2 * math.prod(shape), f"a picture of {count:,} images", "show fewer")
    sheet = np.full(shape, 255, np.uint8)
    for i, image in enumerate(pixels):
        top = GAP + (i // columns) * (height + GAP)
        left = GAP + (i % columns) * (width + GAP)
        sheet[top : top + height, left : left + width] = image
    return Image.fromarray(sheet)


def captioned_grid(images: np.ndarray, captions: Sequence[str], columns: int) -> Image.Image:
    """Lays images out row by row on white, each with a line of text below it.

    Small images are enlarged by a whole factor without smoothing.

    Args:
        images: `[N, H, W, C]`, uint8 or floats in [0, 1]; C is 1 or 3.
        captions: `[N]`, cut to the width of an image.
        columns: Images per row.

    Returns:
        An RGB picture.
    """
    enlarge = -(-MIN_SHOWN_HEIGHT // images.shape[1])
    pixels = to_uint8(images).repeat(enlarge, axis=1).repeat(enlarge, axis=2)
    height, width = pixels.shape[1:3]
    room = ((0, 0), (0, CAPTION_HEIGHT), (0, 0), (0, 0))
    sheet = image_grid(np.pad(pixels, room, constant_values=255), columns)
    pen = ImageDraw.Draw(sheet)
    for i, caption in enumerate(captions):
        left = GAP + (i % columns) * (width + GAP)
        top = GAP + (i // columns) * (height + CAPTION_HEIGHT + GAP)
        pen.text((left, top + height), caption[: width // CHARACTER_WIDTH], fill="black")
    return sheet


def paired_rows(rows: list[np.ndarray], columns: int) -> np.ndarray:
    """Interleaves rows so that a grid shows the k-th images of all of them below each other.

    Args:
        rows: Arrays `[N, H, W, C]` of one shape, such as originals and reconstructions.
        columns: Images per row of the grid; the last row is filled with white.

    Returns:
        `[M, H, W, C]`, columns of the first array, the same columns of the second, ...
    """
    count = len(rows[0])
    missing = -count % columns
    padded = [
        np.concatenate([to_uint8(row), np.full((missing, *row.shape[1:]), 255, np.uint8)])
        for row in rows
    ]
    stacked = np.stack([row.reshape(-1, columns, *row.shape[1:]) for row in padded], axis=1)
    return stacked.reshape(-1, *rows[0].shape[1:])


def labelled_sheet(rows: Sequence[tuple[str, np.ndarray]], columns: int) -> Image.Image:
    """Returns rows of images with their names at the left, as an RGB picture.

    Args:
        rows: Name and images `[N, H, W, C]` of each, of which the first `columns` are shown.
        columns: Images per row.
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


def sharpened(picture: Image.Image) -> Image.Image:
    """Returns the picture after an unsharp mask, which is for viewing, not for measuring."""
    return picture.filter(ImageFilter.UnsharpMask(radius=2, percent=120, threshold=0))


def png_bytes(picture: Image.Image, facts: Mapping[str, str]) -> bytes:
    """Returns a picture as a PNG with `facts`, such as seed and step, in its text chunks."""
    info = PngInfo()
    for name, value in facts.items():
        info.add_text(name, value)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", pnginfo=info)
    return buffer.getvalue()


def save_png(path: str | Path, picture: Image.Image, facts: Mapping[str, str]) -> Path:
    """Writes a picture, all or nothing; see `png_bytes` and `write_file`."""
    return write_file(path, png_bytes(picture, facts))
