"""Convolution and transposed convolution, by XLA's own operation or as matrix products.

XLA's kernel gradients of strided convolutions are many times slower on a CPU than the matrix
products they amount to, so `implementation="auto"` writes both operations as matrix products
there and leaves GPUs and TPUs to XLA. Semantics and kernel layouts are those of TensorFlow/Keras.

Everything here is one trilinear form in a large image, a small image and a kernel. `_gather`
(convolution), `_scatter` (transposed convolution) and `_correlate` (kernel gradient) are its three
derivatives, and each is made of plain differentiable operations, so that reverse mode can be
applied again.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Literal, NamedTuple

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
_FEW_CHANNELS = 8  # of the large image: narrow products, bound by memory rather than arithmetic


class _Axis(NamedTuple):
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


_Geometry = tuple[_Axis, _Axis]


def conv_output_size(size: int, kernel: int, stride: int, padding: Padding) -> int:
    """Length of a convolution's output along one axis.

    Args:
        size: input length in pixels.
        kernel: kernel length in pixels.
        stride: step in pixels.
        padding: 'same' (zeros as TensorFlow places them) or 'valid' (none).

    Returns:
        Output length in pixels.

    Raises:
        ValueError: unknown padding, a size below 1, or a kernel that does not fit ('valid').
    """
    _check_sizes(size, kernel, stride, padding)
    if padding == "same":
        return -(-size // stride)
    if kernel > size:
        raise ValueError(f"a 'valid' convolution of {size} pixels cannot hold a kernel of {kernel}")
    return (size - kernel) // stride + 1


def conv_transpose_output_size(size: int, kernel: int, stride: int, padding: Padding) -> int:
    """Length of a transposed convolution's output along one axis, as Keras defines it.

    Args:
        size: input length in pixels.
        kernel: kernel length in pixels.
        stride: step in pixels.
        padding: 'same' or 'valid'.

    Returns:
        Output length in pixels: `size * stride`, or `(size - 1) * stride + max(kernel, stride)`.

    Raises:
        ValueError: unknown padding or a size below 1.
    """
    _check_sizes(size, kernel, stride, padding)
    return size * stride if padding == "same" else (size - 1) * stride + max(kernel, stride)


def conv(
    x: jax.Array,
    kernel: jax.Array,
    *,
    strides: tuple[int, int] = (1, 1),
    padding: Padding = "same",
    implementation: Implementation = "auto",
    input_gradient: bool = True,
) -> jax.Array:
    """Convolve images with a kernel (cross-correlation, no bias), as `keras.layers.Conv2D`.

    Args:
        x: `[B, H, W, C]`.
        kernel: `[kh, kw, C, out]`, of the same floating type as `x`.
        strides: steps along H and W in pixels.
        padding: 'same' or 'valid', as in TensorFlow.
        implementation: 'xla', 'matmul', or 'auto' (matrix products on a CPU, otherwise XLA).
        input_gradient: False treats `x` as a constant, so that a model's first layer skips
            the gradient with respect to the images.

    Returns:
        `[B, H', W', out]` with `H' = conv_output_size(H, kh, strides[0], padding)`.

    Raises:
        ValueError: shapes, types or options that do not fit together.
    """
    _check_arrays(x, kernel, channel_axis=2)
    rows, columns = (
        _conv_axis(size, taps, stride, padding)
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
    """Transposed convolution (the input gradient of `conv`, no bias), as Keras' Conv2DTranspose.

    Args:
        x: `[B, H, W, C]`.
        kernel: `[kh, kw, out, C]`, of the same floating type as `x`.
        strides: upsampling factors along H and W.
        padding: 'same' or 'valid', as in TensorFlow.
        implementation: 'xla', 'matmul', or 'auto' (matrix products on a CPU, otherwise XLA).

    Returns:
        `[B, H', W', out]` with `H' = conv_transpose_output_size(H, kh, strides[0], padding)`.

    Raises:
        ValueError: shapes, types or options that do not fit together.
    """
    _check_arrays(x, kernel, channel_axis=3)
    rows, columns = (
        _conv_axis(conv_transpose_output_size(size, taps, stride, padding), taps, stride, padding)
        for size, taps, stride in zip(x.shape[1:3], kernel.shape[:2], strides, strict=True)
    )
    geometry = (rows, columns)
    if _use_matmul(implementation, x, kernel):
        return _conv_transpose_matmul(geometry, x, kernel)
    return _scatter_xla(geometry, x, kernel)


def _check_sizes(size: int, kernel: int, stride: int, padding: str) -> None:
    if padding not in ("same", "valid"):
        raise ValueError(f"padding must be 'same' or 'valid', not {padding!r}")
    if min(size, kernel, stride) < 1:
        raise ValueError(f"size {size}, kernel {kernel} and stride {stride} must be at least 1")


def _check_arrays(x: jax.Array, kernel: jax.Array, channel_axis: int) -> None:
    if x.ndim != 4 or kernel.ndim != 4 or x.shape[3] != kernel.shape[channel_axis]:
        raise ValueError(f"images {x.shape} [B, H, W, C] do not fit a kernel {kernel.shape}")
    if x.dtype != kernel.dtype:
        raise ValueError(f"images ({x.dtype}) and kernel ({kernel.dtype}) must be of one type")


def _conv_axis(large: int, kernel: int, stride: int, padding: Padding) -> _Axis:
    small = conv_output_size(large, kernel, stride, padding)
    total = max((small - 1) * stride + kernel - large, 0)  # 0 for 'valid'
    return _Axis(large, small, kernel, stride, total // 2)


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


def _gather_xla(geometry: _Geometry, large: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(
        large,
        kernel,
        window_strides=[axis.stride for axis in geometry],
        padding=[(axis.low, axis.high) for axis in geometry],
        dimension_numbers=_DIMENSIONS,
    )


def _scatter_xla(geometry: _Geometry, small: jax.Array, kernel: jax.Array) -> jax.Array:
    return lax.conv_general_dilated(
        small,
        jnp.flip(kernel, (0, 1)).swapaxes(2, 3),
        window_strides=(1, 1),
        padding=[(a.kernel - 1 - a.low, a.kernel - 1 - a.high) for a in geometry],
        lhs_dilation=[axis.stride for axis in geometry],
        dimension_numbers=_DIMENSIONS,
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _conv_matmul(geometry: _Geometry, x: jax.Array, kernel: jax.Array) -> jax.Array:
    return _gather(geometry, x, kernel)


def _conv_forward(geometry, x, kernel):
    return _gather(geometry, x, kernel), (x, kernel)


def _conv_backward(geometry, residuals, cotangent):
    x, kernel = residuals  # a compiled program drops the input gradient where nothing reads it
    return _scatter(geometry, cotangent, kernel), _correlate(geometry, x, cotangent)


_conv_matmul.defvjp(_conv_forward, _conv_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _conv_transpose_matmul(geometry: _Geometry, x: jax.Array, kernel: jax.Array) -> jax.Array:
    return _scatter(geometry, x, kernel)


def _conv_transpose_forward(geometry, x, kernel):
    return _scatter(geometry, x, kernel), (x, kernel)


def _conv_transpose_backward(geometry, residuals, cotangent):
    x, kernel = residuals
    return _gather_and_correlate(geometry, cotangent, x, kernel)


_conv_transpose_matmul.defvjp(_conv_transpose_forward, _conv_transpose_backward)


def _dot(a: jax.Array, b: jax.Array, contract: tuple[int, int]) -> jax.Array:
    """Product of two matrices over one axis of each, accumulated in float32 or better."""
    numbers = (((contract[0],), (contract[1],)), ((), ()))
    return lax.dot_general(a, b, numbers, preferred_element_type=_wide(a.dtype))


def _wide(dtype: jnp.dtype) -> jnp.dtype:
    return jnp.promote_types(dtype, jnp.float32)


def _patches(geometry: _Geometry, large: jax.Array) -> jax.Array:
    """Every window of `large` `[B, H, W, C]` as a row: `[B * h * w, kh * kw * C]`."""
    rows, columns = geometry
    zero = jnp.zeros((), large.dtype)
    padded = lax.pad(
        large,
        zero,
        [(0, 0, 0), (rows.low, rows.high, 0), (columns.low, columns.high, 0), (0, 0, 0)],
    )
    batch, _, _, channels = large.shape
    taps = [
        lax.slice(
            padded,
            (0, i, j, 0),
            (
                batch,
                i + (rows.small - 1) * rows.stride + 1,
                j + (columns.small - 1) * columns.stride + 1,
                channels,
            ),
            (1, rows.stride, columns.stride, 1),
        )
        for i in range(rows.kernel)
        for j in range(columns.kernel)
    ]
    return lax.concatenate(taps, 3).reshape(batch * rows.small * columns.small, -1)


def _chunk(geometry: _Geometry, batch: int, channels: int, dtype: jnp.dtype) -> int:
    """Images to a chunk: the whole batch if small, else the largest divisor that fits in cache."""
    rows, columns = geometry
    patches = rows.small * columns.small * rows.kernel * columns.kernel * channels * dtype.itemsize
    if batch * patches <= _WHOLE_BYTES:
        return batch
    fitting = min(batch, max(1, _CHUNK_BYTES // patches))
    return max(size for size in range(1, fitting + 1) if batch % size == 0)


def _split(x: jax.Array, chunk: int) -> jax.Array:
    return x.reshape(x.shape[0] // chunk, chunk, *x.shape[1:])


def _gather(geometry: _Geometry, large: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolution: `[B, H, W, L]` and `[kh, kw, L, S]` -> `[B, h, w, S]`."""
    matrix = kernel.reshape(-1, kernel.shape[3])

    def one_chunk(part):
        return _dot(_patches(geometry, part), matrix, (1, 0)).astype(large.dtype)

    chunk = _chunk(geometry, large.shape[0], large.shape[3], large.dtype)
    small = lax.map(one_chunk, _split(large, chunk))
    return small.reshape(large.shape[0], geometry[0].small, geometry[1].small, -1)


def _correlate(geometry: _Geometry, large: jax.Array, small: jax.Array) -> jax.Array:
    """Kernel gradient: `[B, H, W, L]` and `[B, h, w, S]` -> `[kh, kw, L, S]`."""
    return _over_chunks(geometry, large, small, lambda patches: None)[1]


def _gather_and_correlate(
    geometry: _Geometry, large: jax.Array, small: jax.Array, kernel: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """`_gather(large, kernel)` and `_correlate(large, small)` from the same patches."""
    matrix = kernel.reshape(-1, kernel.shape[3])

    def gather(patches):
        return _dot(patches, matrix, (1, 0)).astype(large.dtype)

    gathered, gradient = _over_chunks(geometry, large, small, gather)
    assert gathered is not None  # as `gather` returns arrays
    return gathered.reshape(small.shape), gradient


def _over_chunks(
    geometry: _Geometry,
    large: jax.Array,
    small: jax.Array,
    gather: Callable[[jax.Array], jax.Array | None],
) -> tuple[jax.Array | None, jax.Array]:
    """`gather` of every chunk's patches, and the kernel gradient summed over the chunks."""
    (rows, columns), channels, filters = geometry, large.shape[3], small.shape[3]
    chunk = _chunk(geometry, large.shape[0], channels, large.dtype)
    shape = (rows.kernel * columns.kernel * channels, filters)

    def add_chunk(total, parts):
        patches = _patches(geometry, parts[0])
        pixels = parts[1].reshape(-1, filters)
        if channels < _FEW_CHANNELS:
            product = _dot(patches, pixels, (0, 0))
        else:  # XLA's matrix product is fastest on a row-major left side: transpose the small one
            product = _dot(lax.optimization_barrier(pixels.T), patches, (1, 0))
        return total + product, gather(patches)

    start = jnp.zeros(shape if channels < _FEW_CHANNELS else shape[::-1], _wide(large.dtype))
    total, gathered = lax.scan(add_chunk, start, (_split(large, chunk), _split(small, chunk)))
    gradient = total if channels < _FEW_CHANNELS else total.T
    kernel_shape = (rows.kernel, columns.kernel, channels, filters)
    return gathered, gradient.reshape(kernel_shape).astype(large.dtype)


def _scatter(geometry: _Geometry, small: jax.Array, kernel: jax.Array) -> jax.Array:
    """Transposed convolution: `[B, h, w, S]` and `[kh, kw, L, S]` -> `[B, H, W, L]`."""
    matrix = kernel.reshape(-1, kernel.shape[3])

    def one_chunk(part):
        products = _dot(part.reshape(-1, part.shape[3]), matrix, (1, 1))
        shape = (*part.shape[:3], *kernel.shape[:3])
        return _add_windows(geometry, products.reshape(shape)).astype(small.dtype)

    chunk = small.shape[0]
    if kernel.shape[2] >= _FEW_CHANNELS:
        chunk = _chunk(geometry, small.shape[0], kernel.shape[2], small.dtype)
    large = lax.map(one_chunk, _split(small, chunk))
    return large.reshape(small.shape[0], *large.shape[2:])


def _add_windows(geometry: _Geometry, products: jax.Array) -> jax.Array:
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
