"""Shaded, antialiased shapes in head coordinates: what procedural faces are drawn with.

Head coordinates are pixels of a 178 x 218 picture, origin at the middle of the head, y down.
Points are complex numbers, x + iy, so that NumPy moves and measures them in one step. Every shape
is a closed polygon `[N]`; its coverage is drawn at four times the size and averaged down, and its
colour is multiplied by one light field over the head.
"""

from __future__ import annotations

import colorsys
import functools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw

from vae_jax.data.faces.factors import FaceFactors

REFERENCE_SIZE = (178, 218)  # CelebA's aligned pictures: width, height.
HEAD_CENTRE = (89.0, 116.0)
OVERSAMPLING = 4
GLOW_REACH = 2.2  # A Gaussian glow is cut off where it is below 1 % of its middle.

Color = np.ndarray  # [3] float32, sRGB in 0..255.


def ramp(tones: np.ndarray, position: float) -> Color:
    """Returns the colour at `position` in 0..1 along `tones` `[N, 3]`, interpolated linearly."""
    place = position * (len(tones) - 1)
    first = min(int(place), len(tones) - 2)
    return tones[first] + (place - first) * (tones[first + 1] - tones[first])


def hsv(hue: float, saturation: float, value: float) -> Color:
    """Returns the sRGB colour `[3]` of hue, saturation and value, each in 0..1."""
    return 255 * np.array(colorsys.hsv_to_rgb(hue % 1.0, saturation, value), np.float32)


def mix(first: Color, second: ArrayLike, share: float) -> Color:
    """Returns `first` with the given share of `second`."""
    return first + np.float32(share) * (np.asarray(second, np.float32) - first)


@functools.cache
def steps(first: float, last: float, count: int) -> np.ndarray:
    """Returns `count` equal steps from `first` to `last`, computed once for all faces."""
    values = np.linspace(first, last, count)
    values.setflags(write=False)
    return values


def curve(x: np.ndarray | float, y: np.ndarray | float) -> np.ndarray:
    """Returns the points of `x` and `y`, which broadcast against each other."""
    return np.add(x, 1j * y)


def band(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns the outline of what lies between two lines of points `[..., N]`."""
    return np.concatenate([first, second[..., ::-1]], axis=-1)


WHITE = np.array((255, 255, 255), np.float32)
ROUND = np.linspace(0, 2 * np.pi, 32, endpoint=False)
COS, SIN = np.cos(ROUND), np.sin(ROUND)


def ellipse(
    x: np.ndarray | float, y: np.ndarray | float, rx: float, ry: float, power: float = 1.0
) -> np.ndarray:
    """Returns a superellipse `[..., 32]`; `power` below 1 squares the corners."""
    cos, sin = COS, SIN
    if power != 1.0:
        cos, sin = np.sign(COS) * np.abs(COS) ** power, np.sign(SIN) * np.abs(SIN) ** power
    return curve(x + rx * cos, y + ry * sin)


def ribbon(points: np.ndarray, width: np.ndarray | float) -> np.ndarray:
    """Outlines a stroke of the given width (a number or `[N]`) along `points` `[..., N]`."""
    along = np.empty_like(points)
    along[..., 1:-1] = points[..., 2:] - points[..., :-2]
    along[..., 0] = points[..., 1] - points[..., 0]
    along[..., -1] = points[..., -1] - points[..., -2]
    across = 0.5 * width / (np.abs(along) + 1e-9) * (1j * along)
    return band(points + across, points - across)


Window = tuple[int, int, int, int]  # Left, top, right, bottom in pixels.


def overlap(first: Window, second: Window) -> Window:
    """Returns what two windows share; one without pixels if they share nothing."""
    left, top = max(first[0], second[0]), max(first[1], second[1])
    right, bottom = min(first[2], second[2]), min(first[3], second[3])
    return left, top, max(right, left), max(bottom, top)


def is_empty(window: Window) -> bool:
    """Returns whether a window has no pixels."""
    return window[0] == window[2] or window[1] == window[3]


class Region(NamedTuple):
    """Part of the picture: `share` `[h, w]` of each pixel of a window, in 0..1."""

    window: Window
    share: np.ndarray

    def inside(self, window: Window) -> np.ndarray:
        """Returns the share of each pixel of a window that lies in the region's own."""
        left, top, _, _ = self.window
        return self.share[window[1] - top : window[3] - top, window[0] - left : window[2] - left]


class Paint(NamedTuple):
    """What `Canvas.fill` and `Canvas.glow` record; shapes are indices into `Canvas.shapes`."""

    shape: int | None  # None for a glow.
    color: Color
    opacity: float
    lit: bool = True
    glossy: bool = False
    within: int | None = None
    hole: int | None = None


class Canvas:
    """A picture under construction, addressed in head coordinates.

    Shapes and paints are recorded, and `image` draws them all: NumPy and Pillow take little longer
    for the points of forty shapes than for those of one.

    Args:
        factors: What gives the pose of the head and the light.
        size: Width and height in pixels.
    """

    def __init__(self, factors: FaceFactors, size: tuple[int, int]):
        width, height = size
        self.size = size
        self.scale = np.array([width / REFERENCE_SIZE[0], height / REFERENCE_SIZE[1]])
        cos, sin = math.cos(factors.roll), math.sin(factors.roll)
        self.rotation = factors.zoom * np.array([[cos, sin], [-sin, cos]])
        self.origin = np.array(HEAD_CENTRE) + (factors.shift_x, factors.shift_y)
        back = np.linalg.inv(self.rotation).astype(np.float32)
        column = ((np.arange(width) + 0.5) / self.scale[0] - self.origin[0]).astype(np.float32)
        row = ((np.arange(height) + 0.5) / self.scale[1] - self.origin[1]).astype(np.float32)
        self.grid = np.empty((2, height, width), np.float32)  # Head coordinates x and y.
        np.add(column * back[0, 0], row[:, None] * back[1, 0], out=self.grid[0])
        np.add(column * back[0, 1], row[:, None] * back[1, 1], out=self.grid[1])
        self.light = self._light(factors)
        self.pixels = np.zeros((3, height, width), np.float32)  # Planes: numpy is faster there.
        self.shapes: list[np.ndarray] = []
        self.spots: list[tuple[float, float, float, float]] = []  # x, y and radii of the glows.
        self.paints: list[Paint] = []

    def _light(self, factors: FaceFactors) -> np.ndarray:
        """Returns the brightness `[H, W]` of a head-sized ellipsoid under a distant light."""
        across, down = self.grid[0] * np.float32(1 / 60), self.grid[1] * np.float32(1 / 78)
        edge = np.minimum(across * across + down * down, 1.2)
        lit = factors.light_x * across + factors.light_y * down
        light = factors.exposure * (1.03 + factors.light_strength * lit - 0.17 * edge * edge)
        return np.clip(light, 0.45, 1.35)

    def shape(self, points: np.ndarray) -> int:
        """Records a polygon `[N]` that is needed more than once, and returns its handle."""
        self.shapes.append(points)
        return len(self.shapes) - 1

    def fill(
        self,
        shape: np.ndarray | int,
        color: Color,
        opacity: float = 1.0,
        *,
        lit: bool = True,
        glossy: bool = False,
        within: int | None = None,
        hole: int | None = None,
    ) -> None:
        """Paints a polygon.

        Args:
            shape: A polygon `[N]`, or the handle of one.
            color: The colour in sRGB, `[3]`.
            opacity: The share of the new colour where the polygon covers a pixel.
            lit: Whether the light of the head changes the colour.
            glossy: Whether the gloss of hair changes the light.
            within: What bounds the painting, such as an eye around its iris.
            hole: What stays unpainted, such as a lens in its rim.
        """
        handle = shape if isinstance(shape, int) else self.shape(shape)
        self.paints.append(Paint(handle, color, opacity, lit, glossy, within, hole))

    def glow(
        self,
        x: float,
        y: float,
        rx: float,
        ry: float,
        color: Color,
        opacity: float,
        within: int | None = None,
    ) -> None:
        """Blends in a soft Gaussian spot of radii `rx`, `ry` (1/e) at `(x, y)`."""
        self.spots.append((x, y, rx, ry))
        self.paints.append(Paint(None, color, opacity, within=within))

    def image(self, gloss: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Image.Image:
        """Draws everything and returns the picture, rounded to 8 bits.

        Args:
            gloss: The factor `[h, w]` on the brightness of what is glossy, as a function of head
                coordinates `x` and `y`, each `[h, w]`.
        """
        regions, spots = self._draw_shapes(), self._draw_spots()
        shine = self._shine(gloss, regions)
        colors = np.array([paint.color for paint in self.paints], np.float32)[:, :, None, None]
        for paint, color in zip(self.paints, colors, strict=True):
            region = next(spots) if paint.shape is None else regions[paint.shape]
            self._blend(paint, color, region, regions, shine)
        self.pixels += np.float32(0.5)
        levels = np.minimum(self.pixels, np.float32(255), out=self.pixels).astype(np.uint8)
        return Image.merge("RGB", [Image.fromarray(plane) for plane in levels])

    def _blend(
        self, paint: Paint, color: np.ndarray, region: Region, regions: list[Region], shine: Region
    ) -> None:
        """Blends one paint of colour `[3, 1, 1]` into the pixels where its region covers them."""
        window, alpha = region
        if paint.within is not None:
            window = overlap(window, regions[paint.within].window)
        if is_empty(window):
            return
        if paint.opacity != 1.0:
            alpha = alpha * np.float32(paint.opacity)
        if paint.within is not None:
            alpha = Region(region.window, alpha).inside(window)
            alpha = alpha * regions[paint.within].inside(window)
        if paint.hole is not None:
            hole, alpha = regions[paint.hole], alpha.copy()
            shared = overlap(window, hole.window)
            left_over = Region(window, alpha).inside(shared)
            left_over *= 1 - hole.inside(shared)
        left, top, right, bottom = window
        below = self.pixels[:, top:bottom, left:right]
        if paint.lit:
            change = color * self.light[top:bottom, left:right]
            if paint.glossy:
                change *= shine.inside(window)
            change -= below
        else:
            change = color - below
        change *= alpha
        below += change

    def _to_pixels(self, points: np.ndarray) -> np.ndarray:
        """Returns where points `[N]` lie in the picture, `[2, N]`."""
        pairs = points.view(np.float64).reshape(-1, 2)
        return (self.rotation.T @ pairs.T + self.origin[:, None]) * self.scale[:, None]

    def _windows(self, low: np.ndarray, high: np.ndarray) -> list[Window]:
        """Returns the part of the picture from corner `low` to corner `high`, each `[2, N]`."""
        size = np.array(self.size)[:, None]
        low = np.minimum(np.maximum(low, 0), size)
        high = np.maximum(np.minimum(high, size), low)
        return np.concatenate([low, high]).T.tolist()

    def _draw_shapes(self) -> list[Region]:
        """Returns the coverage of every shape; all are drawn and averaged down in one picture."""
        lengths = np.array([len(points) for points in self.shapes])
        ends = np.cumsum(lengths)
        starts = ends - lengths
        # Pillow cuts coordinates off: done here, so that moving a shape does not change it.
        corners = (self._to_pixels(np.concatenate(self.shapes)) * OVERSAMPLING - 0.5).astype(int)
        low = np.minimum.reduceat(corners, starts, axis=1) // OVERSAMPLING
        high = np.maximum.reduceat(corners, starts, axis=1) // OVERSAMPLING + 1
        windows = self._windows(low, high)
        moves, height = _stacked(windows, low[1].tolist(), high[1].tolist(), self.size[0])
        corners[1] += np.repeat(moves, lengths) * OVERSAMPLING
        # Pillow reads 32-bit arrays from memory, though its types name lists only.
        corners = corners.T.astype(np.float32, order="C")
        picture = Image.new("L", (self.size[0] * OVERSAMPLING, height * OVERSAMPLING))
        pen = ImageDraw.Draw(picture)
        for start, end, window in zip(starts.tolist(), ends.tolist(), windows, strict=True):
            if not is_empty(window):
                pen.polygon(corners[start:end], fill=255)  # pyright: ignore[reportArgumentType]
        share = np.asarray(picture.reduce(OVERSAMPLING)) * np.float32(1 / 255)
        return [
            Region((left, top, right, bottom), share[top + move : bottom + move, left:right])
            for (left, top, right, bottom), move in zip(windows, moves, strict=True)
        ]

    def _draw_spots(self) -> Iterator[Region]:
        """Yields the Gaussian of every glow."""
        if not self.spots:
            return
        spots = np.array(self.spots)  # [N, 4]
        x, y, rx, ry = spots.T[:, :, None]
        outlines = ellipse(x, y, rx * GLOW_REACH, ry * GLOW_REACH)  # [N, 32]
        placed = self._to_pixels(outlines.ravel()).reshape(2, *outlines.shape)
        low, high = placed.min(axis=2).astype(int) - 1, placed.max(axis=2).astype(int) + 2
        middles = spots[:, :2, None, None].astype(np.float32)
        factors = (1 / spots[:, 2:, None, None]).astype(np.float32)
        for middle, factor, window in zip(middles, factors, self._windows(low, high), strict=True):
            left, top, right, bottom = window
            square = self.grid[:, top:bottom, left:right] - middle
            square *= factor
            square *= square
            yield Region(window, np.exp(-(square[0] + square[1])))

    def _shine(
        self, gloss: Callable[[np.ndarray, np.ndarray], np.ndarray], regions: list[Region]
    ) -> Region:
        """Returns the gloss in the smallest window around everything glossy."""
        glossy = [regions[p.shape].window for p in self.paints if p.glossy and p.shape is not None]
        lefts, tops, rights, bottoms = zip(*glossy or [(0, 0, 0, 0)], strict=True)
        window = left, top, right, bottom = min(lefts), min(tops), max(rights), max(bottoms)
        return Region(window, gloss(*self.grid[:, top:bottom, left:right]))


def _stacked(
    windows: list[Window], firsts: list[int], ends: list[int], width: int
) -> tuple[list[int], int]:
    """Stacks shapes without overlap: returns the rows each moves down, and the total height.

    Nothing moves sideways: where a polygon of Pillow rounds depends on the column, but not on
    the row. Rows outside the picture, from `firsts` to `ends`, count: they are drawn as well.
    """
    skyline = [0] * (width // 8 + 1)  # The first free row of every eight columns.
    moves = [0] * len(windows)
    widest_first = sorted(range(len(windows)), key=lambda i: windows[i][0] - windows[i][2])
    for i in widest_first:
        if not is_empty(windows[i]):
            columns = slice(windows[i][0] // 8, windows[i][2] // 8 + 1)
            row = max(skyline[columns])
            skyline[columns] = [row + ends[i] - firsts[i]] * len(skyline[columns])
            moves[i] = row - firsts[i]
    return moves, max(*skyline, 1)
