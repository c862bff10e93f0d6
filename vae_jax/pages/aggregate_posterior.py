"""The page of the aggregate posterior: its figures, its shape, and the plane it varies most in."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from vae_jax.latent import path_study, paths
from vae_jax.metrics import posterior, radius
from vae_jax.pages.latent_study import LatentStudy
from vae_jax.report.evaluation import embedded
from vae_jax.report.latent import posterior_chart, scatter_chart, summary_rows
from vae_jax.report.pictures import image_grid
from vae_jax.report.plain_page import Section
from vae_jax.run import Subject

EXTENT = 2.5  # standard deviations that even steps of the manifold chart reach


def posterior_page(study: LatentStudy, grid: int) -> tuple[list[Section], dict[str, Any]]:
    """Sections, and the summary that goes to JSON."""
    mean, log_var = study.seen.mean, study.seen.log_var
    summary = posterior.summary(mean, log_var, study.key)
    z = np.asarray(posterior.sample(jnp.asarray(mean), jnp.asarray(log_var), study.key))
    radii, of_means = np.linalg.norm(z, axis=1), np.linalg.norm(mean, axis=1)
    places = np.linspace(0, max(radii.max(), 1.3 * mean.shape[1] ** 0.5), 400)
    density = np.gradient(np.asarray(radius.chi_cdf(jnp.asarray(places), mean.shape[1])), places)
    chart = posterior_chart(summary, radii, of_means, (places, density))
    offset, axes, names = _plane(mean, log_var)
    points = (mean - offset[None]) @ np.linalg.pinv(axes)
    groups, group_names = _groups(study.subject, points)
    even = offset[None] + np.asarray(paths.manifold_grid(grid, EXTENT)) @ axes
    quantile = offset[None] + np.asarray(paths.quantile_grid(grid)) @ axes
    sections = [
        Section("In numbers", header=("", "value"), rows=summary_rows(summary)),
        Section("Shape", picture=embedded(chart)),
        Section(
            "Means by label",
            f"Posterior means along {names[0]} and {names[1]}, in units of its deviation.",
            embedded(scatter_chart(points, groups, group_names, names)),
        ),
    ]
    for heading, z_grid, text in (
        ("Manifold, even steps", even, f"From {-EXTENT} to {EXTENT} deviations each way."),
        ("Manifold, equal probability", quantile, "At normal quantiles (i + 1/2) / n."),
    ):
        pictures = image_grid(study.decode(z_grid), grid)
        sections.append(Section(heading, text, embedded(pictures)))
    return sections, summary


def _plane(mean: np.ndarray, log_var: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[str, str]]:
    """Origin `[Z]`, two axes `[2, Z]` of one deviation each, and their names."""
    z_dim = mean.shape[1]
    if z_dim == 2:
        return np.zeros(2), np.eye(2), ("z 0", "z 1")
    offset, _, covariance = posterior.moments(mean, log_var)
    values, vectors = np.linalg.eigh(covariance)
    axes = np.sqrt(values[::-1][:2])[:, None] * vectors.T[::-1][:2]
    return offset, axes, ("principal component 1", "principal component 2")


def _groups(subject: Subject, points: np.ndarray) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Classes, or the attribute that the points `[N, 2]` separate best."""
    split = subject.split
    if split.labels is None:
        return None, ()
    if split.labels.ndim == 1:
        return split.labels, split.label_names
    table, names = path_study.label_table(split.labels, split.label_names)
    if not names:
        return None, ()
    shares = path_study.separation(points, table, paths.attribute_vectors(points, table))
    clearest = int(np.argmax(shares))
    return table[:, clearest], (f"not {names[clearest]}", names[clearest])
