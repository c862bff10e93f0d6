"""What a conditional model makes of a condition: pictures, and asked against recognised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vae_jax.data.splits import condition_labels, first_images
from vae_jax.evaluate.conditioning import attribute_rates, class_confusion, confusion_table
from vae_jax.latent.conditions import attribute_grid, class_grid
from vae_jax.models.vae import VAE
from vae_jax.report.plain_page import Section
from vae_jax.run import Run, decode, encode_subject, make_subject, open_classifier, prior_latents
from vae_jax.run_folder import read_rows
from vae_jax.types import ImageSet


def condition_pictures(
    run: Run[VAE], test: ImageSet, seed: int, columns: int
) -> dict[str, tuple[str, np.ndarray]]:
    """What a model makes of every class, or of test images with each attribute changed.

    Args:
        run: a conditional model.
        test: its test split.
        seed: of the latent points.
        columns: K images a row.

    Returns:
        By name what the rows are, and the images `[R K, H, W, C]`, row by row.
    """
    names = run.label_names
    z = prior_latents(seed, columns, run.model.z_dim)
    if run.config.data.condition == "class":
        images = decode(run.model, run.variables, *class_grid(z, len(names)))
        return {"classes": (f"Rows: {', '.join(names)}; the same z in every column.", images)}
    changes = ", ".join(f"{name} 0, {name} 1" for name in names)
    shown = first_images(test, min(columns, len(test)), "--columns")
    subject = make_subject(run, shown)
    seen, base = encode_subject(subject), np.asarray(subject.labels)
    drawn = decode(run.model, run.variables, *attribute_grid(z[: len(shown)], base))
    edited = decode(run.model, run.variables, *attribute_grid(seen.mean, base))
    return {
        "attributes": (f"Rows: z of N(0, I) as test images are told; {changes}.", drawn),
        "edited": (
            f"Rows: test images; their reconstructions; {changes}.",
            np.concatenate([seen.targets, edited]),
        ),
    }


def asked_against_recognised(
    run: Run[VAE], test: ImageSet, classifier: str | Path, seed: int, count: int
) -> tuple[Section, dict[str, Any]]:
    """How often a classifier sees the condition that was asked for.

    Args:
        run: a conditional model.
        test: its test split.
        classifier: run folder of the judge.
        seed: of the latent points.
        count: points for each class, or test images whose other attributes are taken.

    Returns:
        A section with the table, and the numbers.

    Raises:
        UserError: the judge knows none of what the model was told.
    """
    judge = open_classifier(classifier)
    rows = [row for row in read_rows(classifier) if row["split"] == "test"]
    own = f"The classifier itself is right on {rows[-1]['accuracy']:.2%} of its test images."
    if run.config.data.condition == "class":
        z = prior_latents(seed, count, run.model.z_dim)
        matrix = class_confusion(run, judge, z)
        right = float(np.trace(matrix) / matrix.sum())
        text = f"{right:.2%} of {matrix.sum():,} decoded N(0, I) points show the asked class. {own}"
        header, table = confusion_table(matrix, run.label_names)
        numbers = {"right": right, "confusion": matrix.tolist()}
        return Section("Asked against recognised", text, header=header, rows=table), numbers
    some = first_images(test, min(count, len(test)), "--count")
    base = np.asarray(condition_labels(run.config.data, some))
    real = (some.take(np.arange(len(some))), base)
    z = prior_latents(seed, len(some), run.model.z_dim)
    rates = attribute_rates(run, judge, z, base, real)
    text = (
        f"Shares of images in which the attribute is recognised: {len(some):,} decoded N(0, I) "
        f"points with the other attributes of test images, and test images themselves. {own}"
    )
    header = ["attribute", "asked for", "not asked for", "test with it", "test without it"]
    table = [[name, *(f"{share:.1%}" for share in values)] for name, values in rates.items()]
    numbers = {name: values._asdict() for name, values in rates.items()}
    return Section("Asked against recognised", text, header=header, rows=table), numbers
