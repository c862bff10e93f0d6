"""Input patterns that excite a feature map most: gradient ascent on the image.

Erhan et al. 2009, "Visualizing Higher-Layer Features of a Deep Network".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.filter_starts import standardise

# [B, H, W, C] -> feature maps [B, h, w, F]; a plain function, or a tree of arrays
# (`jax.tree_util.Partial`), which compiles once for all weights.
LayerFn = Callable[[jax.Array], jax.Array]


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
        curves: `[T, M]`, the response before each step of the longest ascent; constant after
            convergence.
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
    maps: Sequence[int],
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
    patterns, responses, climb = _excite(
        layer if isinstance(layer, jax.tree_util.Partial) else jax.tree_util.Partial(layer),
        jnp.asarray(starts),
        jnp.asarray(maps, jnp.int32),
        jnp.asarray(stage_steps, jnp.int32),
        jnp.asarray(snapshot_steps, jnp.int32),
        projection=projection,
        ascent=ascent,
        total=int(sum(stage_steps)),
    )
    climb = jax.device_get(climb)
    return Excitation(
        patterns=np.asarray(patterns),
        responses=np.asarray(responses),
        converged=climb.quiet >= ascent.patience,
        steps=climb.steps,
        curves=climb.curves[: int(climb.step)],
        snapshots=climb.snapshots,
    )


class _Climb(NamedTuple):
    """What the loop carries; see `Excitation`. `quiet` counts steps in a row without change."""

    step: jax.Array
    images: jax.Array
    previous: jax.Array
    quiet: jax.Array
    steps: jax.Array
    curves: jax.Array
    snapshots: jax.Array


@partial(jax.jit, static_argnames=("projection", "ascent", "total"))
def _excite(
    layer: jax.tree_util.Partial,
    starts: jax.Array,
    maps: jax.Array,
    stage_steps: jax.Array,
    snapshot_steps: jax.Array,
    *,
    projection: Projection,
    ascent: Ascent,
    total: int,
) -> tuple[jax.Array, jax.Array, _Climb]:
    def response_of(images: jax.Array) -> jax.Array:
        return jnp.take_along_axis(map_responses(layer, images), maps[:, None], axis=1)[:, 0]

    def keep(climb: _Climb) -> _Climb:
        due = _per_image(snapshot_steps == climb.step)[:, None]
        return climb._replace(snapshots=jnp.where(due, climb.images[None], climb.snapshots))

    def climb_step(climb: _Climb) -> _Climb:
        # Images are independent, so the gradient of the sum is every image's own gradient.
        response, pull_back = jax.vjp(response_of, climb.images)
        (gradient,) = pull_back(jnp.ones_like(response))
        change = jnp.abs(response - climb.previous)
        still = change <= ascent.tolerance * jnp.abs(climb.previous)  # False where that is NaN.
        quiet = jnp.where(still, climb.quiet + 1, 0)
        ended = quiet >= ascent.patience
        rms = jnp.sqrt(jnp.mean(jnp.square(gradient), axis=(1, 2, 3), keepdims=True))
        direction = gradient / jnp.where(rms > 0, rms, 1.0)
        moved = projection(climb.images + ascent.epsilon * projection.std * direction)
        images = jnp.where(_per_image(ended), climb.images, moved)
        curves = climb.curves.at[climb.step].set(response)
        return keep(
            climb._replace(
                step=climb.step + 1,
                images=images,
                previous=response,
                quiet=quiet,
                steps=climb.steps + ~ended,
                curves=curves,
            )
        )

    def stage(climb: _Climb, inputs: tuple[jax.Array, jax.Array]) -> tuple[_Climb, None]:
        noise, steps = inputs
        limit = climb.step + steps
        climb = climb._replace(
            images=projection(standardise(climb.images) + noise),
            previous=jnp.full_like(climb.previous, jnp.nan),
            quiet=jnp.zeros_like(climb.quiet),
        )

        def unfinished(climb: _Climb) -> jax.Array:
            return (climb.step < limit) & jnp.any(climb.quiet < ascent.patience)

        return jax.lax.while_loop(unfinished, climb_step, keep(climb)), None

    climb, _ = jax.lax.scan(
        stage, _at_rest(starts, total, len(snapshot_steps)), (starts, stage_steps)
    )
    never = _per_image(snapshot_steps > climb.step)[:, None]
    snapshots = jnp.where(never, climb.images[None], climb.snapshots)
    return climb.images, response_of(climb.images), climb._replace(snapshots=snapshots)


def _at_rest(starts: jax.Array, total: int, snapshots: int) -> _Climb:
    """The loop's start: images without contrast, to which the first stage adds its own."""
    count, dtype = starts.shape[1], starts.dtype
    return _Climb(
        step=jnp.zeros((), jnp.int32),
        images=jnp.zeros(starts.shape[1:], dtype),
        previous=jnp.zeros(count, dtype),
        quiet=jnp.zeros(count, jnp.int32),
        steps=jnp.zeros(count, jnp.int32),
        curves=jnp.zeros((total, count), dtype),
        snapshots=jnp.zeros((snapshots, *starts.shape[1:]), dtype),
    )


def _per_image(flags: jax.Array) -> jax.Array:
    """`[M]` to `[M, 1, 1, 1]`."""
    return flags[:, None, None, None]
