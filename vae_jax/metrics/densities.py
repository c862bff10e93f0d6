"""Densities to draw latent points from: reference distributions and a fitted Gaussian.

Row i of every sampler depends on (key, i) alone: asking for more points leaves the first ones as
they were. Gaussian mixtures are in `mixture.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.types import UserError


def _rows(key: jax.Array, count: int, draw: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """`[count, Z]`; row i is `draw` of the key folded with i."""
    return jax.vmap(lambda i: draw(jax.random.fold_in(key, i)))(jnp.arange(count))


@partial(jax.jit, static_argnames=("count", "z_dim"))
def uniform_orthant(key: jax.Array, count: int, z_dim: int, b: float) -> jax.Array:
    """Components uniform in (0, b): one orthant only, at a radius of about `b sqrt(Z / 3)`.

    Args:
        key: typed random key.
        count: number of points.
        z_dim: Z.
        b: upper end.

    Returns:
        `[count, Z]`.
    """
    return _rows(key, count, lambda k: b * jax.random.uniform(k, (z_dim,), jnp.float32))


@partial(jax.jit, static_argnames=("count", "z_dim"))
def uniform_cube(key: jax.Array, count: int, z_dim: int, b: float) -> jax.Array:
    """Components uniform in (-b, b): the whole cube, at a radius of about `b sqrt(Z / 3)`.

    Args:
        key: typed random key.
        count: number of points.
        z_dim: Z.
        b: half the side.

    Returns:
        `[count, Z]`.
    """
    return _rows(key, count, lambda k: b * jax.random.uniform(k, (z_dim,), jnp.float32, -1.0))


@partial(jax.jit, static_argnames=("count", "z_dim"))
def normal(key: jax.Array, count: int, z_dim: int) -> jax.Array:
    """Points of the prior N(0, I).

    Args:
        key: typed random key.
        count: number of points.
        z_dim: Z.

    Returns:
        `[count, Z]`.
    """
    return _rows(key, count, lambda k: jax.random.normal(k, (z_dim,), jnp.float32))


@partial(jax.jit, static_argnames=("count", "z_dim"))
def sphere(key: jax.Array, count: int, z_dim: int, radius: float) -> jax.Array:
    """Points spread evenly over the sphere of one radius: image quality against distance.

    Args:
        key: typed random key.
        count: number of points.
        z_dim: Z.
        radius: distance from the origin.

    Returns:
        `[count, Z]`.
    """

    def draw(index: jax.Array) -> jax.Array:
        direction = jax.random.normal(jax.random.fold_in(key, index), (z_dim,), jnp.float32)
        return radius * direction / jnp.linalg.norm(direction)

    # One row at a time: sums over a whole batch would round row i differently per count.
    return jax.lax.map(draw, jnp.arange(count))


class Gaussian(NamedTuple):
    """Gaussian with full covariance `cholesky @ cholesky.T`.

    Attributes:
        mean: `[Z]`.
        cholesky: `[Z, Z]`, lower triangular.
    """

    mean: jax.Array
    cholesky: jax.Array


def check_points(points: np.ndarray) -> np.ndarray:
    """Latent points `[N, Z]` on the host, or a `UserError` if they cannot carry a density."""
    points = np.asarray(points)
    if points.ndim != 2 or len(points) < 2:
        raise UserError(f"A density needs at least two points [N, Z], but got {points.shape}")
    if not np.isfinite(points).all():
        raise UserError("Latent points hold NaN or infinite values: check the encoder")
    return points


def host_moments(points: np.ndarray, regularisation: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean `[Z]` and Cholesky factor `[Z, Z]` of the covariance, in float64 on the host."""
    exact = points.astype(np.float64)
    mean = exact.mean(axis=0)
    centred = exact - mean[None, :]
    covariance = centred.T @ centred / len(exact)
    average = np.trace(covariance) / len(covariance)
    if average == 0:
        raise UserError("All latent points are equal: the encoder has collapsed")
    covariance += regularisation * average * np.eye(len(covariance))
    return mean, np.linalg.cholesky(covariance)


def fit_gaussian(points: np.ndarray, regularisation: float = 1e-6) -> Gaussian:
    """Gaussian of highest likelihood.

    Fit it to draws of the aggregate posterior (`posterior.sample`), not to posterior means: those
    lack the posterior's own variance.

    Args:
        points: `[N, Z]`.
        regularisation: added to each variance, as a share of the average variance, so that dead
            or too many dimensions stay invertible.

    Returns:
        `Gaussian` in the dtype of `points`.

    Raises:
        UserError: fewer than two points, points that are all equal, or NaN or infinite values.
    """
    points = check_points(points)
    moments = host_moments(points, regularisation)
    return Gaussian(*(jnp.asarray(part.astype(points.dtype)) for part in moments))


@jax.jit
def gaussian_log_prob(gaussian: Gaussian, points: jax.Array) -> jax.Array:
    """Log density of each point.

    Args:
        gaussian: the density.
        points: `[N, Z]`.

    Returns:
        `[N]` in nats.
    """
    centred = points - gaussian.mean[None, :]
    white = jax.scipy.linalg.solve_triangular(gaussian.cholesky, centred.T, lower=True)
    log_scale = jnp.sum(jnp.log(jnp.diagonal(gaussian.cholesky)))
    constant = 0.5 * points.shape[1] * jnp.log(2 * jnp.pi)
    return -0.5 * jnp.sum(jnp.square(white), axis=0) - log_scale - constant


@partial(jax.jit, static_argnames="count")
def gaussian_sample(gaussian: Gaussian, key: jax.Array, count: int) -> jax.Array:
    """Draw points.

    Args:
        gaussian: the density.
        key: typed random key.
        count: number of points.

    Returns:
        `[count, Z]`.
    """

    def draw(index: jax.Array) -> jax.Array:
        mean, cholesky = gaussian
        noise = jax.random.normal(jax.random.fold_in(key, index), mean.shape, mean.dtype)
        return mean + jnp.dot(cholesky, noise, precision=jax.lax.Precision.HIGHEST)

    # One row at a time, for the same reason as in `sphere`.
    return jax.lax.map(draw, jnp.arange(count))
