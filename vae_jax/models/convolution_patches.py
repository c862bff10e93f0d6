"""Windows of an image as the rows of a matrix, and their sum back into an image."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax

from vae_jax.models.convolution_geometry import Axis, Geometry

_WIDE_CHANNELS = 128  # long enough to be copied pixel by pixel (measured on a CPU)


def taps_axis(channels: int) -> int:
    """The axis of `patches_of` along which the pixels of one window lie.

    With one channel it is the first: rows of `kh * kw` numbers would be copied number by number,
    rows of `B * h * w` numbers in long pieces.
    """
    return 0 if channels == 1 else 1


def patches_of(geometry: Geometry, large: jax.Array) -> jax.Array:
    """The matrix of all windows of an image (im2col).

    A stride of columns is merged into the channels first, so that a row of a window is copied in
    few long pieces.

    Args:
        geometry: rows and columns.
        large: `[B, H, W, C]`.

    Returns:
        `[B * h * w, kh * kw * C]`, a row a window; for one channel its transpose (see `taps_axis`).
    """
    rows, columns = geometry
    batch, _, _, channels = large.shape
    pieces = -(-columns.kernel // columns.stride)
    across = columns.small + pieces - 1
    right = across * columns.stride - columns.large - columns.low
    edges = [(0, 0, 0), (rows.low, rows.high, 0), (columns.low, right, 0), (0, 0, 0)]
    padded = lax.pad(large, jnp.zeros((), large.dtype), edges)
    if taps_axis(channels) == 0:
        lines = [_taps(padded, columns, tap, axis=2) for tap in range(columns.kernel)]
        taps = [_taps(line, rows, tap, axis=1) for tap in range(rows.kernel) for line in lines]
        return lax.concatenate(taps, 0).reshape(rows.kernel * columns.kernel, -1)
    merged = padded.reshape(batch, -1, across, columns.stride * channels)
    spans = []
    for piece in range(pieces):
        width = min(columns.stride, columns.kernel - piece * columns.stride) * channels
        span = lax.slice_in_dim(merged, piece, piece + columns.small, axis=2)
        spans.append(lax.slice_in_dim(span, 0, width, axis=3))
    if channels < _WIDE_CHANNELS:
        spans = [lax.concatenate(spans, 3)]
    taps = [_taps(span, rows, tap, axis=1) for tap in range(rows.kernel) for span in spans]
    return lax.concatenate(taps, 3).reshape(batch * rows.small * columns.small, -1)


def _taps(padded: jax.Array, along: Axis, tap: int, axis: int) -> jax.Array:
    """What each small pixel sees through one tap, along one axis."""
    end = tap + (along.small - 1) * along.stride + 1
    return lax.slice_in_dim(padded, tap, end, along.stride, axis=axis)


def add_windows(geometry: Geometry, products: jax.Array) -> jax.Array:
    """Sum overlapping windows `[B, h, w, kh, kw, L]` into the image `[B, H, W, L]` (col2im).

    Pixels whose padded position is `phase` modulo the stride get every stride-th tap, each one
    shifted by whole small pixels; the phases are summed one by one and interleaved at the end.
    """
    rows, columns = geometry
    tall, wide = (axis.small + (axis.kernel - 1) // axis.stride for axis in geometry)

    def phase_sum(i: int, j: int) -> jax.Array:
        terms = [
            _place(products[:, :, :, a, b], a // rows.stride, b // columns.stride, tall, wide)
            for a in range(i, rows.kernel, rows.stride)
            for b in range(j, columns.kernel, columns.stride)
        ]
        zeros = jnp.zeros((products.shape[0], tall, wide, products.shape[5]), products.dtype)
        return functools.reduce(jnp.add, terms) if terms else zeros

    phases = jnp.stack(
        [
            jnp.stack([phase_sum(i, j) for j in range(columns.stride)], axis=3)
            for i in range(rows.stride)
        ],
        axis=2,
    )  # [B, tall, stride, wide, stride, L]
    padded = phases.reshape(
        products.shape[0], tall * rows.stride, wide * columns.stride, products.shape[5]
    )
    crop = [
        (-axis.low, axis.low + axis.large - length, 0)
        for axis, length in zip(geometry, padded.shape[1:3], strict=True)
    ]
    zero = jnp.zeros((), products.dtype)
    return lax.pad(padded, zero, [(0, 0, 0), *crop, (0, 0, 0)])


def _place(x: jax.Array, top: int, left: int, tall: int, wide: int) -> jax.Array:
    """Put `x` `[B, h, w, L]` into a `tall` by `wide` field of zeros."""
    return jnp.pad(
        x,
        ((0, 0), (top, tall - top - x.shape[1]), (left, wide - left - x.shape[2]), (0, 0)),
    )
