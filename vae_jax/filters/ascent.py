"""The compiled program behind `vae_jax.filters.excitation.excite`.

Maps converge after very different numbers of steps. The program therefore has a fixed number of
lanes, each climbing for one map at a time: a lane whose map has ended takes the next one, so that
none computes in vain, and a map's result does not depend on the maps beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vae_jax.filters.starts import standardise


class Results(NamedTuple):
    """What is known of M maps, in rows 0 to M - 1; row M is where idle lanes write.

    Attributes:
        patterns: `[M + 1, H, W, C]`.
        converged: `[M + 1]` bool.
        steps: `[M + 1]` int32, changes of the image.
        curves: `[T, M + 1]`, response before each step; NaN after the last.
        snapshots: `[K, M + 1, H, W, C]`.
    """

    patterns: jax.Array
    converged: jax.Array
    steps: jax.Array
    curves: jax.Array
    snapshots: jax.Array


class _Lanes(NamedTuple):
    """`[L, ...]`: the row that each lane works on, its image, and how far it has come."""

    row: jax.Array
    images: jax.Array
    previous: jax.Array  # response one step ago
    quiet: jax.Array  # steps in a row without change
    stage: jax.Array
    stage_step: jax.Array
    step: jax.Array
    moves: jax.Array


class _Climb(NamedTuple):
    """What stays the same while the lanes climb; see `climb_all`."""

    layer: Callable[[jax.Array], jax.Array]
    starts: jax.Array
    maps: jax.Array
    stage_steps: jax.Array
    snapshot_steps: jax.Array
    project: Callable[[jax.Array], jax.Array]
    step_size: float
    tolerance: float
    patience: int

    def responses(self, images: jax.Array, rows: jax.Array) -> jax.Array:
        """`[L]`, of each row's map to its image."""
        means = jnp.mean(self.layer(images), axis=(1, 2))
        chosen = jnp.take_along_axis(means, self.maps[rows][:, None], axis=1)[:, 0]
        return chosen.astype(self.starts.dtype)

    def begun(self, stage: jax.Array, row: jax.Array, images: jax.Array) -> jax.Array:
        """`[L, H, W, C]`: images as they enter a stage."""
        stages, count = self.starts.shape[:2]
        noise = self.starts[jnp.minimum(stage, stages - 1), jnp.minimum(row, count - 1)]
        return self.project(standardise(images) + noise)


@partial(jax.jit, static_argnames=("project", "step_size", "tolerance", "patience", "sizes"))
def climb_all(
    layer: jax.tree_util.Partial,
    starts: jax.Array,
    maps: jax.Array,
    stage_steps: jax.Array,
    snapshot_steps: jax.Array,
    *,
    project: Callable[[jax.Array], jax.Array],
    step_size: float,
    tolerance: float,
    patience: int,
    sizes: tuple[int, int],
) -> tuple[Results, jax.Array]:
    """Climb for every map.

    Args:
        layer: `[B, H, W, C]` to feature maps `[B, h, w, F]`.
        starts: `[S, M, H, W, C]`, what each stage adds.
        maps: `[M]` int32.
        stage_steps: `[S]` int32.
        snapshot_steps: `[K]` int32.
        project: onto the images that are allowed.
        step_size: factor of the gradient after its division by its RMS.
        tolerance: relative change of the response that counts as none.
        patience: so many steps without change end a stage.
        sizes: number of lanes L and most steps of a map T.

    Returns:
        The results, and the response `[M]` to every pattern.
    """
    climb = _Climb(
        layer, starts, maps, stage_steps, snapshot_steps, project, step_size, tolerance, patience
    )
    (count, *shape), dtype, (lanes_count, total) = starts.shape[1:], starts.dtype, sizes
    row, zeros = jnp.arange(lanes_count), jnp.zeros(lanes_count, jnp.int32)
    images = climb.begun(zeros, row, jnp.zeros((lanes_count, *shape), dtype))
    unknown = jnp.full(lanes_count, jnp.nan, dtype)
    lanes = _Lanes(row, images, unknown, zeros, zeros, zeros, zeros, zeros)
    results = _no_results(project(starts[0]), total, len(snapshot_steps))
    _, results, _ = jax.lax.while_loop(
        lambda loop: jnp.any(loop[0].row < count),
        partial(_step, climb),
        (lanes, results, jnp.asarray(lanes_count)),
    )
    return results, climb.responses(results.patterns[:-1], jnp.arange(count))


def _step(
    climb: _Climb, loop: tuple[_Lanes, Results, jax.Array]
) -> tuple[_Lanes, Results, jax.Array]:
    """One step in every lane; lanes that have finished a map take those from `next_row` on."""
    lanes, results, next_row = loop
    stages, count = climb.starts.shape[:2]
    response, images, quiet = _climbed(climb, lanes)
    converged = quiet >= climb.patience
    step, stage_step = lanes.step + 1, lanes.stage_step + 1
    moves = lanes.moves + ~converged

    stage_over = converged | (stage_step >= climb.stage_steps[lanes.stage])
    done = stage_over & (lanes.stage == stages - 1)
    finished = jnp.where(done, lanes.row, count)
    results = Results(
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
    """Responses before a step, images after it (as they were, if converged), and quiet steps."""
    rows = jnp.minimum(lanes.row, climb.starts.shape[1] - 1)
    # Images are independent, so the gradient of the sum is every image's own gradient.
    response, pull_back = jax.vjp(lambda images: climb.responses(images, rows), lanes.images)
    (gradient,) = pull_back(jnp.ones_like(response))
    change = jnp.abs(response - lanes.previous)
    still = change <= climb.tolerance * jnp.abs(lanes.previous)  # False where that is NaN.
    quiet = jnp.where(still, lanes.quiet + 1, 0)
    moved = climb.project(lanes.images + climb.step_size * _over_rms(gradient))
    converged = _per_image(quiet >= climb.patience)
    return response, jnp.where(converged, lanes.images, moved), quiet


def _no_results(first: jax.Array, total: int, snapshots: int) -> Results:
    """Room for the results of M maps that start from `first` `[M, H, W, C]`."""
    rows = len(first) + 1
    patterns = jnp.pad(first, ((0, 1), (0, 0), (0, 0), (0, 0)))
    return Results(
        patterns=patterns,
        converged=jnp.zeros(rows, bool),
        steps=jnp.zeros(rows, jnp.int32),
        curves=jnp.full((total, rows), jnp.nan, first.dtype),
        snapshots=jnp.broadcast_to(patterns, (snapshots, *patterns.shape)),
    )


def _over_rms(gradient: jax.Array) -> jax.Array:
    """`[L, H, W, C]` with a root mean square of 1 for each image; 0 stays 0."""
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
    """`[L]` to `[L, 1, 1, 1]`."""
    return flags[:, None, None, None]
