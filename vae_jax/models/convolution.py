"""Convolution and transposed convolution, by XLA's own operation or as matrix products.

XLA's kernel gradients of strided convolutions are many times slower on a CPU than the matrix
products they amount to, so `implementation="auto"` writes both operations as matrix products
there and leaves GPUs and TPUs to XLA. Semantics and kernel layouts are those of TensorFlow/Keras.

The chapter: sizes along an axis; `conv` and `conv_transpose`; XLA's form; the form as matrix
products with hand-written gradients; patches and their sum; chunks of images that stay in cache.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

Implementation = Literal["auto", "xla", "matmul"]
Padding = Literal["same", "valid"]

_LOGGER = logging.getLogger(__name__)
_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
_FLOATS = ("bfloat16", "float16", "float32", "float64")

# Rules of the matrix-product form, measured on two cores with 2 MiB of L2 each and a shared L3.
_WHOLE_BYTES = 8 << 20  # patches of a whole batch up to this size are made at once
_CHUNK_BYTES = 6 << 20  # otherwise a loop over chunks of images whose patches stay in cache
_LANES = 2  # a chunk is cut into as many parts, which are computed side by side,
_LANE_BYTES = 1900 << 10  # if the patches of each are at least as large (less did not pay)
_FEW_CHANNELS = 8  # of the large image: narrow products, bound by memory rather than arithmetic
_WIDE_CHANNELS = 128  # long enough to be copied pixel by pixel (measured on a CPU)


class Axis(NamedTuple):
    """One spatial axis: `small[i]` sees `large[i * stride + tap - low]` for every tap."""

    large: int
    small: int
    kernel: int
    stride: int
    low: int

    @property
    def high(self) -> int:
        """Zeros (or, if negative, unused pixels) after the last pixel of the large image."""
        return (self.small - 1) * self.stride + self.kernel - self.large - self.low


Geometry = tuple[Axis, Axis]


def conv_output_size(size: int, kernel: int, stride: int, padding: Padding) -> int:
    """Returns the length of a convolution's output along one axis.

    Args:
        size: The input length in pixels.
        kernel: The kernel length in pixels.
        stride: The step in pixels.
        padding: 'same' (zeros as TensorFlow places them) or 'valid' (none).

    Returns:
        Output length in pixels.

    Raises:
        ValueError: Unknown padding, a size below 1, or a kernel that does not fit ('valid').
    """
    _check_sizes(size, kernel, stride, padding)
    if padding == "same":
        return -(-size // stride)
    if kernel > size:
        raise ValueError(f"a 'valid' convolution of {size} pixels cannot hold a kernel of {kernel}")
    return (size - kernel) // stride + 1


def conv_transpose_output_size(size: int, kernel: int, stride: int, padding: Padding) -> int:
    """Returns the length of a transposed convolution's output along one axis, as Keras defines it.

    Args:
        size: The input length in pixels.
        kernel: The kernel length in pixels.
        stride: The step in pixels.
        padding: 'same' or 'valid'.

    Returns:
        Output length in pixels: `size * stride`, or `(size - 1) * stride + max(kernel, stride)`.

    Raises:
        ValueError: Unknown padding or a size below 1.
    """
    _check_sizes(size, kernel, stride, padding)
    return size * stride if padding == "same" else (size - 1) * stride + max(kernel, stride)


def conv_axis(large: int, kernel: int, stride: int, padding: Padding) -> Axis:
    """Returns the axis of a convolution of `large` pixels; arguments as `conv_output_size`."""
    small = conv_output_size(large, kernel, stride, padding)
    total = max((small - 1) * stride + kernel - large, 0)  # 0 for 'valid'
    return Axis(large, small, kernel, stride, total // 2)


def _check_sizes(size: int, kernel: int, stride: int, padding: str) -> None:
    if padding not in ("same", "valid"):
        raise ValueError(f"padding must be 'same' or 'valid', not {padding!r}")
    if min(size, kernel, stride) < 1:
        raise ValueError(f"size {size}, kernel {kernel} and stride {stride} must be at least 1")


def conv(
    x: jax.Array,
    kernel: jax.Array,
    *,
    strides: tuple[int, int] = (1, 1),
    padding: Padding = "same",
    implementation: Implementation = "auto",
    input_gradient: bool = True,
) -> jax.Array:
    """Convolves images with a kernel (cross-correlation, no bias), as `keras.layers.Conv2D`.

    Args:
        x: `[B, H, W, C]`.
        kernel: `[kh, kw, C, out]`, of the same floating type as `x`.
        strides: The steps along H and W in pixels.
        padding: 'same' or 'valid', as in TensorFlow.
        implementation: 'xla', 'matmul', or 'auto' (matrix products on a CPU, otherwise XLA).
        input_gradient: False treats `x` as a constant, so that a model's first layer skips
            the gradient with respect to the images.

    Returns:
        `[B, H', W', out]` with `H' = conv_output_size(H, kh, strides[0], padding)`.

    Raises:
        ValueError: Shapes, types or options that do not fit together.
    """
    _check_arrays(x, kernel, channel_axis=2)
    rows, columns = (
        conv_axis(size, taps, stride, padding)
        for size, taps, stride in zip(x.shape[1:3], kernel.shape[:2], strides, strict=True)
    )
    geometry = (rows, columns)
    if not input_gradient:
        x = lax.stop_gradient(x)
    if _use_matmul(implementation, x, kernel):
        return _conv_matmul(geometry, x, kernel)
    return _gather_xla(geometry, x, kernel)


def conv_transpose(
    x: jax.Array,
    kernel: jax.Array,
    *,
    strides: tuple[int, int],
    padding: Padding = "same",
    implementation: Implementation = "auto",
) -> jax.Array:
    """Applies a transposed convolution (the gradient of `conv`, no bias), as Keras does.

    Args:
        x: `[B, H, W, C]`.
        kernel: `[kh, kw, out, C]`, of the same floating type as `x`.
        strides: The upsampling factors along H and W.
        padding: 'same' or 'valid', as in TensorFlow.
        implementation: 'xla', 'matmul', or 'auto' (matrix products on a CPU, otherwise XLA).

    Returns:
        `[B, H', W', out]` with `H' = conv_transpose_output_size(H, kh, strides[0], padding)`.

    Raises:
        ValueError: Shapes, types or options that do not fit together.
    """
    _check_arrays(x, kernel, channel_axis=3)
    rows, columns = (
        conv_axis(conv_transpose_output_size(size, taps, stride, padding), taps, stride, padding)
        for size, taps, stride in zip(x.shape[1:3], kernel.shape[:2], strides, strict=True)
    )
    geometry = (rows, columns)
    if _use_matmul(implementation, x, kernel):
        return _conv_transpose_matmul(geometry, x, kernel)
    return _scatter_xla(geometry, x, kernel)


def _check_arrays(x: jax.Array, kernel: jax.Array, channel_axis: int) -> None:
    if x.ndim != 4 or kernel.ndim != 4 or x.shape[3] != kernel.shape[channel_axis]:
        raise ValueError(f"images {x.shape} [B, H, W, C] do not fit a kernel {kernel.shape}")
    if x.dtype != kernel.dtype:
        raise ValueError(f"images ({x.dtype}) and kernel ({kernel.dtype}) must be of one type")


def _use_matmul(implementation: str, x: jax.Array, kernel: jax.Array) -> bool:
    if implementation not in ("auto", "xla", "matmul"):
        raise ValueError(
            f"implementation must be 'auto', 'xla' or 'matmul', not {implementation!r}"
        )
    if implementation == "xla" or (implementation == "auto" and jax.default_backend() != "cpu"):
        return False
    if x.size and kernel.size and x.dtype.name in _FLOATS:
        return True
    _log_fallback(x.shape, kernel.shape, x.dtype.name)
    return False


@functools.cache
def _log_fallback(x_shape: tuple[int, ...], kernel_shape: tuple[int, ...], dtype: str) -> None:
    _LOGGER.warning(
        "no matrix-product form for images %s, kernel %s, %s: using XLA's convolution",
        x_shape,
        kernel_shape,
        dtype,
    )


def _gather_xla(geometry: Geometry, large: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(
        large,
        kernel,
        window_strides=[axis.stride for axis in geometry],
        padding=[(axis.low, axis.high) for axis in geometry],
        dimension_numbers=_DIMENSIONS,
    )


def _scatter_xla(geometry: Geometry, small: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(
        small,
        jnp.flip(kernel, (0, 1)).swapaxes(2, 3),
        window_strides=(1, 1),
        padding=[(a.kernel - 1 - a.low, a.kernel - 1 - a.high) for a in geometry],
        lhs_dilation=[axis.stride for axis in geometry],
        dimension_numbers=_DIMENSIONS,
    )


# As matrix products, everything is one trilinear form in a large image, a small image and a kernel.
# `_gather` (convolution), `_scatter` (transposed convolution) and `_correlate` (kernel gradient)
# are its three derivatives, each made of plain differentiable operations, so that reverse mode can
# be applied again.


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _conv_matmul(geometry: Geometry, x: jax.Array, kernel: jax.Array) -> jax.Array:
    return _gather(geometry, x, kernel)


def _conv_forward(geometry, x, kernel):
    return _gather(geometry, x, kernel), (x, kernel)


def _conv_backward(geometry, residuals, cotangent):
    x, kernel = residuals  # a compiled program drops the input gradient where nothing reads it
    return _scatter(geometry, cotangent, kernel), _correlate(geometry, x, cotangent)


_conv_matmul.defvjp(_conv_forward, _conv_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _conv_transpose_matmul(geometry: Geometry, x: jax.Array, kernel: jax.Array) -> jax.Array:
    return _scatter(geometry, x, kernel)


def _conv_transpose_forward(geometry, x, kernel):
    return _scatter(geometry, x, kernel), (x, kernel)


def _conv_transpose_backward(geometry, residuals, cotangent):
    x, kernel = residuals
    return _gather_and_correlate(geometry, cotangent, x, kernel)


_conv_transpose_matmul.defvjp(_conv_transpose_forward, _conv_transpose_backward)


def _gather(geometry: Geometry, large: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolves `[B, H, W, L]` and `[kh, kw, L, S]` -> `[B, h, w, S]`."""

    def part(large):
        return _apply(geometry, _patches_of(geometry, large), kernel), None

    chunk = _chunk(geometry, large.shape[0], large.shape[3], large.dtype)
    return _over_chunks(part, (large,), *chunk)[0]


def _apply(geometry: Geometry, patches: jax.Array, kernel: jax.Array) -> jax.Array:
    small = _dot(patches, kernel.reshape(-1, kernel.shape[3]), (_taps_axis(kernel.shape[2]), 0))
    shape = (-1, geometry[0].small, geometry[1].small, kernel.shape[3])
    return small.reshape(shape).astype(patches.dtype)


def _correlate(geometry: Geometry, large: jax.Array, small: jax.Array) -> jax.Array:
    """Returns the kernel gradient: `[B, H, W, L]` and `[B, h, w, S]` -> `[kh, kw, L, S]`."""
    return _with_correlation(geometry, large, small, lambda patches: None)[1]


def _gather_and_correlate(
    geometry: Geometry, large: jax.Array, small: jax.Array, kernel: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Returns `_gather(large, kernel)` and `_correlate(large, small)` from the same patches."""
    return _with_correlation(geometry, large, small, lambda p: _apply(geometry, p, kernel))


def _with_correlation(
    geometry: Geometry,
    large: jax.Array,
    small: jax.Array,
    gather: Callable[[jax.Array], jax.Array | None],
) -> tuple[Any, jax.Array]:
    """Computes `gather` of all patches, and the kernel gradient summed over them."""
    (rows, columns), channels, filters = geometry, large.shape[3], small.shape[3]
    narrow = channels < _FEW_CHANNELS

    def part(large, small):
        patches = _patches_of(geometry, large)
        pixels = small.reshape(-1, filters)
        if narrow:
            return gather(patches), _dot(patches, pixels, (1 - _taps_axis(channels), 0))
        return gather(patches), _dot(pixels, patches, (0, 0))

    shape = (rows.kernel * columns.kernel * channels, filters)
    zeros = jnp.zeros(shape if narrow else shape[::-1], _wide(large.dtype))
    chunk = _chunk(geometry, large.shape[0], channels, large.dtype)
    gathered, total = _over_chunks(part, (large, small), *chunk, zeros)
    gradient = total if narrow else total.T
    kernel_shape = (rows.kernel, columns.kernel, channels, filters)
    return gathered, gradient.reshape(kernel_shape).astype(large.dtype)


def _scatter(geometry: Geometry, small: jax.Array, kernel: jax.Array) -> jax.Array:
    """Transposes the convolution: `[B, h, w, S]` and `[kh, kw, L, S]` -> `[B, H, W, L]`."""
    matrix = kernel.reshape(-1, kernel.shape[3])

    def part(small):
        products = _dot(small.reshape(-1, small.shape[3]), matrix, (1, 1))
        shape = (*small.shape[:3], *kernel.shape[:3])
        return _add_windows(geometry, products.reshape(shape)).astype(small.dtype), None

    chunk = (small.shape[0], 1)
    if kernel.shape[2] >= _FEW_CHANNELS:
        chunk = _chunk(geometry, small.shape[0], kernel.shape[2], small.dtype)
    large, _ = _over_chunks(part, (small,), *chunk)
    return large


def _dot(a: jax.Array, b: jax.Array, contract: tuple[int, int]) -> jax.Array:
    """Returns the product of two matrices over one axis of each, summed in float32 or better."""
    numbers = (((contract[0],), (contract[1],)), ((), ()))
    return lax.dot_general(a, b, numbers, preferred_element_type=_wide(a.dtype))


def _wide(dtype: jnp.dtype) -> jnp.dtype:
    return jnp.promote_types(dtype, jnp.float32)


def _taps_axis(channels: int) -> int:
    """Returns the axis of `_patches_of` along which the pixels of one window lie.

    With one channel it is the first: rows of `kh * kw` numbers would be copied number by number,
    rows of `B * h * w` numbers in long pieces.
    """
    return 0 if channels == 1 else 1


def _patches_of(geometry: Geometry, large: jax.Array) -> jax.Array:
    """Returns the matrix of all windows of an image (im2col).

    A stride of columns is merged into the channels first, so that a row of a window is copied in
    few long pieces.

    Args:
        geometry: The axes of rows and columns.
        large: `[B, H, W, C]`.

    Returns:
        `[B * h * w, kh * kw * C]`, one row per window; for one channel its transpose, see
        `_taps_axis`.
    """
    rows, columns = geometry
    batch, _, _, channels = large.shape
    pieces = -(-columns.kernel // columns.stride)
    across = columns.small + pieces - 1
    right = across * columns.stride - columns.large - columns.low
    edges = [(0, 0, 0), (rows.low, rows.high, 0), (columns.low, right, 0), (0, 0, 0)]
    padded = lax.pad(large, jnp.zeros((), large.dtype), edges)
    if _taps_axis(channels) == 0:
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
    """Returns what each small pixel sees through one tap, along one axis."""
    end = tap + (along.small - 1) * along.stride + 1
    return lax.slice_in_dim(padded, tap, end, along.stride, axis=axis)


def _add_windows(geometry: Geometry, products: jax.Array) -> jax.Array:
    """Sums overlapping windows `[B, h, w, kh, kw, L]` into the image `[B, H, W, L]` (col2im).

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
    """Puts `x` `[B, h, w, L]` into a `tall` by `wide` field of zeros."""
    below, right = tall - top - x.shape[1], wide - left - x.shape[2]
    edges = [(0, 0, 0), (top, below, 0), (left, right, 0), (0, 0, 0)]
    return lax.pad(x, jnp.zeros((), x.dtype), edges)


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
    """Applies `part` to some images at a time, in lanes that XLA can run side by side.

    XLA's CPU back end copies patches in one thread: while a lane copies, another one multiplies.
    Where chunks do not divide the batch, the last ones begin early enough to be full; images that
    come a second time give the same results again, and add nothing to the total.

    Args:
        part: images `[n, ...]` of each array -> (result `[n, ...]` or None, a term of the total,
            linear in the last array).
        images: The arrays `[B, ...]`.
        chunk: The number of images in a step of the loop, at most B.
        lanes: The number of parts of a chunk; it divides `chunk`.
        total: What the terms are added to; None without terms.

    Returns:
        The results `[B, ...]` or None, and the total.
    """
    batch, size = len(images[0]), chunk // lanes
    if size == batch:
        result, term = part(*images)
        return result, jax.tree.map(jnp.add, total, term)
    part = jax.jit(part)  # is traced once for all lanes

    # A loop's counter is never below 0; JAX would compile a test for it into every step.
    slice_of = functools.partial(
        lax.dynamic_slice_in_dim, slice_size=size, allow_negative_indices=False
    )
    put_into = functools.partial(
        lax.dynamic_update_slice_in_dim, axis=0, allow_negative_indices=False
    )

    def take(at, begin):
        *others, last = (slice_of(x, begin) for x in images)
        if batch % chunk and total is not None:
            new = begin + jnp.arange(size) >= at * size
            last = jnp.where(new[:, None, None, None], last, 0)
        return part(*others, last)

    def step(index, carry):
        results, total = carry
        for at in (index * lanes + lane for lane in range(lanes)):
            begin = jnp.minimum(at * size, batch - size) if batch % chunk else at * size
            result, term = take(at, begin)
            results = jax.tree.map(functools.partial(put_into, start_index=begin), results, result)
            total = jax.tree.map(jnp.add, total, term)
        return results, total

    shapes = jax.eval_shape(take, 0, 0)[0]
    results = jax.tree.map(lambda s: jnp.zeros((batch, *s.shape[1:]), s.dtype), shapes)
    return lax.fori_loop(0, -(-batch // chunk), step, (results, total))
