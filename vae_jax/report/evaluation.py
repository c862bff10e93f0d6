"""The page of one evaluation: metrics and pictures in, one HTML file that needs no other out."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from vae_jax.report.plain_page import Section, write_page

# Key of the metrics, what it is, format; shown where the metrics have it.
LIKELIHOOD = (
    ("elbo", "ELBO, nats per image", "{:.2f}"),
    ("elbo_standard_error", "its standard error over images", "{:.2f}"),
    ("iw_bound", "importance-weighted bound, nats per image", "{:.2f}"),
    ("iw_bound_standard_error", "its standard error over images", "{:.2f}"),
    ("log_density_bound", "bound on the log density on [0, 1] pixels, nats per image", "{:.2f}"),
    ("log_density_bound_bits_per_dim", "the same in bits per dimension of the density", "{:.4f}"),
    ("iw_log_density_bound", "importance-weighted bound on it, nats per image", "{:.2f}"),
    ("iw_samples", "importance samples", "{:,}"),
    ("iw_effective_samples", "of which carry the weight", "{:.1f}"),
    ("iw_sampling_error", "error that more samples would remove, nats", "{:.3f}"),
    ("recon_nats", "R, nats per image", "{:.2f}"),
    ("kl", "K, nats per image", "{:.2f}"),
    ("entropy_floor", "R of a perfect grey-level reconstruction", "{:.2f}"),
    ("active_units", "active latent dimensions, Var E[z|x] > 0.01", "{}"),
    ("z_dim", "of", "{}"),
)
RECONSTRUCTION = (
    ("mse", "MSE on [0, 1]", "{:.5f}"),
    ("psnr", "PSNR, dB", "{:.2f}"),
    ("ssim", "SSIM", "{:.4f}"),
)
SAMPLES = (
    ("generated", "prior samples, and as many real images", "{:,}"),
    ("sliced_wasserstein", "sliced Wasserstein distance", "{:.4f}"),
    ("sliced_wasserstein_floor", "the same, real against real", "{:.4f}"),
    ("feature_space", "feature space of the following", "{}"),
    ("precision", "precision", "{:.3f}"),
    ("recall", "recall", "{:.3f}"),
    ("density", "density", "{:.3f}"),
    ("coverage", "coverage", "{:.3f}"),
    ("frechet_distance", "Frechet distance in that space (not FID)", "{:.4g}"),
    ("fid", "FID, of the Inception activations given", "{:.2f}"),
)

LEVELS_NOTE = (
    "These images have grey levels. Their Bernoulli cross-entropy is a bound between models, not "
    "the log-likelihood of 8-bit pixels: compare it with its floor."
)


def metric_rows(
    metrics: Mapping[str, Any], table: Sequence[tuple[str, str, str]]
) -> list[list[str]]:
    """Rows `[key, meaning, value]` of the metrics that are there."""
    return [
        [key, meaning, form.format(metrics[key])]
        for key, meaning, form in table
        if metrics.get(key) is not None
    ]


def embedded(picture: Image.Image | bytes) -> str:
    """A picture, or the bytes of a PNG, as a data URI that a page can hold."""
    if isinstance(picture, Image.Image):
        buffer = io.BytesIO()
        picture.save(buffer, format="PNG", optimize=True)
        picture = buffer.getvalue()
    return "data:image/png;base64," + base64.b64encode(picture).decode()


def write_evaluation(
    path: str | Path,
    metrics: Mapping[str, Any],
    facts: Mapping[str, str],
    pictures: Mapping[str, tuple[str, Image.Image]],
) -> None:
    """Write evaluation.html.

    Args:
        path: the file.
        metrics: flat, as in metrics.json.
        facts: checkpoint, split and seed.
        pictures: by heading, a paragraph and the picture.
    """
    header = ("key", "meaning", "value")
    tables = {
        "Likelihood and posterior": LIKELIHOOD,
        "Reconstructions": RECONSTRUCTION,
        "Prior samples against real images": SAMPLES,
    }
    notes = {"Likelihood and posterior": LEVELS_NOTE} if metrics.get("entropy_floor", 0) > 1 else {}
    sections = [
        Section(heading, notes.get(heading, ""), header=header, rows=metric_rows(metrics, table))
        for heading, table in tables.items()
    ]
    published = [[name, f"{value:.2f}"] for name, value in metrics.get("published_nll", {}).items()]
    if published:
        ours = [f"here, k = {metrics['iw_samples']:,}", f"{-metrics['iw_bound']:.2f}"]
        note = "Published bounds on the negative log-likelihood, nats per image, and ours."
        header = ("", "nats per image")
        sections.insert(1, Section("Published", note, header=header, rows=[*published, ours]))
    sections += [
        Section(heading, text, picture=embedded(picture))
        for heading, (text, picture) in pictures.items()
    ]
    write_page(path, "Evaluation", facts, sections)
