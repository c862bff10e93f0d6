"""Statistics of the aggregate posterior q(z) = mean over images of q(z|x).

Inputs are the posterior means and log variances of a whole data split. Moments are taken in
float64 on the host.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.metrics import divergence, radius
from vae_jax.metrics.densities import normal
from vae_jax.types import UserError

ACTIVE_VARIANCE = 0.01
MMD_POINTS = 2048
QQ_PROBABILITIES = tuple(round(0.01 * percent, 2) for percent in range(1, 100))


class ActiveUnits(NamedTuple):
    """Latent dimensions that carry information about the image.

    Attributes:
        mask: `[Z]` bool.
        number: of active dimensions.
    """

    mask: np.ndarray
    number: int


class Moments(NamedTuple):
    """First two moments of the codes.

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
    """One draw of q(z|x) for each image: points of the aggregate posterior.

    Args:
        mean: `[N, Z]`.
        log_var: `[N, Z]`.
        key: typed random key; row i depends on (key, i) alone.

    Returns:
        `[N, Z]`.
    """

    def draw(index: jax.Array, one_mean: jax.Array, one_log_var: jax.Array) -> jax.Array:
        noise = jax.random.normal(jax.random.fold_in(key, index), one_mean.shape, one_mean.dtype)
        return one_mean + jnp.exp(one_log_var / 2) * noise

    return jax.vmap(draw)(jnp.arange(len(mean)), mean, log_var)


def kl_per_dimension(mean: np.ndarray, log_var: np.ndarray) -> np.ndarray:
    """Mean over images of KL(q(z_d|x) || N(0, 1)).

    Args:
        mean: `[N, Z]`.
        log_var: `[N, Z]`.

    Returns:
        `[Z]` in nats; its sum is the KL term in nats per image.
    """
    mean, log_var = _codes(mean, log_var)
    return np.mean(0.5 * (mean**2 + (np.expm1(log_var) - log_var)), axis=0)


def active_units(mean: np.ndarray, threshold: float = ACTIVE_VARIANCE) -> ActiveUnits:
    """Dimensions whose posterior mean varies over images: `Var_x E[z_d|x] > threshold`.

    Args:
        mean: `[N, Z]`.
        threshold: 0.01 by convention.

    Returns:
        Mask and count.

    References:
        Burda, Grosse, Salakhutdinov, "Importance weighted autoencoders", ICLR 2016.
    """
    mask = np.var(np.asarray(mean, np.float64), axis=0, ddof=1) > threshold
    return ActiveUnits(mask, int(mask.sum()))


def moments(mean: np.ndarray, log_var: np.ndarray) -> Moments:
    """Offset and covariances, `Cov(z) = Cov_x(E[z|x]) + E_x[diag Var(z|x)]`.

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
    """Eigenvalues of a covariance `[Z, Z]`, largest first, `[Z]`."""
    return np.linalg.eigvalsh(covariance)[::-1]


def skewness_kurtosis(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Skewness and excess kurtosis of each component; both 0 for a Gaussian.

    Args:
        points: `[N, Z]`.

    Returns:
        `[Z]` and `[Z]`, from central moments without small-sample correction; 0 for components
        that do not vary.
    """
    points = np.asarray(points, np.float64)
    centred = points - points.mean(axis=0, keepdims=True)
    variance = np.mean(centred**2, axis=0)
    scale = np.sqrt(np.where(variance > 0, variance, 1))
    unit = centred / scale[None, :]
    kurtosis = np.where(variance > 0, np.mean(unit**4, axis=0) - 3, 0)
    return np.mean(unit**3, axis=0), kurtosis


def _radius_summary(points: np.ndarray) -> dict[str, float]:
    radii = np.linalg.norm(np.asarray(points, np.float64), axis=1)
    return {
        "mean": float(radii.mean()),
        "std": float(radii.std()),
        "ks_distance": radius.radius_distance(radii, points.shape[1]),
    }


def summary(mean: np.ndarray, log_var: np.ndarray, key: jax.Array) -> dict[str, object]:
    """Everything above as plain numbers and lists, ready for JSON.

    Args:
        mean: `[N, Z]`.
        log_var: `[N, Z]`.
        key: typed random key for one draw of each posterior and the subsets that estimate the
            KL decomposition and MMD.

    Returns:
        `images`, `z_dim`, `kl`, `kl_per_dimension`, `active_units`, `active_mask`, `offset`,
        `offset_norm`, `variance_of_means` and `mean_variance` (`[Z]` each), `spectrum` of the
        aggregate posterior, `spectrum_of_means`, `radius_of_means`, `radius` and `radius_prior`
        (mean, std, Kolmogorov-Smirnov distance to the chi law), `skewness`, `excess_kurtosis`,
        `mahalanobis` (Q-Q arrays), `kl_decomposition` (nats per image), `mmd` to the prior and
        `mmd_points`, the number of points it used.

    Raises:
        ValueError: unequal shapes.
        UserError: fewer than two images, NaN or infinite values.
    """
    exact_mean, exact_log_var = _codes(mean, log_var)
    count, z_dim = exact_mean.shape
    sample_key, prior_key, subset_key, decomposition_key = jax.random.split(key, 4)
    on_device = jnp.asarray(mean), jnp.asarray(log_var)
    z = np.asarray(sample(*on_device, sample_key))
    kl = kl_per_dimension(exact_mean, exact_log_var)
    active = active_units(exact_mean)
    offset, mean_covariance, covariance = moments(exact_mean, exact_log_var)
    skewness, kurtosis = skewness_kurtosis(z)
    prior_mean, prior_std = radius.chi_moments(z_dim)
    points = min(count, MMD_POINTS)
    subset = np.asarray(jax.random.choice(subset_key, count, (points,), replace=False))
    prior = normal(prior_key, points, z_dim)
    qq = radius.mahalanobis_quantiles(z, np.array(QQ_PROBABILITIES))
    return {
        "images": count,
        "z_dim": z_dim,
        "kl": float(kl.sum()),
        "kl_per_dimension": kl.tolist(),
        "active_units": active.number,
        "active_mask": active.mask.tolist(),
        "offset": offset.tolist(),
        "offset_norm": float(np.linalg.norm(offset)),
        "variance_of_means": np.diag(mean_covariance).tolist(),
        "mean_variance": np.exp(exact_log_var).mean(axis=0).tolist(),
        "spectrum": spectrum(covariance).tolist(),
        "spectrum_of_means": spectrum(mean_covariance).tolist(),
        "radius_of_means": _radius_summary(exact_mean),
        "radius": _radius_summary(z),
        "radius_prior": {"mean": prior_mean, "std": prior_std, "ks_distance": 0.0},
        "skewness": skewness.tolist(),
        "excess_kurtosis": kurtosis.tolist(),
        "mahalanobis": {name: values.tolist() for name, values in qq.items()},
        "kl_decomposition": divergence.kl_decomposition(*on_device, decomposition_key),
        "mmd": divergence.mmd_imq(z[subset], prior),
        "mmd_points": points,
    }
