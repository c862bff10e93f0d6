"""Completes the means of an epoch to the row that is logged."""

from __future__ import annotations

import math

from ml_collections import ConfigDict

from vae_jax.losses import MIN_OPTIMAL_VARIANCE, Objective, term_scales


def schedule_length(config: ConfigDict) -> dict[str, int]:
    """Returns what a training row says of its schedule, which a resumed run may have stretched."""
    if config.optimizer.schedule == "constant":
        return {}
    return {"schedule_epochs": config.optimizer.schedule_epochs}


def with_one_sigma(
    means: dict[str, float], objective: Objective, image_shape: tuple[int, int, int]
) -> dict[str, float]:
    """Returns the objective of a split from the means over its images, however they were batched.

    Only `optimal_sigma` needs this: its variance is the mean error of the whole split.

    Args:
        means: The means of `objective_terms`, with R the squared error where sigma is optimal.
        objective: Its likelihood and reduction are used.
        image_shape: `(H, W, C)`.

    Returns:
        The means, for `optimal_sigma` with `sigma` and with R under it.
    """
    if objective.likelihood != "optimal_sigma":
        return means
    error, dimensions = means["recon_nats"], math.prod(image_shape)
    variance = max(error / dimensions, MIN_OPTIMAL_VARIANCE)
    nats = error / (2 * variance) + 0.5 * dimensions * math.log(2 * math.pi * variance)
    recon = term_scales(objective.reduction, 0.0, image_shape, 1)[0] * nats
    terms = {"loss": recon + means["kl_weighted"], "recon": recon, "recon_nats": nats}
    return means | terms | {"sigma": math.sqrt(variance)}


def complete_row(
    means: dict[str, float],
    objective: Objective,
    kl_weight: float,
    image_shape: tuple[int, int, int],
    z_dim: int,
    sampled: bool = True,
) -> dict[str, float]:
    """Returns the means of an epoch with what follows from them.

    Args:
        means: The means of an epoch, with `loss == recon + kl_weighted`, and with `kl_weight` and
            `beta` where they were not those of the config.
        objective: Its likelihood and reduction are used.
        kl_weight: w of the means, unless they have their own `kl_weight`.
        image_shape: `(H, W, C)`.
        z_dim: Z.
        sampled: Whether z was drawn from the posterior; there is no bound otherwise.

    Returns:
        The means with `kl_weight`; `beta`, the weight of K against R; `kl_share`, and for the
        Bernoulli likelihood `kl_share_above_floor`, the share of what lies above the data's
        entropy. Nats per image: `elbo` (Bernoulli), or `log_density_bound` with
        `log_density_bound_bits_per_dim` (Gaussian: a density on [0, 1] pixels, so it may exceed 0).
    """
    row = {"kl_weight": kl_weight} | means
    if "loss" not in means:
        return row
    weight = row["kl_weight"]  # With a schedule, the mean over the epoch.
    recon_scale, kl_scale = term_scales(objective.reduction, weight, image_shape, z_dim)
    row.setdefault("beta", float(kl_scale / recon_scale))
    row["kl_share"] = _ratio(means["kl_weighted"], means["loss"])
    if "entropy_floor" in means:
        above = means["loss"] - recon_scale * means["entropy_floor"]
        row["kl_share_above_floor"] = _ratio(means["kl_weighted"], above)
    if not sampled:
        return row
    bound = -(means["recon_nats"] + means["kl"])
    if objective.likelihood == "bernoulli":
        row["elbo"] = bound
    elif objective.has_elbo:
        row["log_density_bound"] = bound
        row["log_density_bound_bits_per_dim"] = bound / (math.prod(image_shape) * math.log(2))
    return row


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else math.nan
