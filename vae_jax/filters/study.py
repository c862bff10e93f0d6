"""All maps of a layer: starts from many seeds, strategies, and checks of what came out."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike

from vae_jax.filters.excitation import (
    DEFAULT_ASCENT,
    Ascent,
    Excitation,
    LayerFn,
    Projection,
    map_responses,
)
from vae_jax.filters.starts import SCALES, Shape, fourier_images, scale_layers, superpose
from vae_jax.streams import make_key
from vae_jax.types import UserError

STARTS = ("noise", "fourier")
LOOP, BY_SCALE = 0, 1
LOOP_STEPS = (1000,)
SCALE_STEPS = (20, 40, 80, 400)


class Settings(NamedTuple):
    """How the patterns of a layer are looked for.

    Attributes:
        start: 'noise' at `scales`, or 'fourier'.
        scales: cells across the image, coarse to fine; see `starts.noise_images`.
        weights: of the scales; None for equal ones.
        strategy: 0 evolves the whole superposition; 1 evolves noise at the first scale and then
            enriches the pattern with the noise of one scale after another.
        steps: the most steps, for strategy 1 of each scale.
        precursors: so many starts are tried, and each map gets the one it responds to most.
        ascent: step and convergence.
    """

    start: str = "noise"
    scales: tuple[int, ...] = SCALES
    weights: tuple[float, ...] | None = None
    strategy: int = LOOP
    steps: tuple[int, ...] = LOOP_STEPS
    precursors: int = 64
    ascent: Ascent = DEFAULT_ASCENT


def candidate_starts(settings: Settings, image_shape: Shape, seed: int) -> jax.Array:
    """Starts `[S, P, H, W, C]` of P precursors, for each of the S stages of the strategy.

    Raises:
        UserError: settings that do not fit together or do not fit the image.
    """
    stages = len(settings.scales) if settings.strategy == BY_SCALE else 1
    if len(settings.steps) != stages:
        raise UserError(
            f"strategy {settings.strategy} has {stages} stages, but {len(settings.steps)} numbers "
            f"of steps are given {tuple(settings.steps)}: give one for each"
        )
    key, count = make_key(seed), settings.precursors
    if settings.start == "fourier":
        if settings.strategy == BY_SCALE:
            raise UserError("strategy 1 goes from scale to scale, so it needs the start 'noise'")
        return fourier_images(key, count, image_shape)[None]
    layers = scale_layers(key, count, image_shape, settings.scales, settings.weights)
    return layers if settings.strategy == BY_SCALE else superpose(layers)[None]


def best_starts(
    layer: LayerFn, candidates: jax.Array, maps: ArrayLike, projection: Projection
) -> np.ndarray:
    """Precursor search: the candidate that each map responds to most, before any ascent.

    Args:
        layer: see `LayerFn`.
        candidates: `[P, H, W, C]` start images.
        maps: `[M]` indices of feature maps.
        projection: to the model's input.

    Returns:
        `[M]` indices of candidates; the first one for a map that responds to none.
    """
    responses = jax.jit(lambda images: map_responses(layer, projection(images)))(candidates)
    return np.argmax(np.asarray(responses)[:, np.asarray(maps)], axis=0)


def starts_of_maps(
    layer: LayerFn,
    image_shape: Shape,
    maps: ArrayLike,
    projection: Projection,
    settings: Settings,
    seed: int,
) -> jax.Array:
    """The starts `[S, M, H, W, C]` of maps for `excite`, each map's from its best precursor.

    Args:
        layer: see `LayerFn`.
        image_shape: `(H, W, C)`.
        maps: `[M]` indices of feature maps.
        projection: to the model's input.
        settings: how.
        seed: of the starts.

    Raises:
        UserError: settings that do not fit together or do not fit the image.
    """
    candidates = candidate_starts(settings, image_shape, seed)
    return candidates[:, best_starts(layer, candidates[0], maps, projection)]


def logarithmic_steps(total: int) -> tuple[int, ...]:
    """0, 1, 2, 4, 8, ... and `total`."""
    return (0, *(2**k for k in range(total.bit_length()) if 2**k < total), total)


def spectral_agreement(patterns: np.ndarray) -> tuple[float, float]:
    """How alike patterns from different seeds are, wherever in the image the motif lies.

    Args:
        patterns: `[R, S, H, W, C]`, R maps from S seeds each; both at least 2.

    Returns:
        Mean correlation of the Fourier amplitudes (frequency 0 left out) between seeds of the
        same map, and between different maps.
    """
    maps, seeds = patterns.shape[:2]
    amplitudes = np.abs(np.fft.fft2(patterns, axes=(2, 3))).astype(np.float64)
    flat = amplitudes.reshape(maps * seeds, -1, patterns.shape[-1])[:, 1:].reshape(maps * seeds, -1)
    correlation = np.atleast_2d(np.corrcoef(flat))
    owner = np.repeat(np.arange(maps), seeds)
    same = np.equal.outer(owner, owner)
    return (
        float(correlation[same & ~np.eye(len(owner), dtype=bool)].mean()),
        float(correlation[~same].mean()),
    )


def seconds_per_map(find: Callable[[np.ndarray], Excitation], count: int) -> tuple[float, float]:
    """Seconds a map takes when all are found together, and when found one after the other.

    Args:
        find: finds the patterns of the maps at these positions.
        count: how many maps there are.

    Returns:
        Both times, without compilation: every program is run once before it is timed.
    """

    def timed(groups: Sequence[np.ndarray]) -> float:
        find(groups[0])
        began = time.monotonic()
        for group in groups:
            find(group)
        return (time.monotonic() - began) / count

    positions = np.arange(count)
    return timed([positions]), timed(np.split(positions, count))
