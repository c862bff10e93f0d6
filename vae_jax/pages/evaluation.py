"""One model measured: every figure of `vae_jax.evaluate`, and the page that shows them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vae_jax.evaluate import run_metrics
from vae_jax.evaluate.published import published_nll
from vae_jax.models.vae import VAE
from vae_jax.report.evaluation import write_evaluation
from vae_jax.report.pictures import image_grid, paired_rows
from vae_jax.run import Run, Subject, chosen_images, encode_subject, reconstructions
from vae_jax.streams import make_key

COLUMNS = 8
SAMPLES_SHOWN = 32


class Choices(NamedTuple):
    """What is measured and shown.

    Attributes:
        seed: of samples and choices.
        importance_samples: k of the importance-weighted bound.
        generated: prior samples, at most.
        features: space of the distances: 'encoder_mean' or 'pixels_8x8'.
        inception: file with Inception activations, or None.
        decoded: what reconstructions decode, 'mean' or 'sample'.
        shown: images in each picture.
        reference_choice: choose them as the reference code does.
    """

    seed: int
    importance_samples: int
    generated: int
    features: str
    inception: str | None
    decoded: str
    shown: int
    reference_choice: bool


def write_evaluation_page(
    run: Run[VAE], subject: Subject, split: str, choices: Choices, out: Path
) -> dict[str, Any]:
    """Measure a model and write OUT/metrics.json and OUT/evaluation.html.

    Args:
        run: that was trained.
        subject: its model and the images to judge it by.
        split: they come from, for the page.
        choices: what to measure and to show.
        out: folder; it is made.

    Returns:
        The metrics as they are in the file, `None` for what is not finite.

    Raises:
        UserError: too few images, or activations that cannot be used.
    """
    fid = run_metrics.fid_of_file(choices.inception) if choices.inception else {}
    seed, seen = choices.seed, encode_subject(subject)
    sample_key = make_key(seed) if choices.decoded == "sample" else None
    back = reconstructions(subject, seen, np.arange(len(seen.mean)), sample_key)
    facts = run.provenance | {
        "split": split,
        "images": f"{len(subject.images):,}",
        "seed": str(seed),
        "reconstructions": f"of the {choices.decoded}",
    }
    metrics = dict(facts) | {"images": len(seen.mean), "seed": seed, "step": run.step}
    metrics |= run_metrics.reconstruction_metrics(seen.targets, back)
    metrics |= run_metrics.likelihood_metrics(subject, seen, choices.importance_samples, seed)
    scores, samples = run_metrics.sample_metrics(subject, seed, choices.generated, choices.features)
    metrics = run_metrics.finite_or_none(metrics | scores | fid)
    if "iw_bound" in metrics:
        metrics["published_nll"] = published_nll(run.config.data)
    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2, allow_nan=False) + "\n")
    shown = chosen_images(choices.shown, len(back), seed, choices.reference_choice)
    samples = samples[:SAMPLES_SHOWN]
    pictures = {
        "Images and their reconstructions": (
            f"Images {', '.join(map(str, shown))} of the split, decoded by the {choices.decoded}.",
            image_grid(paired_rows([seen.targets[shown], back[shown]], COLUMNS), COLUMNS),
        ),
        "Prior samples": (
            f"Points 0 to {len(samples) - 1} of seed {seed}, as experiments.sample has.",
            image_grid(samples, COLUMNS),
        ),
    }
    write_evaluation(out / "evaluation.html", metrics, facts, pictures)
    return metrics
