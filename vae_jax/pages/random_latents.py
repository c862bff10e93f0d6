"""Random latent points of one run: every row measured, and the paragraph above their sheet."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

from vae_jax.evaluate import random_latents as latents
from vae_jax.metrics.radius import chi_moments, log10_probability_within
from vae_jax.run import Subject
from vae_jax.streams import make_key
from vae_jax.types import UserError


class MeasuredRows(NamedTuple):
    """What `experiments.random_latents` shows of one run.

    Attributes:
        figures: of each row; see `vae_jax.evaluate.random_latents.measure`.
        floor: the distances of real images to real images.
        shown: name and images `[N, H, W, C]` of each row.
        text: where the prior and the codes lie, and how mixtures fitted.
    """

    figures: list[dict[str, Any]]
    floor: dict[str, float]
    shown: list[tuple[str, np.ndarray]]
    text: str


def measure_rows(
    name: str, subject: Subject, fit_to: Subject, kl_weight: float, points: int, seed: int
) -> MeasuredRows:
    """Decode and judge all rows of points, a printed line for each.

    Args:
        name: of the run, for the lines.
        subject: model and real images.
        fit_to: the same model with the images that densities are fitted to.
        kl_weight: the model was trained with, for the text.
        points: a row.
        seed: of points and distances.

    Returns:
        Figures, images and text.

    Raises:
        UserError: fewer real images than twice the points.
    """
    if len(subject.images) < 2 * points:
        raise UserError(
            f"--points is {points}, but comparing needs twice as many real images and the split "
            f"has {len(subject.images)}; ask for fewer points"
        )
    key, distance_key = jax.random.split(make_key(seed))
    rows, held_out = latents.all_rows(subject, fit_to, key, points)
    figures, shown = [], []
    for number, row in enumerate(rows, start=1):
        measured, images = latents.measure(subject, row, distance_key)
        figures.append(measured)
        shown.append((row.name, images))
        print(
            f"{name} {number}/{len(rows)} {row.name}: |z| {measured['radius']:.1f}, "
            f"sliced Wasserstein {measured['sliced_wasserstein']:.3f}",
            flush=True,
        )
    z_dim = subject.model.z_dim
    mean, std = chi_moments(z_dim)
    tried = ", ".join(f"{size}: {value:.1f}" for size, value in held_out.items())
    text = (
        f"Z = {z_dim}, KL weight {kl_weight:g}. Under N(0, I) the radius is "
        f"{mean:.1f} +- {std:.2f}, and P(|z| < 1) is 10^{log10_probability_within(1.0, z_dim):.0f}."
        f" Encoded images have |z| of {figures[0]['radius']:.1f} on average. Held-out "
        f"log-likelihood of mixtures, nats a point, by components: {tried}."
    )
    return MeasuredRows(figures, latents.floor(subject, distance_key, points), shown, text)
