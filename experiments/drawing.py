"""The pictures that every training leaves behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vae_jax.data.splits import condition_labels, first_images, open_splits
from vae_jax.latent.sampling import decode, encode, prior_latents
from vae_jax.report.pictures import image_grid, paired_rows, save_png
from vae_jax.workdir import open_run

SEED = 0
COLUMNS = 8


def draw_run(workdir: str | Path) -> list[Path]:
    """Write samples.png (decoded N(0, I) points) and reconstructions.png of the newest checkpoint.

    Args:
        workdir: run folder; the pictures go there.

    Returns:
        Their paths.
    """
    run = open_run(workdir)
    data, model = run.config.data, run.model
    test = open_splits(data).test
    test = first_images(test, min(run.config.eval.pictures, len(test)), "config.eval.pictures")
    labels = condition_labels(data, test)
    images = test.take(np.arange(len(test)))
    samples = decode(model, run.variables, prior_latents(SEED, len(test), model.z_dim), labels)
    mean, _ = encode(model, run.variables, images, labels)
    rows = paired_rows([images, decode(model, run.variables, mean, labels)], COLUMNS)
    pictures = {
        "samples.png": (samples, {"seed": str(SEED)}),
        "reconstructions.png": (rows, {"rows": "original, reconstruction of the mean"}),
    }
    for name, (pixels, facts) in pictures.items():
        save_png(Path(workdir) / name, image_grid(pixels, COLUMNS), run.provenance | facts)
    return [Path(workdir) / name for name in pictures]
