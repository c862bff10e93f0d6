"""Everything that is measured of a trained model, as one flat dict: likelihood and quality."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vae_jax.evaluate import likelihood
from vae_jax.evaluate.feature_spaces import FEATURE_SPACES, inception_activations
from vae_jax.losses import bernoulli_entropy
from vae_jax.metrics.feature_distances import density_coverage, frechet_distance, precision_recall
from vae_jax.metrics.image_quality import WINDOW, mse, psnr, ssim
from vae_jax.metrics.posterior import active_units, kl_per_dimension
from vae_jax.metrics.sliced_wasserstein import sliced_wasserstein, sliced_wasserstein_floor
from vae_jax.progress import progress
from vae_jax.run import Seen, Subject, decode, in_batches, prior_latents, reconstructions
from vae_jax.streams import make_key
from vae_jax.types import UserError

# Below this many images in a set, neighbours and covariances say little.
FEWEST = 8


def likelihood_metrics(subject: Subject, seen: Seen, samples: int, seed: int) -> dict[str, Any]:
    """ELBO and importance-weighted bound, where the objective defines a likelihood.

    Args:
        subject: model and images.
        seen: of `encode_subject`; a decoder with optimal sigma gets that of its mean error here.
        samples: k.
        seed: of the samples.

    Returns:
        See `likelihood.summary`; also `kl`, `active_units`, `kl_per_dimension`, and the data's own
        `entropy_floor` for Bernoulli. Without a likelihood only what concerns the posterior.
    """
    result = {
        "kl": float(kl_per_dimension(seen.mean, seen.log_var).sum()),
        "active_units": active_units(seen.mean).number,
        "z_dim": subject.model.z_dim,
    }
    objective = subject.objective
    if objective.likelihood == "optimal_sigma":
        back = reconstructions(subject, seen, np.arange(len(seen.mean)), make_key(seed))
        sigma = math.sqrt(float(np.mean((back - seen.targets) ** 2, dtype=np.float64)))
        objective = type(objective)("gaussian", objective.reduction, objective.free_bits, sigma)
        subject = subject._replace(objective=objective)
    if not objective.has_elbo:
        return result
    if objective.likelihood == "gaussian":
        result["sigma"] = objective.sigma
    bounds = likelihood.image_bounds(subject, samples, seed)
    result |= likelihood.summary(bounds, samples, objective, math.prod(subject.model.image_shape))
    if objective.likelihood == "bernoulli":
        (floor,) = in_batches(jax.jit(lambda x: (bernoulli_entropy(x),)), seen.targets)
        result["entropy_floor"] = float(floor.mean(dtype=np.float64))
    return result


def reconstruction_metrics(targets: np.ndarray, images: np.ndarray) -> dict[str, float]:
    """Means over images of MSE, PSNR in dB and SSIM of reconstructions.

    Args:
        targets: `[N, H, W, C]` float in [0, 1].
        images: `[N, H, W, C]` float in [0, 1].

    Returns:
        `mse`, `psnr`, and `ssim` for images that its window fits into.
    """
    names = ["mse", "psnr"] + (["ssim"] if min(targets.shape[1:3]) >= WINDOW else [])
    functions = {"mse": mse, "psnr": psnr, "ssim": ssim}
    measure = jax.jit(lambda x, y: tuple(functions[name](x, y) for name in names))
    values = in_batches(measure, targets, images)
    return {name: float(v.mean(dtype=np.float64)) for name, v in zip(names, values, strict=True)}


def sample_metrics(
    subject: Subject, seed: int, count: int, space: str = "encoder_mean"
) -> tuple[dict[str, Any], np.ndarray]:
    """Prior samples against real images, M against M.

    Args:
        subject: model and real images; M is at most half of them, because the floor compares two
            halves of the real images.
        seed: of samples, subsets and directions.
        count: M.
        space: one of `FEATURE_SPACES`, where precision, recall, density, coverage and the Frechet
            distance are taken.

    Returns:
        Figures, among them `sliced_wasserstein` and its `_floor` (mean over pyramid levels) and
        those of each level; and the samples `[M, H, W, C]`.

    Raises:
        UserError: an unknown space, or fewer than 16 images.
    """
    if space not in FEATURE_SPACES:
        raise UserError(f"--features is {space!r}; valid are {', '.join(FEATURE_SPACES)}")
    count = min(count, len(subject.images) // 2)
    if count < FEWEST:
        raise UserError(
            f"Comparing samples with images needs {FEWEST} samples and {2 * FEWEST} images or "
            f"more, but there are {len(subject.images)} images"
        )
    pick_key, distance_key, floor_key = jax.random.split(make_key(seed), 3)
    order = np.asarray(jax.random.permutation(pick_key, len(subject.images)))
    rows = np.sort(order[: 2 * count])
    real, half = subject.images[rows], np.sort(order[:count])
    labels = None if subject.labels is None else subject.labels[half]
    z = prior_latents(seed, count, subject.model.z_dim)
    fake = decode(subject.model, subject.variables, z, labels)
    distance = sliced_wasserstein(subject.images[half], fake, distance_key)
    floor = sliced_wasserstein_floor(real, floor_key)
    result = {
        "generated": count,
        "sliced_wasserstein": distance["mean"],
        "sliced_wasserstein_floor": floor["mean"],
        "sliced_wasserstein_levels": distance["levels"],
        "sliced_wasserstein_floor_levels": floor["levels"],
        "feature_space": space,
    }
    with progress(2, f"Features ({space})", "sets") as advance:
        features = []
        for images in (subject.images[half], fake):
            features.append(FEATURE_SPACES[space](subject, images, labels))
            advance()
    result |= precision_recall(*features) | density_coverage(*features)
    return result | {"frechet_distance": frechet_distance(*features)}, fake


def fid_of_file(path: str | Path) -> dict[str, Any]:
    """The FID of activations that a user computed: a .npz with `real` and `fake` `[N, 2048]`."""
    real, fake = inception_activations(path)
    return {"fid": frechet_distance(real, fake), "fid_images": [len(real), len(fake)]}


def finite_or_none(value: Any) -> Any:
    """The value with NaN and infinity, which JSON lacks, as None."""
    if isinstance(value, dict):
        return {name: finite_or_none(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite_or_none(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
