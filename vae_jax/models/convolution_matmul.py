"""Convolutions as matrix products, with hand-written gradients.

Everything here is one trilinear form in a large image, a small image and a kernel. `_gather`
(convolution), `_scatter` (transposed convolution) and `_correlate` (kernel gradient) are its three
derivatives, and each is made of plain differentiable operations, so that reverse mode can be
applied again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from vae_jax.models.convolution_geometry import Geometry
from vae_jax.models.convolution_patches import add_windows, patches_of, taps_axis

# Rules of the matrix-product form, measured on two cores with 2 MiB of L2 each and a shared L3.
_WHOLE_BYTES = 8 << 20  # patches of a whole batch up to this size are made at once
_CHUNK_BYTES = 6 << 20  # otherwise a loop over chunks of images whose patches stay in cache
_LANES = 2  # a chunk is cut into as many parts, which are computed side by side,
_LANE_BYTES = 1900 << 10  # if the patches of each are at least as large (less did not pay)
_FEW_CHANNELS = 8  # of the large image: narrow products, bound by memory rather than arithmetic


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def conv_matmul(geometry: Geometry, x: jax.Array, kernel: jax.Array) -> jax.Array:
    return _gather(geometry, x, kernel)


def _conv_forward(geometry, x, kernel):
    return _gather(geometry, x, kernel), (x, kernel)


def _conv_backward(geometry, residuals, cotangent):
    x, kernel = residuals  # a compiled program drops the input gradient where nothing reads it
    return _scatter(geometry, cotangent, kernel), _correlate(geometry, x, cotangent)


conv_matmul.defvjp(_conv_forward, _conv_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def conv_transpose_matmul(geometry: Geometry, x: jax.Array, kernel: jax.Array) -> jax.Array:
    return _scatter(geometry, x, kernel)


def _conv_transpose_forward(geometry, x, kernel):
    return _scatter(geometry, x, kernel), (x, kernel)


def _conv_transpose_backward(geometry, residuals, cotangent):
    x, kernel = residuals
    return _gather_and_correlate(geometry, cotangent, x, kernel)


conv_transpose_matmul.defvjp(_conv_transpose_forward, _conv_transpose_backward)


def _dot(a: jax.Array, b: jax.Array, contract: tuple[int, int]) -> jax.Array:
    """Product of two matrices over one axis of each, accumulated in float32 or better."""
    numbers = (((contract[0],), (contract[1],)), ((), ()))
    return lax.dot_general(a, b, numbers, preferred_element_type=_wide(a.dtype))


def _wide(dtype: jnp.dtype) -> jnp.dtype:
    return jnp.promote_types(dtype, jnp.float32)


def _chunk(geometry: Geometry, batch: int, channels: int, dtype: jnp.dtype) -> tuple[int, int]:
    """Images of a chunk, the whole batch if small, and the lanes that share those of a chunk."""
    rows, columns = geometry
    patches = rows.small * columns.small * rows.kernel * columns.kernel * channels * dtype.itemsize
    if batch * patches <= _WHOLE_BYTES:
        return batch, 1
    most = max(1, min(batch, _CHUNK_BYTES // patches))
    chunk = _largest_divisor(batch, most)
    if 2 * chunk >= most:
        lanes = _LANES if chunk * patches >= _LANES * _LANE_BYTES else 1
        return chunk, _largest_divisor(chunk, lanes)
    # A batch with as few divisors as 127: equal chunks, the last of which overlap.
    lanes = _LANES if most * patches >= _LANES * _LANE_BYTES else 1
    chunk = -(-batch // -(-batch // (most - most % lanes)))
    return chunk + -chunk % lanes, lanes


def _largest_divisor(number: int, limit: int) -> int:
    return max(size for size in range(1, limit + 1) if number % size == 0)


def _over_chunks(
    part: Callable[..., tuple[Any, Any]],
    images: tuple[jax.Array, ...],
    chunk: int,
    lanes: int,
    total: Any = None,
) -> tuple[Any, Any]:
    """Apply `part` to some images at a time, in lanes that XLA can run side by side.

    XLA's CPU back end copies patches in one thread: while a lane copies, another one multiplies.
    Where chunks do not divide the batch, the last ones begin early enough to be full; images that
    come a second time give the same results again, and add nothing to the total.

    Args:
        part: images `[n, ...]` of each array -> (result `[n, ...]` or None, a term of the total,
            linear in the last array).
        images: arrays `[B, ...]`.
        chunk: images of a step of the loop, at most B.
        lanes: parts of a chunk; divides `chunk`.
        total: what the terms are added to; None without terms.

    Returns:
        The results `[B, ...]` or None, and the total.
    """
    batch, size = len(images[0]), chunk // lanes
    if size == batch:
        result, term = part(*images)
        return result, jax.tree.map(jnp.add, total, term)

    def take(at, begin):
        *others, last = (lax.dynamic_slice_in_dim(x, begin, size) for x in images)
        if batch % chunk and total is not None:
            new = begin + jnp.arange(size) >= at * size
            last = jnp.where(new[:, None, None, None], last, 0)
        return part(*others, last)

    def step(index, carry):
        results, total = carry
        for at in (index * lanes + lane for lane in range(lanes)):
            begin = jnp.minimum(at * size, batch - size)
            result, term = take(at, begin)
            put = functools.partial(lax.dynamic_update_slice_in_dim, start_index=begin, axis=0)
            results = jax.tree.map(put, results, result)
            total = jax.tree.map(jnp.add, total, term)
        return results, total

    shapes = jax.eval_shape(take, 0, 0)[0]
    results = jax.tree.map(lambda s: jnp.zeros((batch, *s.shape[1:]), s.dtype), shapes)
    return lax.fori_loop(0, -(-batch // chunk), step, (results, total))


def _gather(geometry: Geometry, large: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolution: `[B, H, W, L]` and `[kh, kw, L, S]` -> `[B, h, w, S]`."""

    def part(large):
        return _apply(geometry, patches_of(geometry, large), kernel), None

    chunk = _chunk(geometry, large.shape[0], large.shape[3], large.dtype)
    return _over_chunks(part, (large,), *chunk)[0]


def _apply(geometry: Geometry, patches: jax.Array, kernel: jax.Array) -> jax.Array:
    small = _dot(patches, kernel.reshape(-1, kernel.shape[3]), (taps_axis(kernel.shape[2]), 0))
    shape = (-1, geometry[0].small, geometry[1].small, kernel.shape[3])
    return small.reshape(shape).astype(patches.dtype)


def _correlate(geometry: Geometry, large: jax.Array, small: jax.Array) -> jax.Array:
    """Kernel gradient: `[B, H, W, L]` and `[B, h, w, S]` -> `[kh, kw, L, S]`."""
    return _with_correlation(geometry, large, small, lambda patches: None)[1]


def _gather_and_correlate(
    geometry: Geometry, large: jax.Array, small: jax.Array, kernel: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """`_gather(large, kernel)` and `_correlate(large, small)` from the same patches."""
    return _with_correlation(geometry, large, small, lambda p: _apply(geometry, p, kernel))


def _with_correlation(
    geometry: Geometry,
    large: jax.Array,
    small: jax.Array,
    gather: Callable[[jax.Array], jax.Array | None],
) -> tuple[Any, jax.Array]:
    """`gather` of all patches, and the kernel gradient summed over them."""
    (rows, columns), channels, filters = geometry, large.shape[3], small.shape[3]
    narrow = channels < _FEW_CHANNELS

    def part(large, small):
        patches = patches_of(geometry, large)
        pixels = small.reshape(-1, filters)
        if narrow:
            term = _dot(patches, pixels, (1 - taps_axis(channels), 0))
        else:  # XLA's matrix product is fastest on a row-major left side: transpose the small one
            term = _dot(lax.optimization_barrier(pixels.T), patches, (1, 0))
        return gather(patches), term

    shape = (rows.kernel * columns.kernel * channels, filters)
    zeros = jnp.zeros(shape if narrow else shape[::-1], _wide(large.dtype))
    chunk = _chunk(geometry, large.shape[0], channels, large.dtype)
    gathered, total = _over_chunks(part, (large, small), *chunk, zeros)
    gradient = total if narrow else total.T
    kernel_shape = (rows.kernel, columns.kernel, channels, filters)
    return gathered, gradient.reshape(kernel_shape).astype(large.dtype)


def _scatter(geometry: Geometry, small: jax.Array, kernel: jax.Array) -> jax.Array:
    """Transposed convolution: `[B, h, w, S]` and `[kh, kw, L, S]` -> `[B, H, W, L]`."""
    matrix = kernel.reshape(-1, kernel.shape[3])

    def part(small):
        products = _dot(small.reshape(-1, small.shape[3]), matrix, (1, 1))
        shape = (*small.shape[:3], *kernel.shape[:3])
        return add_windows(geometry, products.reshape(shape)).astype(small.dtype), None

    chunk = (small.shape[0], 1)
    if kernel.shape[2] >= _FEW_CHANNELS:
        chunk = _chunk(geometry, small.shape[0], kernel.shape[2], small.dtype)
    large, _ = _over_chunks(part, (small,), *chunk)
    return large
