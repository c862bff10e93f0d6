"""What can be had of corrupted images without a model."""

from __future__ import annotations

import math

import numpy as np

CHUNK = 64  # images at a time
MEDIAN_SIZES = (3, 5)
GAUSSIAN_SIGMA = 1.0


def median_filter(images: np.ndarray, size: int) -> np.ndarray:
    """The median of `size` x `size` pixels around each pixel, channel by channel.

    Args:
        images: `[N, H, W, C]`.
        size: odd number of pixels; edge pixels are repeated.

    Returns:
        `[N, H, W, C]`.
    """
    reach = size // 2
    padding = ((0, 0), (reach, reach), (reach, reach), (0, 0))
    filtered = np.empty_like(images)
    for start in range(0, len(images), CHUNK):
        padded = np.pad(images[start : start + CHUNK], padding, mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(1, 2))
        filtered[start : start + CHUNK] = np.median(windows, axis=(-2, -1))
    return filtered


def fill_erased(inputs: np.ndarray, erased: np.ndarray, mean_image: np.ndarray) -> np.ndarray:
    """Erased pixels as Gaussian-weighted means of the kept ones around them.

    Normalised convolution (Knutsson & Westin 1993), sigma one pixel, window of 7 x 7 pixels;
    where the window holds no kept pixel, the mean image.

    Args:
        inputs: `[N, H, W, C]`.
        erased: `[N, H, W, 1]` bool.
        mean_image: `[H, W, C]`.

    Returns:
        `[N, H, W, C]`; kept pixels stay.
    """
    kept = (~erased).astype(np.float64)
    weight = _blur(kept)
    mean = _blur(inputs * kept) / np.maximum(weight, 1e-12)
    filled = np.where(weight > 1e-9, mean, mean_image[None])
    return np.where(erased, filled, inputs).astype(inputs.dtype)


def _blur(images: np.ndarray) -> np.ndarray:
    """Gaussian sums over 7 x 7 pixels, zero outside the image."""
    reach = math.ceil(3 * GAUSSIAN_SIGMA)
    offsets = np.arange(-reach, reach + 1)
    taps = np.exp(-0.5 * (offsets / GAUSSIAN_SIGMA) ** 2)
    for axis in (1, 2):
        padding = [(reach, reach) if i == axis else (0, 0) for i in range(4)]
        padded = np.pad(images, padding)
        size = images.shape[axis]
        shifted = [tap * padded.take(range(i, i + size), axis=axis) for i, tap in enumerate(taps)]
        images = np.sum(shifted, axis=0)
    return images


def baselines(
    inputs: np.ndarray, erased: np.ndarray, mean_image: np.ndarray
) -> dict[str, np.ndarray]:
    """What can be had without a model.

    Args:
        inputs: `[N, H, W, C]`, corrupted.
        erased: `[N, H, W, 1]` bool.
        mean_image: `[H, W, C]`, of the training images.

    Returns:
        `[N, H, W, C]` by name.
    """
    results = {"corrupted input": inputs}
    for size in MEDIAN_SIZES:
        results[f"median filter {size}x{size}"] = median_filter(inputs, size)
    if erased.any():
        results["mean of kept neighbours"] = fill_erased(inputs, erased, mean_image)
    results["mean image"] = np.broadcast_to(mean_image, inputs.shape)
    return results
