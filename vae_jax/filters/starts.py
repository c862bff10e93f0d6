"""Start images of the ascent: seeded noise at several length scales."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp

from vae_jax.types import UserError

# Cells across the shorter side of the image; 0 stands for its full size.
SCALES = (3, 7, 14, 0)

Shape = tuple[int, int, int]


@jax.jit
def standardise(images: jax.Array) -> jax.Array:
    """Mean 0 and standard deviation 1 over H, W and C of each image `[B, H, W, C]`.

    An image without contrast becomes 0.
    """
    centred = images - jnp.mean(images, axis=(1, 2, 3), keepdims=True)
    deviation = jnp.sqrt(jnp.mean(jnp.square(centred), axis=(1, 2, 3), keepdims=True))
    return centred / jnp.maximum(deviation, 1e-8)


def check_scales(image_shape: Shape, scales: Sequence[int], weights: Sequence[float]) -> None:
    """Raise UserError unless the scales fit the image and each has its positive weight."""
    shorter = min(image_shape[:2])
    for scale in scales:
        if not 0 <= scale <= shorter:
            raise UserError(
                f"scale {scale} is not a number of cells across the image: give 1 to {shorter}, "
                "or 0 for its full size"
            )
    if not scales or len(weights) != len(scales) or min(weights) <= 0:
        raise UserError(
            f"{len(scales)} scales {tuple(scales)} have weights {tuple(weights)}: give at least "
            "one scale, and one weight above 0 for each"
        )


@partial(jax.jit, static_argnames=("count", "image_shape", "scale"))
def noise_images(key: jax.Array, count: int, image_shape: Shape, scale: int) -> jax.Array:
    """Noise uniform in [-1, 1] on a coarse grid, resized bicubically and standardised.

    Args:
        key: image i depends on (key, i) alone.
        count: M.
        image_shape: `(H, W, C)`; channels are independent.
        scale: cells across the shorter side (the longer one gets as many as it needs); 0 for
            one cell a pixel.

    Returns:
        `[M, H, W, C]`.
    """
    height, width, channels = image_shape
    shorter = min(height, width)
    cells = scale or shorter
    grid = (round(height * cells / shorter), round(width * cells / shorter), channels)

    def image(index: jax.Array) -> jax.Array:
        coarse = jax.random.uniform(jax.random.fold_in(key, index), grid, jnp.float32, -1.0, 1.0)
        return jax.image.resize(coarse, image_shape, "cubic")

    return standardise(jax.vmap(image)(jnp.arange(count)))


def scale_layers(
    key: jax.Array,
    count: int,
    image_shape: Shape,
    scales: Sequence[int] = SCALES,
    weights: Sequence[float] | None = None,
) -> jax.Array:
    """Noise at several length scales, to be superposed or added one after the other.

    Args:
        key: image i depends on (key, i) alone.
        count: M.
        image_shape: `(H, W, C)`.
        scales: K of them, see `noise_images`.
        weights: of the scales; equal by default.

    Returns:
        `[K, M, H, W, C]`, each image with mean 0 and its scale's weight as standard deviation.

    Raises:
        UserError: scales and weights do not fit.
    """
    weights = [1.0] * len(scales) if weights is None else weights
    check_scales(image_shape, scales, weights)
    layers = [
        weight * noise_images(jax.random.fold_in(key, k), count, image_shape, scale)
        for k, (scale, weight) in enumerate(zip(scales, weights, strict=True))
    ]
    return jnp.stack(layers)


def superpose(layers: jax.Array) -> jax.Array:
    """`[K, M, H, W, C]` to `[M, H, W, C]`, mean 0 and standard deviation 1 each."""
    return standardise(jnp.sum(layers, axis=0))


@partial(jax.jit, static_argnames=("count", "image_shape", "power"))
def fourier_images(key: jax.Array, count: int, image_shape: Shape, power: float = 1.0) -> jax.Array:
    """White noise with amplitudes weighted by 1 / frequency^power, standardised.

    Args:
        key: image i depends on (key, i) alone.
        count: M.
        image_shape: `(H, W, C)`.
        power: 0 leaves the noise white; natural images have about 1.

    Returns:
        `[M, H, W, C]`, mean 0 and standard deviation 1 each.
    """
    height, width, _ = image_shape
    frequency = jnp.hypot(
        jnp.fft.fftfreq(height, dtype=jnp.float32)[:, None],
        jnp.fft.rfftfreq(width, dtype=jnp.float32)[None, :],
    )
    gain = jnp.where(frequency > 0, jnp.maximum(frequency, 1e-9) ** -power, 0.0)

    def image(index: jax.Array) -> jax.Array:
        white = jax.random.normal(jax.random.fold_in(key, index), image_shape, jnp.float32)
        spectrum = jnp.fft.rfft2(white, axes=(0, 1)) * gain[:, :, None]
        return jnp.fft.irfft2(spectrum, s=(height, width), axes=(0, 1))

    return standardise(jax.vmap(image)(jnp.arange(count)))
