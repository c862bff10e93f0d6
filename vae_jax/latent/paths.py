"""Paths and directions in latent space: interpolation, traversals, attributes, 2-D grids.

A path is `[T, Z]`, ready to be decoded as one batch.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.types import UserError


def _positions(start: jax.Array, end: jax.Array, steps: int) -> jax.Array:
    """`[T, 1]` from 0 to 1."""
    if start.ndim != 1 or start.shape != end.shape:
        raise ValueError(f"Both ends must share a shape [Z], but got {start.shape}, {end.shape}.")
    if steps < 2:
        raise UserError(f"A path needs at least 2 steps, but got {steps}")
    return jnp.linspace(0.0, 1.0, steps, dtype=start.dtype)[:, None]


@partial(jax.jit, static_argnames="steps")
def linear(start: jax.Array, end: jax.Array, steps: int) -> jax.Array:
    """Straight line between two latent points; both ends are exact.

    Args:
        start: `[Z]`.
        end: `[Z]`.
        steps: T, at least 2.

    Returns:
        `[T, Z]`.

    Raises:
        ValueError: unequal shapes.
        UserError: fewer than 2 steps.
    """
    t = _positions(start, end, steps)
    path = (1 - t) * start[None, :] + t * end[None, :]
    return path.at[0].set(start).at[-1].set(end)


@partial(jax.jit, static_argnames="steps")
def spherical(start: jax.Array, end: jax.Array, steps: int) -> jax.Array:
    """Great circle between two directions at a radius that changes evenly; both ends are exact.

    For ends of equal norm this is slerp (White, "Sampling generative networks", 2016): the path
    stays at the radius where a Gaussian in many dimensions has its mass, which a straight line
    leaves. Opposite ends, between which every great circle is as good, turn through the coordinate
    axis that is most nearly perpendicular to `start`. An end at the origin gives a straight line.

    Args:
        start: `[Z]`.
        end: `[Z]`.
        steps: T, at least 2.

    Returns:
        `[T, Z]`.

    Raises:
        ValueError: unequal shapes.
        UserError: fewer than 2 steps.
    """
    t = _positions(start, end, steps)
    tiny = jnp.finfo(start.dtype).tiny
    start_radius, end_radius = jnp.linalg.norm(start), jnp.linalg.norm(end)
    first = start / jnp.maximum(start_radius, tiny)
    second = end / jnp.maximum(end_radius, tiny)
    cosine = jnp.dot(first, second, precision=jax.lax.Precision.HIGHEST)
    rest = second - cosine * first
    sine = jnp.linalg.norm(rest)
    angle = jnp.arctan2(sine, cosine)
    # Below this the perpendicular part is rounding: ends that are parallel or opposite.
    degenerate = sine < 8 * jnp.finfo(start.dtype).eps
    axis = jax.nn.one_hot(jnp.argmin(jnp.abs(first)), len(first), dtype=first.dtype)
    axis = axis - jnp.dot(axis, first, precision=jax.lax.Precision.HIGHEST) * first
    across = jnp.where(degenerate, axis, rest)
    across = across / jnp.maximum(jnp.linalg.norm(across), tiny)
    directions = jnp.cos(t * angle) * first[None, :] + jnp.sin(t * angle) * across[None, :]
    path = ((1 - t) * start_radius + t * end_radius) * directions
    straight = (1 - t) * start[None, :] + t * end[None, :]
    path = jnp.where(jnp.minimum(start_radius, end_radius) > 0, path, straight)
    return path.at[0].set(start).at[-1].set(end)


@partial(jax.jit, static_argnames=("block", "relative"))
def block_traversals(
    z: jax.Array, values: jax.Array, block: int, relative: bool = False
) -> jax.Array:
    """One path for each block of neighbouring components, all of which take the same values.

    Args:
        z: `[Z]` the point to start from.
        values: `[T]` what the components of the block are set to.
        block: components a block; the last block may be smaller.
        relative: add the values to the components instead.

    Returns:
        `[ceil(Z / block), T, Z]`.

    Raises:
        ValueError: `z` or `values` is not a vector.
        UserError: a block without components.
    """
    if z.ndim != 1 or values.ndim != 1:
        raise ValueError(f"Expected z [Z] and values [T], but got {z.shape} and {values.shape}.")
    if block < 1:
        raise UserError(f"A block must have at least 1 component, but got {block}")
    blocks = -(-len(z) // block)
    inside = (jnp.arange(len(z))[None, :] // block == jnp.arange(blocks)[:, None])[:, None, :]
    start = z[None, None, :]
    moved = values.astype(z.dtype)[None, :, None] + (start if relative else jnp.zeros_like(start))
    return jnp.where(inside, moved, start)


def traversals(z: jax.Array, values: jax.Array, relative: bool = False) -> jax.Array:
    """One path for each single component, the others staying where they are.

    Args:
        z: `[Z]` the point to start from.
        values: `[T]` what the component is set to.
        relative: add the values to the component instead.

    Returns:
        `[Z, T, Z]`; entry d moves component d.
    """
    return block_traversals(z, values, 1, relative)


def attribute_vectors(z: np.ndarray, labels: np.ndarray, joint: bool = False) -> np.ndarray:
    """Direction of each binary attribute: mean code with it minus mean code without it.

    Attributes that occur together (lipstick, make-up) share their directions. With `joint`, all
    attributes explain the codes together by least squares, and each vector is the effect of one
    with the others held fixed; for one attribute both are the same.

    Args:
        z: `[N, Z]` codes, as a rule posterior means.
        labels: `[N, A]` or `[N]`, 0 or 1.
        joint: separate attributes that occur together.

    Returns:
        `[A, Z]`, or `[Z]` for labels `[N]`, in the dtype of `z`.

    Raises:
        ValueError: counts that do not match.
        UserError: labels other than 0 and 1, or an attribute that all or no images have.

    References:
        Larsen et al., "Autoencoding beyond pixels using a learned similarity metric", ICML 2016.
    """
    z, labels = np.asarray(z), np.asarray(labels)
    if z.ndim != 2 or labels.ndim not in (1, 2) or len(z) != len(labels):
        raise ValueError(f"Expected z [N, Z], labels [N, A]; got {z.shape} and {labels.shape}.")
    if not np.isin(labels, (0, 1)).all():
        raise UserError("Attribute labels must be 0 or 1")
    table = labels.reshape(len(z), -1).astype(np.float64)
    with_it = table.sum(axis=0)
    constant = np.flatnonzero((with_it == 0) | (with_it == len(z)))
    if constant.size:
        raise UserError(
            f"Attribute {constant[0]} is the same for all {len(z)} images: it has no direction"
        )
    codes = z.astype(np.float64)
    if joint:
        design = np.concatenate([table, np.ones((len(z), 1))], axis=1)
        vectors = np.linalg.lstsq(design, codes, rcond=None)[0][:-1]
    else:
        without = len(z) - with_it
        vectors = table.T @ codes / with_it[:, None] - (1 - table).T @ codes / without[:, None]
    return vectors.astype(z.dtype).reshape(labels.shape[1:] + z.shape[1:])


def shift(z: jax.Array, vector: jax.Array, strength: float | jax.Array) -> jax.Array:
    """Move codes along a direction: `z + strength * vector` ("face arithmetic").

    Args:
        z: `[..., Z]`.
        vector: `[Z]`, such as one of `attribute_vectors`.
        strength: 1 adds the whole difference, negative values remove it.

    Returns:
        `[..., Z]`.

    Raises:
        ValueError: unequal Z.
    """
    if vector.shape != z.shape[-1:]:
        raise ValueError(f"The vector must be [Z], but got {vector.shape} for z {z.shape}.")
    return z + strength * jnp.broadcast_to(vector, z.shape)


def _grid(ticks: jax.Array) -> jax.Array:
    """`[n * n, 2]`, row by row, the largest second coordinate on top as in a plot."""
    rows, columns = jnp.meshgrid(ticks[::-1], ticks, indexing="ij")
    return jnp.stack([columns.reshape(-1), rows.reshape(-1)], axis=1)


def manifold_grid(n: int, extent: float) -> jax.Array:
    """Even n x n grid of a two-dimensional latent space, from `-extent` to `extent`.

    Args:
        n: points a side.
        extent: half the side.

    Returns:
        `[n * n, 2]`, row by row from the top left.
    """
    return _grid(jnp.linspace(-extent, extent, n))


def quantile_grid(n: int) -> jax.Array:
    """n x n grid of equal probability under N(0, I): normal quantiles of `(i + 1/2) / n`.

    Args:
        n: points a side.

    Returns:
        `[n * n, 2]`, row by row from the top left.
    """
    return _grid(jax.scipy.special.ndtri((jnp.arange(n) + 0.5) / n))
