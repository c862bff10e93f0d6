"""Statistics of the aggregate posterior q(z) = mean over images of q(z|x).

Inputs are the posterior means and log variances `[N, Z]` of a whole data split. Moments, radii and
distances are computed in float64 on the host.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special, stats

from vae_jax.metrics.bounds import standard_error
from vae_jax.metrics.densities import normal
from vae_jax.metrics.feature_distances import distance_chunks
from vae_jax.types import UserError

ACTIVE_VARIANCE = 0.01  # of the posterior mean over images
MMD_POINTS = 2048  # of each set, at most
IMQ_SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
DECOMPOSITION_IMAGES = 1024  # in the minibatch that estimates q(z)
QQ_PROBABILITIES = tuple(round(0.01 * percent, 2) for percent in range(1, 100))


class Moments(NamedTuple):
    """Mean and covariances of the aggregate posterior.

    Attributes:
        offset: `[Z]`, mean of the posterior means, which is the mean of the aggregate posterior.
        mean_covariance: `[Z, Z]`, covariance of the posterior means.
        covariance: `[Z, Z]`, covariance of the aggregate posterior: that of the means plus the
            average posterior variance on the diagonal.
    """

    offset: np.ndarray
    mean_covariance: np.ndarray
    covariance: np.ndarray


def _codes(mean: np.ndarray, log_var: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean, log_var = np.asarray(mean, np.float64), np.asarray(log_var, np.float64)
    if mean.ndim != 2 or mean.shape != log_var.shape:
        raise ValueError(
            f"mean and log_var must share [N, Z], but got {mean.shape} and {log_var.shape}."
        )
    if len(mean) < 2:
        raise UserError("The aggregate posterior needs at least two images")
    if not (np.isfinite(mean).all() and np.isfinite(log_var).all()):
        raise UserError("Posterior means or log variances hold NaN or infinite values")
    return mean, log_var


@jax.jit
def sample(mean: jax.Array, log_var: jax.Array, key: jax.Array) -> jax.Array:
    """Draws one point of q(z|x) for each image: points of the aggregate posterior.

    Args:
        mean: `[N, Z]`.
        log_var: `[N, Z]`.
        key: Typed random key; row i depends on (key, i) alone.

    Returns:
        `[N, Z]`.
    """

    def draw(index: jax.Array, one_mean: jax.Array, one_log_var: jax.Array) -> jax.Array:
        noise = jax.random.normal(jax.random.fold_in(key, index), one_mean.shape, one_mean.dtype)
        return one_mean + jnp.exp(one_log_var / 2) * noise

    return jax.vmap(draw)(jnp.arange(len(mean)), mean, log_var)


def kl_per_dimension(mean: np.ndarray, log_var: np.ndarray) -> np.ndarray:
    """Returns the mean over images of KL(q(z_d|x) || N(0, 1)).

    Args:
        mean: `[N, Z]`.
        log_var: `[N, Z]`.

    Returns:
        `[Z]` in nats; its sum is the KL term in nats per image.
    """
    return np.mean(_kl_terms(*_codes(mean, log_var)), axis=0)


def _kl_terms(mean: np.ndarray, log_var: np.ndarray) -> np.ndarray:
    return 0.5 * (mean**2 + (np.expm1(log_var) - log_var))


def active_units(mean: np.ndarray) -> np.ndarray:
    """Returns which dimensions have a posterior mean that varies over images.

    Args:
        mean: `[N, Z]`.

    Returns:
        `[Z]` bool: `Var_x E[z_d|x] > ACTIVE_VARIANCE`, 0.01 by convention.

    References:
        Burda, Grosse, Salakhutdinov, "Importance weighted autoencoders", ICLR 2016.
    """
    return np.var(np.asarray(mean, np.float64), axis=0, ddof=1) > ACTIVE_VARIANCE


def moments(mean: np.ndarray, log_var: np.ndarray) -> Moments:
    """Returns offset and covariances, `Cov(z) = Cov_x(E[z|x]) + E_x[diag Var(z|x)]`.

    Args:
        mean: `[N, Z]`.
        log_var: `[N, Z]`.

    Returns:
        `Moments`, with unbiased covariances of the means.
    """
    mean, log_var = _codes(mean, log_var)
    offset = mean.mean(axis=0)
    centred = mean - offset[None, :]
    mean_covariance = centred.T @ centred / (len(mean) - 1)
    noise = np.diag(np.exp(log_var).mean(axis=0))
    return Moments(offset, mean_covariance, mean_covariance + noise)


def spectrum(covariance: np.ndarray) -> np.ndarray:
    """Returns the eigenvalues of a covariance `[Z, Z]`, largest first, `[Z]`."""
    return np.linalg.eigvalsh(covariance)[::-1]


# The radius |z|, which under N(0, I) follows the chi law with Z degrees of freedom: `stats.chi(Z)`.


def log10_probability_within(radius: float, z_dim: int) -> float:
    """Returns log10 P(|z| < radius) for z ~ N(0, I), also where the probability underflows.

    `P(a, x) = x^a e^-x / Gamma(a + 1) 1F1(1, a + 1, x)` with `a = Z / 2`, `x = radius^2 / 2`.

    Args:
        radius: Distance from the origin, in (0, 30].
        z_dim: Z.

    Returns:
        The decimal logarithm: -188.3 for radius 1 in 200 dimensions.
    """
    a, x = z_dim / 2, radius**2 / 2
    log = a * math.log(x) - x - special.gammaln(a + 1) + math.log(special.hyp1f1(1, a + 1, x))
    return min(float(log), 0.0) / math.log(10)


def radius_summary(points: np.ndarray) -> dict[str, float]:
    """Returns `mean` and `std` of |z|, and its Kolmogorov-Smirnov distance to the chi law.

    Args:
        points: `[N, Z]`.

    Returns:
        `ks_distance` is about `0.87 / sqrt(N)` on average if the points do follow N(0, I).
    """
    radii = np.linalg.norm(np.asarray(points, np.float64), axis=1)
    law = stats.chi(points.shape[1])
    distance = cast(Any, stats.ks_1samp(radii, law.cdf, method="asymp")).statistic
    return {"mean": float(radii.mean()), "std": float(radii.std()), "ks_distance": float(distance)}


def mahalanobis_quantiles(points: np.ndarray, probabilities: np.ndarray) -> dict[str, np.ndarray]:
    """Returns Q-Q arrays that show whether points are Gaussian, whatever their mean and covariance.

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
    varying = values > 1e-10 * values[-1]  # The others hold rounding errors only.
    white = centred @ (vectors[:, varying] / np.sqrt(values[varying])[None, :])
    return {
        "probabilities": np.asarray(probabilities, np.float64),
        "chi_square": stats.chi2.ppf(probabilities, white.shape[1]),
        "observed": np.quantile(np.sum(white**2, axis=1), probabilities),
    }


# Distances of the aggregate posterior from the prior.


def _log_normal(z: jax.Array, mean: jax.Array, log_var: jax.Array) -> jax.Array:
    """Returns the log density of N(mean, exp(log_var)), element by element."""
    square = jnp.square(z - mean) * jnp.exp(-log_var)
    return -0.5 * (square + log_var + math.log(2 * math.pi))


def _log_aggregate(
    z: jax.Array, mean: jax.Array, log_var: jax.Array, own: float, other: float
) -> tuple[jax.Array, jax.Array]:
    """Returns log q(z) and the sum over d of log q(z_d), `[M]` each, for z_i of posterior i."""

    def point(i: jax.Array) -> tuple[jax.Array, jax.Array]:
        log_density = _log_normal(jnp.broadcast_to(z[i], mean.shape), mean, log_var)  # [M, Z]
        weights = jnp.where(jnp.arange(len(mean)) == i, own, other)
        joint = jax.scipy.special.logsumexp(weights + jnp.sum(log_density, axis=1))
        marginals = jax.scipy.special.logsumexp(weights[:, None] + log_density, axis=0)
        return joint, jnp.sum(marginals)

    return jax.lax.map(point, jnp.arange(len(z)))


@partial(jax.jit, static_argnames="rows")
def _kl_parts(
    mean: jax.Array, log_var: jax.Array, key: jax.Array, own: float, other: float, rows: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the three terms of `kl_decomposition`, each `[rows]`, for a random minibatch."""
    choice_key, noise_key = jax.random.split(key)
    chosen = jax.random.choice(choice_key, len(mean), (rows,), replace=False)
    mean, log_var = mean[chosen], log_var[chosen]
    z = mean + jnp.exp(log_var / 2) * jax.random.normal(noise_key, mean.shape, mean.dtype)
    log_joint, log_marginals = _log_aggregate(z, mean, log_var, own, other)
    log_posterior = jnp.sum(_log_normal(z, mean, log_var), axis=1)
    log_prior = jnp.sum(_log_normal(z, jnp.zeros_like(z), jnp.zeros_like(z)), axis=1)
    return log_posterior - log_joint, log_joint - log_marginals, log_marginals - log_prior


def kl_decomposition(
    mean: np.ndarray, log_var: np.ndarray, key: jax.Array, *, batch: int = DECOMPOSITION_IMAGES
) -> dict[str, float]:
    """Splits the mean KL into mutual information, total correlation and dimension-wise KL.

    `KL = I(x; z) + KL(q(z) || prod_d q(z_d)) + sum_d KL(q(z_d) || N(0, 1))`, with q(z) estimated
    from a minibatch of M of the N posteriors by stratified importance weights (Chen et al. 2018):
    a point's own posterior has weight 1 / N and the rest is shared among the others, which is exact
    for M = N.

    The estimated mutual information of N images is at most log N. Where the mean KL is well above
    that, as for faces, q(z) is a set of N separate bumps, the information sits at its bound, and
    the total correlation measures the bumps too: then neither says anything about the model.

    Args:
        mean: `[N, Z]` posterior means.
        log_var: `[N, Z]` logarithms of the posterior variances.
        key: Typed random key for the minibatch and its draws.
        batch: M; all N if there are fewer.

    Returns:
        `mutual_information`, `total_correlation`, `dimension_kl` in nats per image, each with its
        `_standard_error`, and `mutual_information_bound`, log N.

    Raises:
        UserError: Fewer than two images.

    References:
        Chen et al., "Isolating sources of disentanglement in VAEs", NeurIPS 2018.
    """
    count, rows = len(mean), min(len(mean), batch)
    if rows < 2:
        raise UserError("The KL decomposition needs at least two images in a batch")
    own, other = -math.log(count), math.log((count - 1) / (count * (rows - 1)))
    terms = _kl_parts(jnp.asarray(mean), jnp.asarray(log_var), key, own, other, rows)
    result = {"mutual_information_bound": math.log(count)}
    names = ("mutual_information", "total_correlation", "dimension_kl")
    for name, term in zip(names, (np.asarray(term, np.float64) for term in terms), strict=True):
        result[name] = float(term.mean())
        result[f"{name}_standard_error"] = standard_error(term)
    return result


def _kernel_sum(x: np.ndarray, y: np.ndarray, same: bool) -> float:
    """Returns the sum of IMQ kernels over scales and pairs of points; `same` leaves out (x, x)."""
    base, total = 2.0 * x.shape[1], 0.0
    for rows, squares in distance_chunks(x, y):
        if same:  # An infinite distance is a kernel of 0.
            squares[np.arange(len(squares)), np.arange(rows.start, rows.stop)] = np.inf
        for scale in IMQ_SCALES:
            total += float(np.sum(scale * base / (scale * base + squares)))
    return total


def mmd_imq(x: np.ndarray, y: np.ndarray) -> float:
    """Returns the unbiased squared maximum mean discrepancy with inverse multiquadratic kernels.

    `k(x, y) = sum_s C_s / (C_s + |x - y|^2)` with `C_s = 2 Z s` for the prior N(0, I) and scales
    s = 0.1, 0.2, 0.5, 1, 2, 5, 10, in float64 on the host.

    Args:
        x: `[N, Z]` draws of the aggregate posterior.
        y: `[M, Z]` draws of the prior.

    Returns:
        The U-statistic: 0 on average for equal distributions, where it may be negative; at most 14.

    Raises:
        ValueError: Unequal Z.
        UserError: Fewer than two points in a set.

    References:
        Gretton et al., "A kernel two-sample test", JMLR 2012; Tolstikhin et al., "Wasserstein
        auto-encoders", ICLR 2018.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"Points must be [N, Z] and [M, Z], but got {x.shape} and {y.shape}.")
    n, m = len(x), len(y)
    if min(n, m) < 2:
        raise UserError("MMD needs at least two points in each set")
    within = _kernel_sum(x, x, True) / (n * (n - 1)) + _kernel_sum(y, y, True) / (m * (m - 1))
    return within - 2 * _kernel_sum(x, y, False) / (n * m)


def summary(mean: np.ndarray, log_var: np.ndarray, key: jax.Array) -> dict[str, object]:
    """Returns all of these statistics as plain numbers and lists.

    Args:
        mean: `[N, Z]`.
        log_var: `[N, Z]`.
        key: Typed random key for one draw of each posterior and for the subsets that the KL
            decomposition and MMD are estimated from.

    Returns:
        `images`, `z_dim`, `kl` and its `kl_standard_error`, `kl_per_dimension`, `active_units`,
        `active_mask`, `offset`, `offset_norm`, `variance_of_means` and `mean_variance` (`[Z]`
        each), `spectrum` of the aggregate posterior, `spectrum_of_means`, `radius_of_means`,
        `radius` and `radius_prior` (see `radius_summary`), `skewness`, `excess_kurtosis`,
        `mahalanobis` (Q-Q arrays), `kl_decomposition` (nats per image), `mmd` to the prior,
        `mmd_floor`, that of the prior to itself, and `mmd_points`, the points in each set.

    Raises:
        ValueError: Unequal shapes.
        UserError: Fewer than two images, NaN or infinite values.
    """
    exact_mean, exact_log_var = _codes(mean, log_var)
    count, z_dim = exact_mean.shape
    sample_key, prior_key, subset_key, decomposition_key = jax.random.split(key, 4)
    on_device = jnp.asarray(mean), jnp.asarray(log_var)
    z = np.asarray(sample(*on_device, sample_key), np.float64)
    terms = _kl_terms(exact_mean, exact_log_var)
    each = terms.sum(axis=1)
    active = active_units(exact_mean)
    offset, mean_covariance, covariance = moments(exact_mean, exact_log_var)
    law = stats.chi(z_dim)
    points = min(count, MMD_POINTS)
    subset = np.asarray(jax.random.choice(subset_key, count, (points,), replace=False))
    prior, other = np.split(np.asarray(normal(prior_key, 2 * points, z_dim)), 2)
    qq = mahalanobis_quantiles(z, np.array(QQ_PROBABILITIES))
    return {
        "images": count,
        "z_dim": z_dim,
        "kl": float(each.mean()),
        "kl_standard_error": standard_error(each),
        "kl_per_dimension": terms.mean(axis=0).tolist(),
        "active_units": int(active.sum()),
        "active_mask": active.tolist(),
        "offset": offset.tolist(),
        "offset_norm": float(np.linalg.norm(offset)),
        "variance_of_means": np.diag(mean_covariance).tolist(),
        "mean_variance": np.exp(exact_log_var).mean(axis=0).tolist(),
        "spectrum": spectrum(covariance).tolist(),
        "spectrum_of_means": spectrum(mean_covariance).tolist(),
        "radius_of_means": radius_summary(exact_mean),
        "radius": radius_summary(z),
        "radius_prior": {"mean": float(law.mean()), "std": float(law.std())},
        "skewness": stats.skew(z).tolist(),
        "excess_kurtosis": stats.kurtosis(z).tolist(),
        "mahalanobis": {name: values.tolist() for name, values in qq.items()},
        "kl_decomposition": kl_decomposition(mean, log_var, decomposition_key),
        "mmd": mmd_imq(z[subset], prior),
        "mmd_floor": mmd_imq(other, prior),
        "mmd_points": points,
    }
