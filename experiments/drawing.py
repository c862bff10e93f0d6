"""The pictures that every training leaves behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vae_jax.report.pictures import image_grid, paired_rows, save_png
from vae_jax.run import (
    decode,
    encode_subject,
    open_run,
    open_subject,
    prior_latents,
    reconstructions,
)

SEED = 0
COLUMNS = 8


def draw_run(workdir: str | Path) -> list[Path]:
    """Write samples.png (decoded N(0, I) points) and reconstructions.png of the newest checkpoint.

    Originals and what is encoded are what validation shows the model: binarised where the run
    was trained on binarised images, corrupted where its inputs are. Corrupted inputs stand between
    original and reconstruction.

    Args:
        workdir: run folder; the pictures go there.

    Returns:
        Their paths.
    """
    run = open_run(workdir)
    subject = open_subject(run, "test", run.config.eval.pictures)
    seen, count = encode_subject(subject), len(subject.images)
    points = prior_latents(SEED, count, run.model.z_dim)
    samples = decode(run.model, run.variables, points, subject.labels)
    back = reconstructions(subject, seen, np.arange(count))
    rows = {"original": seen.targets, "reconstruction of the mean": back}
    if not subject.stage.corruption.is_off:
        rows = {"original": seen.targets, "input": seen.inputs, "reconstruction of the mean": back}
    pairs = paired_rows(list(rows.values()), COLUMNS)
    pictures = {
        "samples.png": (samples, {"seed": str(SEED)}),
        "reconstructions.png": (pairs, {"rows": ", ".join(rows)}),
    }
    for name, (pixels, facts) in pictures.items():
        save_png(Path(workdir) / name, image_grid(pixels, COLUMNS), run.provenance | facts)
    return [Path(workdir) / name for name in pictures]
