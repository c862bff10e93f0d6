"""Shaded, antialiased shapes in head coordinates: what procedural faces are drawn with.

Head coordinates are pixels of a 178 x 218 picture, origin at the middle of the head, y down.
Every shape is a closed polygon `[N, 2]`; its coverage is drawn at four times the size and
averaged down, and its colour is multiplied by one light field over the head.
"""

from __future__ import annotations

import colorsys
import math
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


def curve(x: np.ndarray, y: np.ndarray | float) -> np.ndarray:
    """Returns points `[N, 2]` of `x` `[N]` and of `y`, `[N]` or one number."""
    points = np.empty((len(x), 2))
    points[:, 0] = x
    points[:, 1] = y
    return points


WHITE = np.array((255, 255, 255), np.float32)
ROUND = np.linspace(0, 2 * np.pi, 32, endpoint=False)
COS, SIN = np.cos(ROUND), np.sin(ROUND)


def ellipse(x: float, y: float, rx: float, ry: float, power: float = 1.0) -> np.ndarray:
    """Returns a superellipse `[32, 2]`; `power` below 1 squares the corners."""
    cos, sin = COS, SIN
    if power != 1.0:
        cos, sin = np.sign(COS) * np.abs(COS) ** power, np.sign(SIN) * np.abs(SIN) ** power
    return curve(x + rx * cos, y + ry * sin)


def ribbon(points: np.ndarray, width: np.ndarray | float) -> np.ndarray:
    """Outlines a stroke of the given width (a number or `[N]`) along `points` `[N, 2]`."""
    along = np.empty_like(points)
    along[1:-1] = points[2:] - points[:-2]
    along[0], along[-1] = points[1] - points[0], points[-1] - points[-2]
    half = 0.5 * width / (np.hypot(along[:, 0], along[:, 1]) + 1e-9)
    across = curve(-half * along[:, 1], half * along[:, 0])
    return np.concatenate([points + across, (points - across)[::-1]])


Window = tuple[int, int, int, int]  # Left, top, right, bottom in pixels.


class Region(NamedTuple):
    """Part of the picture: `share` `[h, w]` of each pixel of a window, in 0..1."""

    window: Window
    share: np.ndarray

    def seen_through(self, window: Window) -> np.ndarray:
        """Returns the share of each pixel of another window, 0 outside the region's own."""
        left, top = max(window[0], self.window[0]), max(window[1], self.window[1])
        right, bottom = min(window[2], self.window[2]), min(window[3], self.window[3])
        seen = np.zeros((window[3] - window[1], window[2] - window[0]), np.float32)
        if left < right and top < bottom:
            inner = np.s_[top - self.window[1] : bottom - self.window[1]]
            across = np.s_[left - self.window[0] : right - self.window[0]]
            seen[top - window[1] : bottom - window[1], left - window[0] : right - window[0]] = (
                self.share[inner, across]
            )
        return seen


class Canvas:
    """A picture under construction, addressed in head coordinates.

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
        self.x = column[None, :] * back[0, 0] + row[:, None] * back[1, 0]  # [H, W]
        self.y = column[None, :] * back[0, 1] + row[:, None] * back[1, 1]  # [H, W]
        self.light = self._light(factors)
        self.scratch = Image.new("L", (width * OVERSAMPLING, height * OVERSAMPLING))
        self.pen = ImageDraw.Draw(self.scratch)
        self.pixels = np.zeros((3, height, width), np.float32)  # Planes: numpy is faster there.

    def _light(self, factors: FaceFactors) -> np.ndarray:
        """Returns the brightness `[H, W]` of a head-sized ellipsoid under a distant light."""
        across, down = self.x * np.float32(1 / 60), self.y * np.float32(1 / 78)
        edge = np.minimum(across * across + down * down, 1.2)
        lit = factors.light_x * across + factors.light_y * down
        light = factors.exposure * (1.03 + factors.light_strength * lit - 0.17 * edge * edge)
        return np.clip(light, 0.45, 1.35)

    def _to_pixels(self, points: np.ndarray) -> np.ndarray:
        return (points @ self.rotation + self.origin) * self.scale

    def _window(self, placed: np.ndarray) -> Window:
        low_x, low_y = np.minimum.reduce(placed).tolist()
        high_x, high_y = np.maximum.reduce(placed).tolist()
        left, top = max(int(low_x) - 1, 0), max(int(low_y) - 1, 0)
        right, bottom = min(int(high_x) + 2, self.size[0]), min(int(high_y) + 2, self.size[1])
        return left, top, max(right, left), max(bottom, top)

    def region(self, points: np.ndarray) -> Region:
        """Returns the coverage of a polygon `[N, 2]`."""
        placed = self._to_pixels(points)
        window = left, top, right, bottom = self._window(placed)
        if left == right or top == bottom:
            return Region(window, np.zeros((bottom - top, right - left), np.float32))
        box = (left * OVERSAMPLING, top * OVERSAMPLING, right * OVERSAMPLING, bottom * OVERSAMPLING)
        self.pen.polygon((placed * OVERSAMPLING - 0.5).ravel().tolist(), fill=255)
        share = np.asarray(self.scratch.reduce(OVERSAMPLING, box)) * np.float32(1 / 255)
        self.pen.rectangle(box, fill=0)
        return Region(window, share)

    def fill(
        self,
        shape: np.ndarray | Region,
        color: Color,
        opacity: float = 1.0,
        *,
        lit: bool = True,
        within: Region | None = None,
        hole: Region | None = None,
        gloss: np.ndarray | None = None,
    ) -> None:
        """Paints a polygon.

        Args:
            shape: A polygon `[N, 2]`, or its region where that is needed more than once.
            color: The colour in sRGB, `[3]`.
            opacity: The share of the new colour where the polygon covers a pixel.
            lit: Whether the light of the head changes the colour.
            within: What bounds the painting, such as an eye around its iris.
            hole: What stays unpainted, such as a lens in its rim.
            gloss: A factor `[H, W]` on the brightness, such as the shine of hair.
        """
        region = shape if isinstance(shape, Region) else self.region(shape)
        alpha = region.share if opacity == 1.0 else region.share * np.float32(opacity)
        if within is not None:
            alpha = alpha * within.seen_through(region.window)
        if hole is not None:
            alpha = alpha * (1 - hole.seen_through(region.window))
        self._blend(region.window, color, alpha, lit, gloss)

    def glow(
        self,
        x: float,
        y: float,
        rx: float,
        ry: float,
        color: Color,
        opacity: float,
        within: Region | None = None,
    ) -> None:
        """Blends in a soft Gaussian spot of radii `rx`, `ry` (1/e) at `(x, y)`."""
        placed = self._to_pixels(ellipse(x, y, rx * GLOW_REACH, ry * GLOW_REACH))
        window = left, top, right, bottom = self._window(placed)
        area = np.s_[top:bottom, left:right]
        across = (self.x[area] - np.float32(x)) * np.float32(1 / rx)
        down = (self.y[area] - np.float32(y)) * np.float32(1 / ry)
        alpha = np.float32(opacity) * np.exp(-(across * across + down * down))
        if within is not None:
            alpha *= within.seen_through(window)
        self._blend(window, color, alpha)

    def _blend(
        self,
        window: Window,
        color: Color,
        alpha: np.ndarray,
        lit: bool = True,
        gloss: np.ndarray | None = None,
    ) -> None:
        left, top, right, bottom = window
        area = np.s_[top:bottom, left:right]
        below = self.pixels[:, top:bottom, left:right]
        change = np.asarray(color, np.float32)[:, None, None]
        if lit:
            change = change * self.light[area]
        if gloss is not None:
            change = change * gloss[area]
        change = change - below
        change *= alpha
        below += change

    def image(self) -> Image.Image:
        """Returns the picture, rounded to 8 bits."""
        levels = np.minimum(self.pixels + np.float32(0.5), 255).astype(np.uint8)
        return Image.merge("RGB", [Image.fromarray(plane) for plane in levels])
