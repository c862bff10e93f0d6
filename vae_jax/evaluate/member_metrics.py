"""The figures and pictures of one model on its test split, for comparing the models of a sweep."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from vae_jax.data.splits import Splits, condition_labels, piece_of
from vae_jax.metrics import posterior
from vae_jax.metrics.image_quality import psnr
from vae_jax.metrics.radius import chi_moments
from vae_jax.metrics.sliced_wasserstein import sliced_wasserstein
from vae_jax.models.vae import VAE
from vae_jax.run import Run, decode, encode_subject, make_subject, prior_latents
from vae_jax.run_folder import read_rows
from vae_jax.streams import make_key
from vae_jax.types import ImageSet, UserError

# Sample quality: as many prior samples as test images, at most these; patches and directions are
# fewer than in the paper, the same for every model and for the floor.
QUALITY_IMAGES = 1024
QUALITY_SETTINGS = {"patches": 64, "directions": 128}
# All models are shown and judged at the same latent seed.
SAMPLE_SEED = 0
SHOWN_SAMPLES = 16
SHOWN_TEST_IMAGES = 8
# Images decoded to the host at a time; a multiple of the batch that encoding is compiled for.
PIECE = 1024
FROM_TEST_ROW = ("loss", "kl_weighted", "kl", "beta", "kl_share", "kl_share_above_floor", "elbo",
                 "log_density_bound", "entropy_floor")  # fmt: skip


class MemberPictures(NamedTuple):
    """What a model shows.

    Attributes:
        samples: `[16, H, W, C]` decoded points of N(0, I), the same seed for every model.
        originals: `[8, H, W, C]` in [0, 1], the first test images as evaluation has them.
        reconstructions: `[8, H, W, C]` of their posterior means.
        seed: of the samples.
    """

    samples: np.ndarray
    originals: np.ndarray
    reconstructions: np.ndarray
    seed: int = SAMPLE_SEED


def quality_floor(splits: Splits) -> float:
    """Sliced Wasserstein distance of training images to the test images samples are judged by.

    The value a perfect model would reach, at the same counts and settings as `member_figures`.
    """
    count = min(len(splits.test), len(splits.train), QUALITY_IMAGES)
    return _distance(_first(splits.test, count), _first(splits.train, count))


def member_figures(run: Run[VAE], splits: Splits) -> tuple[dict[str, Any], MemberPictures]:
    """Everything that a comparison of models needs to know about one of them.

    Args:
        run: the model.
        splits: of its data.

    Returns:
        The figures, and pictures for the eye. Nats per image on the test split: `recon`, `kl`,
        `elbo`, `kl_per_dimension` `[Z]`; `beta`, `kl_share`, `active_units`, `psnr` (dB, of
        reconstructions of the posterior mean), `sliced_wasserstein` (prior samples against test
        images), `radius` of draws of the posterior beside the `prior` one, `covariance` of the
        aggregate posterior.

    Raises:
        UserError: the run has no row of the test split, or posteriors that are not finite.
    """
    test, labels = splits.test, condition_labels(run.config.data, splits.test)
    rows = [row for row in read_rows(run.workdir) if row["split"] == "test"]
    if not rows:
        raise UserError(f"{run.workdir} has no evaluation in its metrics; train it to the end")
    row = rows[-1]
    mean, log_var, decibels, shown = _reconstruct(run, test)
    count = min(len(test), len(splits.train), QUALITY_IMAGES)
    z = prior_latents(SAMPLE_SEED, max(count, SHOWN_SAMPLES), run.model.z_dim)
    sample_labels = None if labels is None else np.resize(labels, (len(z), labels.shape[1]))
    samples = decode(run.model, run.variables, z, sample_labels)
    figures = {
        "step": run.step,
        "recon": row.get("recon_nats"),
        **{name: row[name] for name in FROM_TEST_ROW if name in row},
        **_posterior_figures(mean, log_var),
        "psnr": float(decibels.mean()) if np.isfinite(decibels).all() else None,
        "sliced_wasserstein": _distance(_first(test, count), samples[:count]),
        "test_images": len(test),
    }
    return figures, MemberPictures(samples[:SHOWN_SAMPLES], *shown)


def _reconstruct(
    run: Run[VAE], test: ImageSet
) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Codes and PSNR of a split, a piece at a time, and the first images with reconstructions."""
    codes, decibels, shown = [], [], []
    for start in range(0, len(test), PIECE):
        subject = make_subject(run, piece_of(test, start, PIECE))
        seen = encode_subject(subject, first=start)
        decoded = decode(run.model, run.variables, seen.mean, subject.labels)
        codes.append((seen.mean, seen.log_var))
        decibels.append(
            np.asarray(psnr(jnp.asarray(seen.targets), jnp.asarray(decoded)), np.float64)
        )
        shown = shown or [seen.targets[:SHOWN_TEST_IMAGES], decoded[:SHOWN_TEST_IMAGES]]
    mean, log_var = (np.concatenate(parts) for parts in zip(*codes, strict=True))
    return mean, log_var, np.concatenate(decibels), (shown[0], shown[1])


def _posterior_figures(mean: np.ndarray, log_var: np.ndarray) -> dict[str, Any]:
    z = np.asarray(posterior.sample(mean, log_var, make_key(SAMPLE_SEED)), np.float64)
    moments = posterior.moments(mean, log_var)
    spectrum = posterior.spectrum(moments.covariance)
    radii = np.linalg.norm(z, axis=1)
    prior_mean, prior_std = chi_moments(mean.shape[1])
    return {
        "kl_per_dimension": posterior.kl_per_dimension(mean, log_var).tolist(),
        "active_units": posterior.active_units(mean).number,
        "radius": {
            "mean": float(radii.mean()),
            "std": float(radii.std()),
            "prior_mean": prior_mean,
            "prior_std": prior_std,
        },
        "covariance": {
            "offset_norm": float(np.linalg.norm(moments.offset)),
            "largest": float(spectrum[0]),
            "median": float(np.median(spectrum)),
            "smallest": float(spectrum[-1]),
            # (sum l)^2 / sum l^2: how many equal directions would be as spread out.
            "effective_dimensions": float(spectrum.sum() ** 2 / np.square(spectrum).sum()),
        },
    }


def _first(split: ImageSet, count: int) -> np.ndarray:
    return split.take(np.arange(count))


def _distance(real: np.ndarray, fake: np.ndarray) -> float:
    key = make_key(SAMPLE_SEED)
    return sliced_wasserstein(real, fake, key, **QUALITY_SETTINGS)["mean"]
