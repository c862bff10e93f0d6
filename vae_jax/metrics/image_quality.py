"""Image quality against a reference image: MSE, PSNR and SSIM, one number per image."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

WINDOW = 11
SIGMA = 1.5
K1, K2 = 0.01, 0.03


def _check_pair(x: jax.Array, y: jax.Array) -> None:
    if x.shape != y.shape or x.ndim != 4:
        raise ValueError(
            f"Images must share one shape [B, H, W, C], but got {x.shape} and {y.shape}."
        )
    if not (jnp.issubdtype(x.dtype, jnp.floating) and jnp.issubdtype(y.dtype, jnp.floating)):
        raise ValueError(
            f"Images must be floats in [0, 1], but got {x.dtype}, {y.dtype}: divide by 255 first."
        )


def mse(x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns the mean squared error of each image, over pixels and channels.

    Args:
        x: `[B, H, W, C]` float in [0, 1].
        y: `[B, H, W, C]` float in [0, 1].

    Returns:
        `[B]`.

    Raises:
        ValueError: Unequal shapes or integer images.
    """
    _check_pair(x, y)
    return jnp.mean(jnp.square(x - y), axis=(1, 2, 3))


def psnr(x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns the peak signal-to-noise ratio of each image, `-10 log10(mse)` for a data range of 1.

    The mean of these values over a data set, which is what is usually published, is not the PSNR of
    the mean squared error.

    Args:
        x: `[B, H, W, C]` float in [0, 1].
        y: `[B, H, W, C]` float in [0, 1].

    Returns:
        `[B]` in dB, infinite for equal images.

    Raises:
        ValueError: Unequal shapes or integer images.

    >>> grey = jnp.full((2, 8, 8, 3), 0.5)
    >>> psnr(grey, grey + 0.1).round(2).tolist()
    [20.0, 20.0]
    """
    return -10.0 * jnp.log10(mse(x, y))


def _blur_matrix(size: int) -> np.ndarray:
    """Returns `[size - 10, size]`: the Gaussian window at every position where it fits."""
    offsets = np.arange(WINDOW) - WINDOW // 2
    weights = np.exp(-0.5 * (offsets / SIGMA) ** 2)
    weights /= math.fsum(weights)
    matrix = np.zeros((size - WINDOW + 1, size))
    for row in range(len(matrix)):
        matrix[row, row : row + WINDOW] = weights
    return matrix


@jax.jit
def ssim(x: jax.Array, y: jax.Array) -> jax.Array:
    """Returns the structural similarity of each image, the mean over channels and window positions.

    Gaussian window of 11 x 11 pixels (sigma 1.5), K1 = 0.01, K2 = 0.03, data range 1, population
    covariance, only positions where the window fits.

    Args:
        x: `[B, H, W, C]` float in [0, 1], H and W at least 11.
        y: `[B, H, W, C]` float in [0, 1].

    Returns:
        `[B]`, 1 for equal images.

    Raises:
        ValueError: Unequal shapes, integer images, or images smaller than the window.

    References:
        Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to
        structural similarity", IEEE TIP 2004.
    """
    _check_pair(x, y)
    if min(x.shape[1:3]) < WINDOW:
        raise ValueError(f"SSIM needs images of {WINDOW} pixels or more, but got {x.shape}.")
    rows = jnp.asarray(_blur_matrix(x.shape[1]), x.dtype)
    columns = jnp.asarray(_blur_matrix(x.shape[2]), x.dtype)

    def blur(image: jax.Array) -> jax.Array:
        # HIGHEST: variances are differences of blurred squares, which TF32 products would spoil.
        highest = jax.lax.Precision.HIGHEST
        image = jnp.einsum("ph,bhwc->bpwc", rows, image, precision=highest)
        return jnp.einsum("qw,bpwc->bpqc", columns, image, precision=highest)

    mean_x, mean_y = blur(x), blur(y)
    variance_x = blur(x * x) - mean_x**2
    variance_y = blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + K1**2) / (mean_x**2 + mean_y**2 + K1**2)
    structure = (2 * covariance + K2**2) / (variance_x + variance_y + K2**2)
    return jnp.mean(luminance * structure, axis=(1, 2, 3))
