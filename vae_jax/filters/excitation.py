"""Input patterns that excite a feature map most: gradient ascent on the image.

Erhan et al. 2009, "Visualizing Higher-Layer Features of a Deep Network".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from vae_jax.filters.ascent import climb_all
from vae_jax.filters.starts import standardise

# [B, H, W, C] -> feature maps [B, h, w, F]; a plain function, or a tree of arrays
# (`jax.tree_util.Partial`), which compiles once for all weights.
LayerFn = Callable[[jax.Array], jax.Array]

# Maps that climb side by side. More cost a CPU as much as they bring.
CPU_LANES, DEVICE_LANES = 16, 1024


class Projection(NamedTuple):
    """The images that a pattern may be: fixed mean and contrast, clipped to the model's range.

    A pattern is standardised, then becomes `clip(mean + std * pattern, low, high)`. The default
    leaves it standardised. For a model trained on [0, 1], `unit_range` takes mean and contrast
    from its images, so that a pattern is about as bright and as rich in contrast as they are.

    Attributes:
        mean: of every pattern before clipping.
        std: its standard deviation over H, W and C.
        low: smallest value that the model was trained on.
        high: largest such value.
    """

    mean: float = 0.0
    std: float = 1.0
    low: float = -math.inf
    high: float = math.inf

    def __call__(self, images: jax.Array) -> jax.Array:
        """Project images `[B, H, W, C]`."""
        return jnp.clip(self.mean + self.std * standardise(images), self.low, self.high)


def unit_range(images: np.ndarray) -> Projection:
    """The projection for a model trained on [0, 1].

    Args:
        images: `[N, H, W, C]` that the model was made for, uint8 or floats in [0, 1].

    Returns:
        A projection to their average mean and average contrast, within [0, 1].
    """
    scale = 255.0 if images.dtype == np.uint8 else 1.0
    flat = images.reshape(len(images), -1).astype(np.float64) / scale
    return Projection(float(flat.mean()), float(flat.std(axis=1).mean()), 0.0, 1.0)


class Ascent(NamedTuple):
    """How the image is changed, and when that ends.

    Attributes:
        epsilon: step, as a share of the projection's standard deviation.
        tolerance: relative change of the response that counts as none.
        patience: so many such steps in a row end a map.
    """

    epsilon: float = 0.01
    tolerance: float = 5e-4
    patience: int = 4


class Excitation(NamedTuple):
    """What `excite` found for each of M maps.

    Attributes:
        patterns: `[M, H, W, C]`, as the model sees them.
        responses: `[M]`, mean activation of the map.
        converged: `[M]` bool.
        steps: `[M]` int, steps taken.
        curves: `[T, M]`, the response before each step, T the most steps; NaN after the last.
        snapshots: `[K, M, H, W, C]`, the patterns after the steps that were asked for.
    """

    patterns: np.ndarray
    responses: np.ndarray
    converged: np.ndarray
    steps: np.ndarray
    curves: np.ndarray
    snapshots: np.ndarray

    @property
    def dead(self) -> np.ndarray:
        """`[M]` bool: the map does not respond (its mean activation is not above 0)."""
        return self.responses <= 0.0


def map_responses(layer: LayerFn, images: jax.Array) -> jax.Array:
    """Mean activation `[B, F]` of every map of a layer for images `[B, H, W, C]`."""
    return jnp.mean(layer(images), axis=(1, 2))


DEFAULT_ASCENT = Ascent()


def excite(
    layer: LayerFn,
    starts: jax.Array,
    maps: ArrayLike,
    projection: Projection,
    stage_steps: Sequence[int],
    ascent: Ascent = DEFAULT_ASCENT,
    snapshot_steps: Sequence[int] = (),
) -> Excitation:
    """Change images by gradient ascent until one map each responds most, all in one program.

    A step adds `epsilon * std * gradient / RMS(gradient)`, per image, and projects. A map ends
    once the relative change of its response was at most `tolerance` in `patience` successive
    steps; its pattern then stays as it is.

    Args:
        layer: see `LayerFn`.
        starts: `[S, M, H, W, C]`: each of S stages begins by adding its images to the
            standardised patterns of the stage before. One stage is the plain loop; noise from
            coarse to fine scales (`scale_layers`) is the evolution by scales.
        maps: `[M]` indices of feature maps.
        projection: to the model's input.
        stage_steps: `[S]`, the most steps of each stage.
        ascent: step and convergence.
        snapshot_steps: `[K]`, steps after which all patterns are kept.

    Returns:
        The patterns and how they came about.
    """
    lanes = CPU_LANES if jax.default_backend() == "cpu" else DEVICE_LANES
    results, responses = climb_all(
        layer if isinstance(layer, jax.tree_util.Partial) else jax.tree_util.Partial(layer),
        jnp.asarray(starts),
        jnp.asarray(maps, jnp.int32),
        jnp.asarray(stage_steps, jnp.int32),
        jnp.asarray(snapshot_steps, jnp.int32),
        project=projection,
        step_size=ascent.epsilon * projection.std,
        tolerance=ascent.tolerance,
        patience=ascent.patience,
        sizes=(min(lanes, np.size(maps)), int(sum(stage_steps))),
    )
    patterns, converged, steps, curves, snapshots = jax.device_get(results)
    patterns, curves = patterns[:-1], curves[:, :-1]
    ended = np.asarray(snapshot_steps, int)[:, None] > np.sum(~np.isnan(curves), axis=0)[None]
    return Excitation(
        patterns=patterns,
        responses=np.asarray(responses),
        converged=converged[:-1],
        steps=steps[:-1],
        curves=curves,
        snapshots=np.where(ended[..., None, None, None], patterns[None], snapshots[:, :-1]),
    )
