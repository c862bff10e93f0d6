"""The radius of latent points, and what it would be under N(0, I): the chi law in Z dimensions."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

BISECTIONS = 60


def chi_moments(z_dim: int) -> tuple[float, float]:
    """Mean and standard deviation of |z| for z ~ N(0, I); about `sqrt(Z - 1/2)` and 0.71.

    Args:
        z_dim: Z.

    Returns:
        `sqrt(2) Gamma((Z + 1) / 2) / Gamma(Z / 2)` and `sqrt(Z - mean^2)`.
    """
    mean = math.sqrt(2) * math.exp(math.lgamma((z_dim + 1) / 2) - math.lgamma(z_dim / 2))
    return mean, math.sqrt(z_dim - mean**2)


def chi_cdf(radius: jax.Array, z_dim: int) -> jax.Array:
    """P(|z| < radius) for z ~ N(0, I), element by element.

    Args:
        radius: any shape, at least 0.
        z_dim: Z.

    Returns:
        Probabilities in the shape of `radius`; float32 is good to about 1e-4 at Z = 1,200.
    """
    radius = jnp.asarray(radius, dtype=float)
    shape = jnp.full_like(radius, z_dim / 2)
    return jax.scipy.special.gammainc(shape, jnp.square(radius) / 2)


def log10_probability_within(radius: float, z_dim: int) -> float:
    """log10 P(|z| < radius) for z ~ N(0, I_Z), where the probability itself underflows.

    The series `P(a, x) = x^a e^-x / Gamma(a + 1) * sum_n x^n / ((a + 1) ... (a + n))` with
    `a = Z / 2`, `x = radius^2 / 2`, summed as logarithms.

    Args:
        radius: distance from the origin, above 0.
        z_dim: Z.

    Returns:
        The decimal logarithm: -188.3 for radius 1 in 200 dimensions.
    """
    a, x = z_dim / 2, radius**2 / 2
    # Terms fall once n > x - a, and like a Gaussian of width sqrt(x) there.
    n = np.arange(1, int(x + 20 * math.sqrt(x)) + 200)
    log_terms = np.concatenate([[0.0], np.cumsum(math.log(x) - np.log(a + n))])
    largest = log_terms.max()
    log_sum = largest + math.log(np.exp(log_terms - largest).sum())
    return min(a * math.log(x) - x - math.lgamma(a + 1) + log_sum, 0.0) / math.log(10)


def radius_distance(radii: np.ndarray, z_dim: int) -> float:
    """Kolmogorov-Smirnov distance between observed radii and the chi law.

    Args:
        radii: `[N]` norms of latent points.
        z_dim: Z.

    Returns:
        Largest difference of the distribution functions, in [0, 1]; about `0.87 / sqrt(N)` on
        average if the points do follow N(0, I).
    """
    ordered = np.sort(np.asarray(radii))
    expected = np.asarray(chi_cdf(jnp.asarray(ordered), z_dim), np.float64)
    steps = np.arange(len(ordered) + 1) / len(ordered)
    return float(max((steps[1:] - expected).max(), (expected - steps[:-1]).max()))


@jax.jit
def chi_square_quantiles(probabilities: jax.Array, z_dim: int) -> jax.Array:
    """Quantiles of |z|^2 for z ~ N(0, I), by bisection of the distribution function.

    Args:
        probabilities: `[Q]` in (0, 1).
        z_dim: Z.

    Returns:
        `[Q]`.
    """
    shape = jnp.full_like(probabilities, z_dim / 2)
    low = jnp.zeros_like(probabilities)
    high = jnp.full_like(probabilities, 2.0 * z_dim + 200.0)

    def halve(_: int, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = ends
        middle = (low + high) / 2
        below = jax.scipy.special.gammainc(shape, middle / 2) < probabilities
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    low, high = jax.lax.fori_loop(0, BISECTIONS, halve, (low, high))
    return (low + high) / 2


def mahalanobis_quantiles(points: np.ndarray, probabilities: np.ndarray) -> dict[str, np.ndarray]:
    """Q-Q arrays that show whether points are Gaussian, whatever their mean and covariance.

    Squared Mahalanobis distances from the points' own mean, against the chi-square law with Z
    degrees of freedom (the rank of the covariance, if that is smaller): a straight line of slope 1
    for a Gaussian, up to order Z / N, because mean and covariance are estimated.

    Args:
        points: `[N, Z]`, N well above Z.
        probabilities: `[Q]` in (0, 1).

    Returns:
        `probabilities`, `chi_square` and `observed`, each `[Q]`.
    """
    points = np.asarray(points, np.float64)
    centred = points - points.mean(axis=0, keepdims=True)
    values, vectors = np.linalg.eigh(centred.T @ centred / len(points))
    varying = values > 1e-10 * values[-1]  # The others carry no distance, only rounding.
    white = centred @ (vectors[:, varying] / np.sqrt(values[varying])[None, :])
    squares = np.sum(white**2, axis=1)
    expected = chi_square_quantiles(jnp.asarray(probabilities, dtype=float), white.shape[1])
    return {
        "probabilities": np.asarray(probabilities, np.float64),
        "chi_square": np.asarray(expected, np.float64),
        "observed": np.quantile(squares, probabilities),
    }
