"""How far the aggregate posterior is from the prior: KL decomposition and MMD."""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.types import UserError

IMQ_SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
CHUNK = 1024


def _log_normal(z: jax.Array, mean: jax.Array, log_var: jax.Array) -> jax.Array:
    """Log density of N(mean, exp(log_var)), element by element."""
    square = jnp.square(z - mean) * jnp.exp(-log_var)
    return -0.5 * (square + log_var + math.log(2 * math.pi))


def _log_aggregate(
    z: jax.Array, mean: jax.Array, log_var: jax.Array, own: jax.Array, other: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """log q(z) `[M]` and sum over d of log q(z_d) `[M]`; row i is drawn from posterior i."""

    def point(i: jax.Array) -> tuple[jax.Array, jax.Array]:
        log_density = _log_normal(jnp.broadcast_to(z[i], mean.shape), mean, log_var)  # [M, Z]
        weights = jnp.where(jnp.arange(len(mean)) == i, own, other)
        joint = jax.scipy.special.logsumexp(weights + jnp.sum(log_density, axis=1))
        marginals = jax.scipy.special.logsumexp(weights[:, None] + log_density, axis=0)
        return joint, jnp.sum(marginals)

    return jax.lax.map(point, jnp.arange(len(z)))


@partial(jax.jit, static_argnames="rows")
def _terms(
    mean: jax.Array,
    log_var: jax.Array,
    key: jax.Array,
    own: jax.Array,
    other: jax.Array,
    rows: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The three terms of `kl_decomposition`, each `[rows]`, for a random minibatch."""
    choice_key, noise_key = jax.random.split(key)
    chosen = jax.random.choice(choice_key, len(mean), (rows,), replace=False)
    mean, log_var = mean[chosen], log_var[chosen]
    z = mean + jnp.exp(log_var / 2) * jax.random.normal(noise_key, mean.shape, mean.dtype)
    log_joint, log_marginals = _log_aggregate(z, mean, log_var, own, other)
    log_posterior = jnp.sum(_log_normal(z, mean, log_var), axis=1)
    log_prior = jnp.sum(_log_normal(z, jnp.zeros_like(z), jnp.zeros_like(z)), axis=1)
    return log_posterior - log_joint, log_joint - log_marginals, log_marginals - log_prior


def kl_decomposition(
    mean: jax.Array,
    log_var: jax.Array,
    key: jax.Array,
    *,
    batch: int = 1024,
    weighting: str = "stratified",
) -> dict[str, float]:
    """Mutual information, total correlation and dimension-wise KL, which add up to the mean KL.

    `KL = I(x; z) + KL(q(z) || prod_d q(z_d)) + sum_d KL(q(z_d) || N(0, 1))`, with q(z) estimated
    from a minibatch of M of the N posteriors by importance weights (Chen et al. 2018):
    `stratified` gives a point's own posterior weight 1 / N and shares the rest among the others,
    exact for M = N; `weighted` gives every one 1 / (N M), the paper's minibatch-weighted
    sampling, whose total correlation is too large by (Z - 1) log N: fit for training and for
    comparing runs of one Z, N and M, not as an absolute number.

    The mutual information of N images is at most log N. Where the mean KL is well above that, as
    for faces, q(z) is a set of N separate bumps, and the total correlation measures that too.

    Args:
        mean: `[N, Z]` posterior means.
        log_var: `[N, Z]` logarithms of the posterior variances.
        key: typed random key for the minibatch and its draws.
        batch: M; all N if there are fewer.
        weighting: `stratified` or `weighted`.

    Returns:
        `mutual_information`, `total_correlation`, `dimension_kl` in nats per image.

    Raises:
        UserError: an unknown weighting, or fewer than two images.

    References:
        Chen et al., "Isolating sources of disentanglement in VAEs", NeurIPS 2018.
    """
    count, rows = len(mean), min(len(mean), batch)
    if rows < 2:
        raise UserError("The KL decomposition needs at least two images in a batch")
    if weighting == "stratified":
        own, other = -math.log(count), math.log((count - 1) / (count * (rows - 1)))
    elif weighting == "weighted":
        own = other = -math.log(count * rows)
    else:
        raise UserError(f"weighting must be 'stratified' or 'weighted', but is {weighting!r}")
    terms = _terms(jnp.asarray(mean), jnp.asarray(log_var), key, own, other, rows)
    names = ("mutual_information", "total_correlation", "dimension_kl")
    averages = (float(np.asarray(term, np.float64).mean()) for term in terms)
    return dict(zip(names, averages, strict=True))


def _kernel_sum(x: np.ndarray, y: np.ndarray, same: bool) -> float:
    """Sum of IMQ kernels over all pairs and scales, without each point's pair with itself."""
    base, total = 2.0 * x.shape[1], 0.0
    y_squares = np.sum(y**2, axis=1)[None, :]
    for start in range(0, len(x), CHUNK):
        part = x[start : start + CHUNK]
        squares = np.sum(part**2, axis=1)[:, None] + y_squares - 2 * part @ y.T
        squares = np.maximum(squares, 0)
        if same:  # An infinite distance is a kernel of 0.
            squares[np.arange(len(part)), np.arange(start, start + len(part))] = np.inf
        for scale in IMQ_SCALES:
            total += float(np.sum(scale * base / (scale * base + squares)))
    return total


def mmd_imq(x: np.ndarray, y: np.ndarray) -> float:
    """Unbiased squared maximum mean discrepancy with inverse multiquadratic kernels.

    `k(x, y) = sum_s C_s / (C_s + |x - y|^2)` with `C_s = 2 Z s` for the prior N(0, I) and scales
    s = 0.1, 0.2, 0.5, 1, 2, 5, 10, in float64 on the host.

    Args:
        x: `[N, Z]` draws of the aggregate posterior.
        y: `[M, Z]` draws of the prior.

    Returns:
        The U-statistic: 0 on average for equal distributions, where it may be negative; at most 14.

    Raises:
        ValueError: unequal Z.
        UserError: fewer than two points in a set.

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
