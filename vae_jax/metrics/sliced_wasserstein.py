"""Sliced Wasserstein distance between patches of Laplacian pyramids, without a trained network.

Karras, Aila, Laine, Lehtinen, "Progressive growing of GANs", ICLR 2018, section 5 and appendix:
7 x 7 patches, 128 per image and pyramid level, each set normalised per channel, 512 random
directions; a level's distance is the mean over directions of the one-dimensional Wasserstein-1
distance. The paper's tables show these values times 1,000. Coarse levels judge large structure,
the finest one detail; blurred images lose most on the finest.

That normalisation hides how bright and how rich in contrast a set is: images that are all too pale
are at distance 0. The distance is therefore also given with both sets in the units of the real one.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from functools import partial, reduce
from typing import Any, TypedDict

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.progress import progress
from vae_jax.types import UserError

PATCH = 7  # pixels along each side
MINIMUM_SIDE = 16  # pixels of the shorter side of the smallest level
# Patches per image and random directions that suffice to rank sets, in an eighth of the time of the
# paper's 128 and 512.
FEWER: dict[str, Any] = {"patches": 64, "directions": 128}
# Deviations below a hundredth of a grey level are rounding, not contrast to be scaled up.
SMALLEST_DEVIATION = 0.01 / 255
DIRECTION_CHUNK = 16


def pyramid_shapes(height: int, width: int) -> list[tuple[int, int]]:
    """Returns `(height, width)` of the pyramid's levels in pixels, finest first.

    Sides halve (rounded up) while the shorter one stays at `MINIMUM_SIDE` pixels or more; the first
    halving only has to leave 14 pixels, so that small images have two levels too:
    96 -> 96, 48, 24; 128 -> 128, 64, 32, 16; 28 -> 28, 14.

    Raises:
        UserError: The image is smaller than one patch.
    """
    if min(height, width) < PATCH:
        raise UserError(
            f"Sliced Wasserstein needs images of {PATCH} pixels or more, got {height}x{width}"
        )
    shapes = [(height, width)]
    enough = 2 * PATCH
    while min(height + 1, width + 1) // 2 >= enough:
        height, width = (height + 1) // 2, (width + 1) // 2
        shapes.append((height, width))
        enough = MINIMUM_SIDE
    return shapes


def _smooth(images: jax.Array) -> jax.Array:
    """Applies the binomial filter [1, 4, 6, 4, 1] / 16 to height and width, mirrored at borders."""
    weights = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
    for axis in (1, 2):
        padding = [(2, 2) if a == axis else (0, 0) for a in range(4)]
        padded, size = jnp.pad(images, padding, mode="reflect"), images.shape[axis]
        shifted = (jax.lax.slice_in_dim(padded, k, k + size, axis=axis) for k in range(5))
        weighted = (weight * part for weight, part in zip(weights, shifted, strict=True))
        images = reduce(operator.add, weighted)
    return images


def laplacian_level(images: jax.Array, level: int, last: bool) -> jax.Array:
    """Returns one level of the Laplacian pyramid of Burt and Adelson (1983).

    Args:
        images: `[B, H, W, C]` float.
        level: Number of halvings.
        last: Whether to keep the low frequencies, as the coarsest level does.

    Returns:
        `[B, H / 2**level, W / 2**level, C]`, sizes rounded up.
    """
    for _ in range(level):
        images = _smooth(images)[:, ::2, ::2]
    if last:
        return images
    spread = jnp.zeros_like(images).at[:, ::2, ::2].set(_smooth(images)[:, ::2, ::2])
    return images - 4 * _smooth(spread)


@partial(jax.jit, static_argnames=("level", "last", "patches"))
def _descriptors(
    images: jax.Array, key: jax.Array, first: jax.Array, *, level: int, last: bool, patches: int
) -> jax.Array:
    """Cuts random patches `[B, patches, 7, 7, C]`; image i's depend on (key, level, i) alone."""
    if images.dtype == jnp.uint8:
        images = images.astype(jnp.float32) / 255
    images = laplacian_level(images, level, last)
    height, width, channels = images.shape[1:]

    def cut(image: jax.Array, index: jax.Array) -> jax.Array:
        image_key = jax.random.fold_in(jax.random.fold_in(key, level), index)
        limits = jnp.array([height - PATCH + 1, width - PATCH + 1])
        corners = jax.random.randint(image_key, (patches, 2), 0, limits[None, :], jnp.int32)
        window = (PATCH, PATCH, channels)
        return jax.vmap(
            lambda corner: jax.lax.dynamic_slice(image, (*corner, jnp.int32(0)), window)
        )(corners)

    return jax.vmap(cut)(images, first + jnp.arange(len(images)))


def _gather(
    images: np.ndarray, key: jax.Array, level: int, last: bool, patches: int, batch: int
) -> np.ndarray:
    """Returns the pixels `[N * patches * 49, C]` float32 of the patches of one level."""
    count, channels = len(images), images.shape[-1]
    result = np.empty((count, patches, PATCH, PATCH, channels), np.float32)
    for start in range(0, count, batch):
        part = np.asarray(images[start : start + batch])
        size = len(part)
        if size < batch and count > batch:  # Padded, so that one program serves every batch.
            part = np.concatenate([part, np.zeros((batch - size, *part.shape[1:]), part.dtype)])
        cut = _descriptors(part, key, start, level=level, last=last, patches=patches)
        result[start : start + size] = np.asarray(cut)[:size]
    return result.reshape(-1, channels)


def _descriptors_in_units(pixels: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Returns patches `[N, 49 C]`, each channel in deviations of the set `of` from its mean."""
    # NumPy is many times faster along long rows than across three channels.
    rows = np.ascontiguousarray(of.T)
    mean, deviation = rows.mean(axis=1, dtype=np.float64), rows.std(axis=1, dtype=np.float64)
    deviation = np.maximum(deviation, SMALLEST_DEVIATION)
    mean, deviation = (
        np.tile(each.astype(np.float32), PATCH * PATCH) for each in (mean, deviation)
    )
    scaled = pixels.reshape(-1, len(mean)) - mean[None]
    scaled /= deviation[None]
    return scaled


def _distances(
    reference: np.ndarray, judged: Sequence[np.ndarray], directions: np.ndarray
) -> list[float]:
    """Returns the mean over directions `[F, P]` of the Wasserstein-1 distances, by judged set."""
    totals = np.zeros(len(judged))
    for start in range(0, directions.shape[1], DIRECTION_CHUNK):
        some = directions[:, start : start + DIRECTION_CHUNK]
        # NumPy sorts on the host: many times faster than XLA's sort on a CPU.
        ours = np.sort((reference @ some).T, axis=1)
        for number, points in enumerate(judged):
            theirs = np.sort((points @ some).T, axis=1)
            totals[number] += np.abs(ours - theirs).mean(axis=1, dtype=np.float64).sum()
    return (totals / directions.shape[1]).tolist()


def _subsample(images: np.ndarray, count: int, key: jax.Array) -> np.ndarray:
    if len(images) == count:
        return images
    chosen = jax.random.choice(key, len(images), (count,), replace=False)
    return images[np.sort(np.asarray(chosen))]


class SetDistance(TypedDict):
    """Distances of two image sets.

    Attributes:
        levels: Distance at each level of the pyramid, each set normalised by itself, as published.
        mean: Mean over these levels.
        contrast_levels: Distance at each level with both sets in deviations of the real one, which
            keeps differences of brightness and contrast.
        contrast_mean: Mean over these levels.
    """

    levels: dict[str, float]
    mean: float
    contrast_levels: dict[str, float]
    contrast_mean: float


def sliced_wasserstein(
    real: np.ndarray,
    fake: np.ndarray,
    key: jax.Array,
    *,
    patches: int = 128,
    directions: int = 512,
    batch: int = 256,
    keep_contrast: bool = True,
) -> SetDistance:
    """Measures the sliced Wasserstein distance of two image sets, by pyramid level and on average.

    Both sets are cut at the same random places, so a set is at distance 0 from itself. If the
    counts differ, the larger set is reduced to a random subset of the smaller one's size. The
    distance of two finite samples of one distribution is not 0 and falls with the count: compare
    values at equal counts, and with `sliced_wasserstein_floor`. Needs `4 * N * patches * 49 * C`
    floats of host memory (3 GB for 10,000 RGB images), whatever the image size.

    Args:
        real: `[N, H, W, C]` uint8, or float in [0, 1].
        fake: `[M, H, W, C]` uint8, or float in [0, 1].
        key: Typed random key for places, directions and the subset.
        patches: Patches per image and level.
        directions: Number of random directions.
        batch: Images on the device at a time; does not change the result.
        keep_contrast: Whether to measure the distances that keep contrast too, which takes twice
            the time.

    Returns:
        `SetDistance`; levels are named by their size, such as "48x48".

    Raises:
        UserError: Images of different shapes, or none.
    """
    if real.ndim != 4 or real.shape[1:] != fake.shape[1:]:
        raise UserError(f"Image sets must share H, W and C, but got {real.shape} and {fake.shape}")
    count = min(len(real), len(fake))
    if count == 0:
        raise UserError("Sliced Wasserstein needs at least one image in each set")
    place_key, direction_key, real_key, fake_key = jax.random.split(key, 4)
    real, fake = _subsample(real, count, real_key), _subsample(fake, count, fake_key)
    features = PATCH * PATCH * real.shape[-1]
    shapes = pyramid_shapes(*real.shape[1:3])
    levels: dict[str, float] = {}
    contrast: dict[str, float] = {}
    with progress(len(shapes), "Sliced Wasserstein", "levels") as advance:
        for level, (height, width) in enumerate(shapes):
            last = level == len(shapes) - 1
            level_key = jax.random.fold_in(direction_key, level)
            drawn = np.asarray(jax.random.normal(level_key, (features, directions), jnp.float32))
            drawn = drawn / np.linalg.norm(drawn, axis=0, keepdims=True)
            ours, theirs = (
                _gather(images, place_key, level, last, patches, batch) for images in (real, fake)
            )
            reference = _descriptors_in_units(ours, ours)
            judged = [_descriptors_in_units(theirs, units) for units in (theirs, ours)]
            distances = _distances(reference, judged[: 1 + keep_contrast], drawn)
            for found, distance in zip((levels, contrast), distances, strict=False):
                found[f"{height}x{width}"] = distance
            advance()
    means = [float(np.mean(list(found.values()))) for found in (levels, contrast) if found]
    return SetDistance(
        levels=levels,
        mean=means[0],
        contrast_levels=contrast,
        contrast_mean=means[1] if keep_contrast else math.nan,
    )


def sliced_wasserstein_floor(real: np.ndarray, key: jax.Array, **options: Any) -> SetDistance:
    """Measures the distance of two disjoint random halves of `real`, the floor of any model.

    Args:
        real: `[N, H, W, C]`; 2 M images for the floor that belongs to M samples against M images.
        key: Typed random key.
        **options: As for `sliced_wasserstein`.

    Returns:
        As `sliced_wasserstein`.

    Raises:
        UserError: Fewer than two images.
    """
    if len(real) < 2:
        raise UserError("The real-against-real floor needs at least two images")
    split_key, distance_key = jax.random.split(key)
    order = np.asarray(jax.random.permutation(split_key, len(real)))
    half = len(real) // 2
    ours, theirs = real[np.sort(order[:half])], real[np.sort(order[half : 2 * half])]
    return sliced_wasserstein(ours, theirs, distance_key, **options)
