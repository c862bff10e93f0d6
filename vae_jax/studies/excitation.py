"""Input patterns that excite a feature map most: gradient ascent on the image.

Erhan et al. 2009, "Visualizing Higher-Layer Features of a Deep Network". Maps converge after very
different numbers of steps. The program therefore has a fixed number of lanes, each of which climbs
for one map at a time: a lane whose map has ended takes the next map, so that no lane computes in
vain, and the result of a map does not depend on the other maps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from numpy.typing import ArrayLike

from vae_jax.types import UserError

# Cells across the shorter side of the image; 0 for one cell per pixel.
SCALES = (3, 7, 14, 0)

Shape = tuple[int, int, int]


@jax.jit
def standardise(images: jax.Array) -> jax.Array:
    """Shifts and scales each image of `[B, H, W, C]` to mean 0 and standard deviation 1.

    An image without contrast becomes 0.
    """
    centred = images - jnp.mean(images, axis=(1, 2, 3), keepdims=True)
    deviation = jnp.sqrt(jnp.mean(jnp.square(centred), axis=(1, 2, 3), keepdims=True))
    return centred / jnp.maximum(deviation, 1e-8)


def _check_scales(image_shape: Shape, scales: Sequence[int], weights: Sequence[float]) -> None:
    """Raises a UserError unless the scales fit the image and each has a positive weight."""
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
    """Draws noise uniform in [-1, 1] on a coarse grid, resized bicubically and standardised.

    Args:
        key: Typed random key; image i depends on (key, i) alone.
        count: M.
        image_shape: `(H, W, C)`; channels are independent.
        scale: Cells across the shorter side (the longer one has proportionally more); 0 for one
            cell per pixel.

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
    """Draws noise at several length scales, to be superposed or added one after the other.

    Args:
        key: Typed random key; image i depends on (key, i) alone.
        count: M.
        image_shape: `(H, W, C)`.
        scales: `[K]`, see `noise_images`.
        weights: `[K]` weights of the scales; equal by default.

    Returns:
        `[K, M, H, W, C]`, each image with mean 0 and its scale's weight as standard deviation.

    Raises:
        UserError: Scales that do not fit the image, or weights that do not fit the scales.
    """
    weights = [1.0] * len(scales) if weights is None else weights
    _check_scales(image_shape, scales, weights)
    layers = [
        weight * noise_images(jax.random.fold_in(key, k), count, image_shape, scale)
        for k, (scale, weight) in enumerate(zip(scales, weights, strict=True))
    ]
    return jnp.stack(layers)


def superpose(layers: jax.Array) -> jax.Array:
    """Sums `[K, M, H, W, C]` to `[M, H, W, C]`, mean 0 and standard deviation 1 each."""
    return standardise(jnp.sum(layers, axis=0))


@partial(jax.jit, static_argnames=("count", "image_shape", "power"))
def fourier_images(key: jax.Array, count: int, image_shape: Shape, power: float = 1.0) -> jax.Array:
    """Draws noise with amplitudes proportional to 1 / frequency^power, standardised.

    Args:
        key: Typed random key; image i depends on (key, i) alone.
        count: M.
        image_shape: `(H, W, C)`.
        power: 0 for white noise; natural images have about 1.

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


# [B, H, W, C] -> feature maps [B, h, w, F]: a plain function, or a `jax.tree_util.Partial`, a tree
# of arrays, which is compiled once for all weights.
LayerFn = Callable[[jax.Array], jax.Array]

# Maps that climb side by side. More lanes gain nothing on a CPU.
CPU_LANES, DEVICE_LANES = 16, 1024


class Projection(NamedTuple):
    """A projection to the images that a pattern may be: of fixed mean and contrast, and clipped.

    A pattern is standardised, and then becomes `clip(mean + std * pattern, low, high)`. By default
    it stays standardised. For a model trained on [0, 1], `unit_range` takes mean and contrast from
    its images, so that a pattern is about as bright and as rich in contrast as they are.

    Attributes:
        mean: Mean of every pattern before clipping.
        std: Standard deviation of every pattern over H, W and C before clipping.
        low: Smallest value that the model was trained on.
        high: Largest value that the model was trained on.
    """

    mean: float = 0.0
    std: float = 1.0
    low: float = -math.inf
    high: float = math.inf

    def __call__(self, images: jax.Array) -> jax.Array:
        """Projects images `[B, H, W, C]`."""
        return jnp.clip(self.mean + self.std * standardise(images), self.low, self.high)


def unit_range(images: np.ndarray) -> Projection:
    """Returns the projection to the average mean and contrast of images, within [0, 1].

    Args:
        images: `[N, H, W, C]`, uint8 or floats in [0, 1].
    """
    scale = 255.0 if images.dtype == np.uint8 else 1.0
    flat = images.reshape(len(images), -1).astype(np.float64) / scale
    return Projection(float(flat.mean()), float(flat.std(axis=1).mean()), 0.0, 1.0)


class Ascent(NamedTuple):
    """Step size and convergence.

    Attributes:
        epsilon: Step size, as a share of the projection's standard deviation.
        tolerance: Relative change of the response that counts as none.
        patience: Number of steps in a row without change after which a map has converged.
    """

    epsilon: float = 0.01
    tolerance: float = 5e-4
    patience: int = 4


class Excitation(NamedTuple):
    """What `excite` found for each of M maps.

    Attributes:
        patterns: `[M, H, W, C]`, projected to the model's input.
        responses: `[M]`, mean activation of the map.
        converged: `[M]` bool.
        steps: `[M]` int, steps taken.
        curves: `[T, M]`, the response before each of at most T steps; NaN after the last one.
        snapshots: `[K, M, H, W, C]`, the patterns after the K steps that were asked for.
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
    """Returns the mean activation `[B, F]` of every map of a layer for images `[B, H, W, C]`."""
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
    """Finds the image that each map responds to most by gradient ascent, all in one program.

    A step adds `epsilon * std * gradient / RMS(gradient)` to each image and projects it. A map ends
    once the relative change of its response was at most `tolerance` in `patience` successive
    steps.

    Args:
        layer: The layer, see `LayerFn`.
        starts: `[S, M, H, W, C]`: each of S stages begins by adding its images to the standardised
            patterns of the stage before. One stage is the plain loop; noise from coarse to fine
            scales (`scale_layers`) is the evolution by scales.
        maps: `[M]` indices of feature maps.
        projection: Projection to the model's input.
        stage_steps: `[S]`, most steps of each stage.
        ascent: Step size and convergence.
        snapshot_steps: `[K]`, steps after which all patterns are kept.
    """
    climb = _Climb(
        layer if isinstance(layer, jax.tree_util.Partial) else jax.tree_util.Partial(layer),
        jnp.asarray(starts),
        jnp.asarray(maps, jnp.int32),
        jnp.asarray(stage_steps, jnp.int32),
        jnp.asarray(snapshot_steps, jnp.int32),
        projection,
        ascent,
    )
    lanes = CPU_LANES if jax.default_backend() == "cpu" else DEVICE_LANES
    results, responses = _climb_all(climb, min(lanes, np.size(maps)), int(sum(stage_steps)))
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


class _Results(NamedTuple):
    """The arrays of `Excitation` with a row for each of M maps, and row M for idle lanes."""

    patterns: jax.Array
    converged: jax.Array
    steps: jax.Array
    curves: jax.Array
    snapshots: jax.Array


class _Lanes(NamedTuple):
    """The row that each lane works on, its image, and its progress: `[L, ...]`."""

    row: jax.Array
    images: jax.Array
    previous: jax.Array  # response one step ago
    quiet: jax.Array  # steps in a row without change
    stage: jax.Array
    stage_step: jax.Array
    step: jax.Array
    moves: jax.Array


@struct.dataclass
class _Climb:
    """What stays the same while the lanes climb, see `excite`."""

    layer: jax.tree_util.Partial
    starts: jax.Array
    maps: jax.Array
    stage_steps: jax.Array
    snapshot_steps: jax.Array
    projection: Projection = struct.field(pytree_node=False)
    ascent: Ascent = struct.field(pytree_node=False)

    def responses(self, images: jax.Array, rows: jax.Array) -> jax.Array:
        """Returns the response `[L]` of each row's map to its image."""
        means = jnp.mean(self.layer(images), axis=(1, 2))
        chosen = jnp.take_along_axis(means, self.maps[rows][:, None], axis=1)[:, 0]
        return chosen.astype(self.starts.dtype)

    def begun(self, stage: jax.Array, row: jax.Array, images: jax.Array) -> jax.Array:
        """Returns `[L, H, W, C]`: images as they enter a stage."""
        stages, count = self.starts.shape[:2]
        noise = self.starts[jnp.minimum(stage, stages - 1), jnp.minimum(row, count - 1)]
        return self.projection(standardise(images) + noise)


@partial(jax.jit, static_argnames=("lanes_count", "total"))
def _climb_all(climb: _Climb, lanes_count: int, total: int) -> tuple[_Results, jax.Array]:
    """Returns the results for every map, and the response `[M]` to every pattern.

    Args:
        climb: What to climb for.
        lanes_count: L.
        total: T, most steps of a map.
    """
    (count, *shape), dtype = climb.starts.shape[1:], climb.starts.dtype
    row, zeros = jnp.arange(lanes_count), jnp.zeros(lanes_count, jnp.int32)
    images = climb.begun(zeros, row, jnp.zeros((lanes_count, *shape), dtype))
    unknown = jnp.full(lanes_count, jnp.nan, dtype)
    lanes = _Lanes(row, images, unknown, zeros, zeros, zeros, zeros, zeros)
    first = climb.projection(climb.starts[0])
    results = _no_results(first, total, len(climb.snapshot_steps))
    _, results, _ = jax.lax.while_loop(
        lambda loop: jnp.any(loop[0].row < count),
        partial(_step, climb),
        (lanes, results, jnp.asarray(lanes_count)),
    )
    return results, climb.responses(results.patterns[:-1], jnp.arange(count))


def _step(
    climb: _Climb, loop: tuple[_Lanes, _Results, jax.Array]
) -> tuple[_Lanes, _Results, jax.Array]:
    """Makes one step in every lane; lanes that have finished a map take the maps from next_row."""
    lanes, results, next_row = loop
    stages, count = climb.starts.shape[:2]
    response, images, quiet = _climbed(climb, lanes)
    converged = quiet >= climb.ascent.patience
    step, stage_step = lanes.step + 1, lanes.stage_step + 1
    moves = lanes.moves + ~converged

    stage_over = converged | (stage_step >= climb.stage_steps[lanes.stage])
    done = stage_over & (lanes.stage == stages - 1)
    finished = jnp.where(done, lanes.row, count)
    results = _Results(
        patterns=results.patterns.at[finished].set(images),
        converged=results.converged.at[finished].set(converged),
        steps=results.steps.at[finished].set(moves),
        curves=results.curves.at[lanes.step, lanes.row].set(response),
        snapshots=_keep(results.snapshots, climb.snapshot_steps, step, lanes.row, images),
    )
    taken = next_row + jnp.cumsum(done) - 1
    row = jnp.where(done, jnp.minimum(taken, count), lanes.row)
    stage = jnp.where(done, 0, lanes.stage + stage_over)
    begun = climb.begun(stage, row, jnp.where(_per_image(done), 0.0, images))
    lanes = _Lanes(
        row=row,
        images=jnp.where(_per_image(stage_over), begun, images),
        previous=jnp.where(stage_over, jnp.nan, response),
        quiet=jnp.where(stage_over, 0, quiet),
        stage=stage,
        stage_step=jnp.where(stage_over, 0, stage_step),
        step=jnp.where(done, 0, step),
        moves=jnp.where(done, 0, moves),
    )
    return lanes, results, next_row + jnp.sum(done)


def _climbed(climb: _Climb, lanes: _Lanes) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns responses before a step, images after it, and the numbers of steps without change."""
    rows = jnp.minimum(lanes.row, climb.starts.shape[1] - 1)
    # Images are independent, so the gradient of the sum is every image's own gradient.
    response, pull_back = jax.vjp(lambda images: climb.responses(images, rows), lanes.images)
    (gradient,) = pull_back(jnp.ones_like(response))
    change = jnp.abs(response - lanes.previous)
    still = change <= climb.ascent.tolerance * jnp.abs(lanes.previous)  # False where that is NaN.
    quiet = jnp.where(still, lanes.quiet + 1, 0)
    step_size = climb.ascent.epsilon * climb.projection.std
    moved = climb.projection(lanes.images + step_size * _over_rms(gradient))
    converged = _per_image(quiet >= climb.ascent.patience)
    return response, jnp.where(converged, lanes.images, moved), quiet


def _no_results(first: jax.Array, total: int, snapshots: int) -> _Results:
    """Returns empty results of M maps that start from `first` `[M, H, W, C]`."""
    rows = len(first) + 1
    patterns = jnp.pad(first, ((0, 1), (0, 0), (0, 0), (0, 0)))
    return _Results(
        patterns=patterns,
        converged=jnp.zeros(rows, bool),
        steps=jnp.zeros(rows, jnp.int32),
        curves=jnp.full((total, rows), jnp.nan, first.dtype),
        snapshots=jnp.broadcast_to(patterns, (snapshots, *patterns.shape)),
    )


def _over_rms(gradient: jax.Array) -> jax.Array:
    """Returns `[L, H, W, C]` with a root mean square of 1 for each image; 0 stays 0."""
    rms = jnp.sqrt(jnp.mean(jnp.square(gradient), axis=(1, 2, 3), keepdims=True))
    return gradient / jnp.where(rms > 0, rms, 1.0)


def _keep(
    snapshots: jax.Array,
    snapshot_steps: jax.Array,
    step: jax.Array,
    row: jax.Array,
    images: jax.Array,
) -> jax.Array:
    due = (snapshot_steps[:, None] == step[None, :])[..., None, None, None]
    return snapshots.at[:, row].set(jnp.where(due, images[None], snapshots[:, row]))


def _per_image(flags: jax.Array) -> jax.Array:
    """Reshapes `[L]` to `[L, 1, 1, 1]`."""
    return flags[:, None, None, None]
