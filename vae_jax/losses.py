"""The terms of the objective, per image and in nats, and how they add up to the loss.

With pixels x in [0, 1], R the reconstruction term summed over H, W and C, and
K = KL(q(z|x) || N(0, I)) in nats, every reduction is `loss = r R + k K`; see `TermScales`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

LIKELIHOODS = ("bernoulli", "squared_error", "gaussian", "optimal_sigma")
REDUCTIONS = ("sum", "channel_mean", "mean")
# Below this variance a batch is reconstructed to better than a tenth of a grey level.
MIN_OPTIMAL_VARIANCE = (0.1 / 255.0) ** 2


@dataclass(frozen=True)
class Objective:
    """The static part of the objective; the KL weight is an argument, so that it can be traced.

    Attributes:
        likelihood: One of `LIKELIHOODS`.
        reduction: One of `REDUCTIONS`, which says how the KL weight is meant.
        free_bits: The floor in nats for each latent dimension's KL; 0 for none.
        sigma: The standard deviation of the fixed Gaussian likelihood, in units of [0, 1] pixels.
    """

    likelihood: str = "bernoulli"
    reduction: str = "channel_mean"
    free_bits: float = 0.0
    sigma: float = 0.1

    @property
    def has_elbo(self) -> bool:
        """Whether -(R + K) bounds a log-likelihood (Bernoulli) or a log-density (Gaussian)."""
        return self.likelihood != "squared_error"


def check_same_shape(logits: jax.Array, targets: jax.Array) -> None:
    """Raises ValueError unless both are `[B, H, W, C]` of one shape: nothing may broadcast."""
    if logits.shape != targets.shape or logits.ndim != 4:
        raise ValueError(
            f"logits {logits.shape} and targets {targets.shape} must be one BHWC shape"
        )


def bernoulli_nll(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns the cross-entropy of grey levels under a Bernoulli decoder, summed over the image.

    Args:
        logits: `[B, H, W, C]`.
        targets: `[B, H, W, C]` in [0, 1].

    Returns:
        `[B]`, nats per image.
    """
    check_same_shape(logits, targets)
    # One logarithm per pixel, where -t log sigmoid(l) - (1 - t) log sigmoid(-l) takes two.
    return jnp.sum(jax.nn.softplus(logits) - logits * targets, axis=(1, 2, 3))


def squared_error(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns the squared distance between sigmoid(logits) and the targets, summed over the image.

    Args:
        logits: `[B, H, W, C]`.
        targets: `[B, H, W, C]` in [0, 1].

    Returns:
        `[B]`, squared [0, 1] pixel units.
    """
    check_same_shape(logits, targets)
    return jnp.sum(jnp.square(jax.nn.sigmoid(logits) - targets), axis=(1, 2, 3))


def gaussian_nll(logits: jax.Array, targets: jax.Array, variance: jax.Array | float) -> jax.Array:
    """Returns -log N(x; sigmoid(logits), variance I) with all constants, a density.

    Args:
        logits: `[B, H, W, C]`.
        targets: `[B, H, W, C]` in [0, 1].
        variance: Scalar, squared pixel units.

    Returns:
        `[B]`, nats per image; negative values are usual for a density.
    """
    dimensions = math.prod(logits.shape[1:])
    constant = 0.5 * dimensions * jnp.log(2 * jnp.pi * variance)
    return squared_error(logits, targets) / (2 * variance) + constant


def optimal_variance(logits: jax.Array, targets: jax.Array, weights: jax.Array) -> jax.Array:
    """Returns the maximum-likelihood variance of a Gaussian decoder: the batch's mean error.

    Rybkin, Daniilidis & Levine 2021, "Simple and Effective VAE Training with Calibrated Decoders".

    Args:
        logits: `[B, H, W, C]`.
        targets: `[B, H, W, C]` in [0, 1].
        weights: `[B]`, 1 for images and 0 for padding.

    Returns:
        Scalar, squared pixel units.
    """
    dimensions = math.prod(logits.shape[1:])
    mean_error = weighted_mean(squared_error(logits, targets), weights) / dimensions
    return jnp.maximum(mean_error, MIN_OPTIMAL_VARIANCE)


def bernoulli_entropy(targets: jax.Array) -> jax.Array:
    """Returns the cross-entropy of the targets with themselves: the minimum of `bernoulli_nll`.

    Args:
        targets: `[B, H, W, C]` in [0, 1].

    Returns:
        `[B]`, nats per image; 0 for black-and-white images.
    """
    # A compiler may fuse 1 - x / 255 into one rounding, which leaves a white pixel just below 0.
    complement = jnp.maximum(1 - targets, 0)
    entropy = jax.scipy.special.entr(targets) + jax.scipy.special.entr(complement)
    return jnp.sum(entropy, axis=(1, 2, 3))


def gaussian_kl_per_dimension(mean: jax.Array, log_var: jax.Array) -> jax.Array:
    """Returns KL(N(mean, exp(log_var)) || N(0, 1)) of every latent dimension.

    Kingma & Welling 2014, appendix B. `expm1` keeps precision where the posterior is the prior.

    Args:
        mean: `[B, Z]`.
        log_var: `[B, Z]`.

    Returns:
        `[B, Z]`, nats.
    """
    if mean.shape != log_var.shape:
        raise ValueError(f"mean {mean.shape} and log_var {log_var.shape} must have one shape")
    return 0.5 * (jnp.square(mean) + jnp.expm1(log_var) - log_var)


def free_bits_kl(
    kl_per_dimension: jax.Array,
    floor: float,
    weights: jax.Array,
    z_mask: jax.Array | None,
) -> jax.Array:
    """Returns the KL whose batch mean counts at least `floor` nats in every dimension.

    Kingma et al. 2016, "Improving Variational Inference with Inverse Autoregressive Flow", eq. 15:
    sum_j max(floor, E_batch[KL_j]). A dimension below the floor counts the constant, without
    gradient.

    Args:
        kl_per_dimension: `[B, Z]`, nats.
        floor: Nats per dimension.
        weights: `[B]`, 1 for images and 0 for padding.
        z_mask: `[B, Z]` or `[1, Z]`, 0 for the dimensions that an image lacks: they count in no
            mean and have no floor. None if no image lacks any.

    Returns:
        `[B]`, nats per image; its weighted mean is the term above.
    """
    if z_mask is None:
        batch_mean = jnp.sum(kl_per_dimension * weights[:, None], axis=0) / jnp.sum(weights)
        above = (batch_mean > floor)[None, :]
        return jnp.sum(jnp.where(above, kl_per_dimension, floor), axis=-1)
    counted = weights[:, None] * z_mask
    batch_mean = jnp.sum(kl_per_dimension * counted, axis=0) / jnp.maximum(counted.sum(axis=0), 1)
    above = (batch_mean > floor)[None, :]
    return jnp.sum(jnp.where(above, kl_per_dimension, floor) * z_mask, axis=-1)


def weighted_mean(values: jax.Array, weights: jax.Array) -> jax.Array:
    """Returns the mean of `values` `[B]` over the images whose `weights` `[B]` are 1: a scalar."""
    return jnp.sum(values * weights) / jnp.sum(weights)


def term_scales(
    reduction: str,
    kl_weight: jax.Array | float,
    image_shape: tuple[int, ...],
    z_dim: jax.Array | int,
) -> tuple[float, jax.Array | float]:
    """Returns the factors r and k of `loss = r R + k K` for one reduction.

    `sum`: R + w K. `channel_mean`: R / C + w K. `mean`: R / (HWC) + (2 w / Z) K, which is the
    Keras form with means everywhere and without the KL's 1/2.

    Args:
        reduction: One of `REDUCTIONS`.
        kl_weight: w; may be traced.
        image_shape: `(H, W, C)`.
        z_dim: Z; may be traced.

    Returns:
        `(r, k)`; beta is k / r.

    Raises:
        ValueError: `reduction` is unknown.

    >>> term_scales("channel_mean", 0.3, (64, 64, 3), 64)  # beta is 0.3 / (1 / 3) = 0.9
    (0.3333333333333333, 0.3)
    """
    height, width, channels = image_shape
    if reduction == "sum":
        return 1.0, kl_weight
    if reduction == "channel_mean":
        return 1.0 / channels, kl_weight
    if reduction == "mean":
        return 1.0 / (height * width * channels), 2.0 * kl_weight / z_dim
    raise ValueError(f"reduction is {reduction!r}; valid are {', '.join(REDUCTIONS)}")


def reconstruction_nll(
    objective: Objective, logits: jax.Array, targets: jax.Array, weights: jax.Array
) -> jax.Array:
    """Returns the reconstruction term R of `objective` for `[B, H, W, C]` logits and targets.

    Args:
        objective: Its likelihood is used.
        logits: `[B, H, W, C]`.
        targets: `[B, H, W, C]` in [0, 1].
        weights: `[B]`, 1 for images and 0 for padding.

    Returns:
        `[B]`, nats per image (squared pixel units for `squared_error`).

    Raises:
        ValueError: The likelihood is unknown.
    """
    if objective.likelihood == "bernoulli":
        return bernoulli_nll(logits, targets)
    if objective.likelihood == "squared_error":
        return squared_error(logits, targets)
    if objective.likelihood == "gaussian":
        return gaussian_nll(logits, targets, objective.sigma**2)
    if objective.likelihood == "optimal_sigma":
        return gaussian_nll(logits, targets, optimal_variance(logits, targets, weights))
    raise ValueError(f"likelihood is {objective.likelihood!r}; valid are {', '.join(LIKELIHOODS)}")
