"""Mixtures of Gaussians over latent points: their density, and seeded draws."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vae_jax.metrics.densities import Gaussian, gaussian_log_prob

HIGHEST = jax.lax.Precision.HIGHEST


class Mixture(NamedTuple):
    """Mixture of K Gaussians with full covariances.

    Attributes:
        log_weights: `[K]`, logarithms of the shares.
        means: `[K, Z]`.
        choleskys: `[K, Z, Z]`, lower triangular.
    """

    log_weights: jax.Array
    means: jax.Array
    choleskys: jax.Array


def joint_log_prob(mixture: Mixture, points: jax.Array) -> jax.Array:
    """`[K, N]`: log of weight times density. One component at a time keeps memory at [N, Z]."""

    def component(parts: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        log_weight, mean, cholesky = parts
        return log_weight + gaussian_log_prob(Gaussian(mean, cholesky), points)

    return jax.lax.map(component, tuple(mixture))


@jax.jit
def mixture_log_prob(mixture: Mixture, points: jax.Array) -> jax.Array:
    """Log density of each point.

    Args:
        mixture: the density.
        points: `[N, Z]`.

    Returns:
        `[N]` in nats.
    """
    return jax.scipy.special.logsumexp(joint_log_prob(mixture, points), axis=0)


@partial(jax.jit, static_argnames="count")
def mixture_sample(mixture: Mixture, key: jax.Array, count: int) -> jax.Array:
    """Draw points; row i depends on (key, i) alone.

    Args:
        mixture: the density.
        key: typed random key.
        count: number of points.

    Returns:
        `[count, Z]`.
    """

    def draw(index: jax.Array) -> jax.Array:
        component_key, noise_key = jax.random.split(jax.random.fold_in(key, index))
        chosen = jax.random.categorical(component_key, mixture.log_weights)
        mean = mixture.means[chosen]
        noise = jax.random.normal(noise_key, mean.shape, mean.dtype)
        return mean + jnp.dot(mixture.choleskys[chosen], noise, precision=HIGHEST)

    return jax.lax.map(draw, jnp.arange(count))
