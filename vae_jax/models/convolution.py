"""Convolution and transposed convolution, by XLA's own operation or as matrix products.

XLA's kernel gradients of strided convolutions are many times slower on a CPU than the matrix
products they amount to, so `implementation="auto"` writes both operations as matrix products
there and leaves GPUs and TPUs to XLA. Semantics and kernel layouts are those of TensorFlow/Keras.
"""

from __future__ import annotations

import functools
import logging
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax

from vae_jax.models.convolution_geometry import (
    Geometry,
    Padding,
    conv_axis,
    conv_transpose_output_size,
)
from vae_jax.models.convolution_matmul import conv_matmul, conv_transpose_matmul

Implementation = Literal["auto", "xla", "matmul"]

_LOGGER = logging.getLogger(__name__)
_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
_FLOATS = ("bfloat16", "float16", "float32", "float64")


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
        conv_axis(size, taps, stride, padding)
        for size, taps, stride in zip(x.shape[1:3], kernel.shape[:2], strides, strict=True)
    )
    geometry = (rows, columns)
    if not input_gradient:
        x = lax.stop_gradient(x)
    if _use_matmul(implementation, x, kernel):
        return conv_matmul(geometry, x, kernel)
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
        conv_axis(conv_transpose_output_size(size, taps, stride, padding), taps, stride, padding)
        for size, taps, stride in zip(x.shape[1:3], kernel.shape[:2], strides, strict=True)
    )
    geometry = (rows, columns)
    if _use_matmul(implementation, x, kernel):
        return conv_transpose_matmul(geometry, x, kernel)
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
