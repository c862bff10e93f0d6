"""The pictures that every training leaves: samples, reconstructions and loss curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vae_jax.files import write_file
from vae_jax.models.vae import VAE
from vae_jax.report.charts import COLOURS, drawn, new_chart
from vae_jax.report.page import RESULTS, Page, results_bytes, write_run_index
from vae_jax.report.pictures import image_grid, paired_rows, save_png
from vae_jax.run import Run, decode, open_run, prior_latents
from vae_jax.run_folder import read_rows
from vae_jax.subject import encode_subject, open_subject, reconstructions

SEED = 0
COLUMNS = 8
CURVES = {
    "loss": "loss, as trained",
    "recon_nats": "R [nats per image]",
    "kl": "KL [nats per image]",
}


def draw_run(workdir: str | Path, command: str = "") -> list[Path]:
    """Draws samples, reconstructions and loss curves of a run, and writes the page that shows them.

    Samples are points of N(0, I), decoded by the newest checkpoint. Images are prepared as for
    validation: binarised if the run was trained on binarised images, and corrupted if its inputs
    were. Corrupted inputs are shown between original and reconstruction.

    Args:
        workdir: Run folder, where samples.png, reconstructions.png, curves.png, results.json and
            index.html are written.
        command: The command that trains the run.

    Returns:
        The paths of these files.
    """
    run, workdir = open_run(workdir), Path(workdir)
    subject = open_subject(run, "test", run.config.eval.pictures)
    seen, count = encode_subject(subject), len(subject.images)
    points = prior_latents(SEED, count, run.model.z_dim)
    samples = decode(run.model, run.variables, points, subject.labels)
    back = reconstructions(subject, seen, np.arange(count))
    shown = {"original": seen.targets, "reconstruction of the mean": back}
    if not subject.stage.corruption.is_off:
        shown = {"original": seen.targets, "input": seen.inputs, "reconstruction of the mean": back}
    pairs, rows = paired_rows(list(shown.values()), COLUMNS), read_rows(workdir)
    newest = {row["split"]: row for row in rows}
    pictures = {
        "samples.png": (image_grid(samples, COLUMNS), {"seed": str(SEED)}),
        "reconstructions.png": (image_grid(pairs, COLUMNS), {"rows": ", ".join(shown)}),
        "curves.png": (drawn(loss_curves(rows)), {}),
    }
    written = [
        save_png(workdir / name, picture, run.provenance | facts)
        for name, (picture, facts) in pictures.items()
    ]
    page = Page("Training", lead(run, newest), [], run.provenance, command)
    written.append(write_file(workdir / RESULTS, results_bytes(page, newest)))
    return [*written, write_run_index(workdir)]


def lead(run: Run[VAE], newest: dict[str, dict[str, Any]]) -> str:
    """Returns what was trained, and its results in the newest row of a split."""
    config = run.config
    what = (
        f"{'A variational autoencoder' if config.model.sample else 'An autoencoder'} with "
        f"{run.model.z_dim} latent dimensions, trained on {config.data.name}"
    )
    if not newest:
        return f"{what}. It has reached step {run.step}, in its first epoch."
    split = next(name for name in ("test", "validation", "train") if name in newest)
    row = newest[split]
    parts = [
        f"{name} {row[key]:,.1f}{unit}"
        for key, name, unit in (
            ("loss", "loss", ""),
            ("recon_nats", "R", " nats per image"),
            ("kl", "KL", " nats per image"),
        )
        if row.get(key) is not None
    ]
    epochs = f"{row['epoch']} of {config.train.epochs} epochs"
    return f"{what}. After {epochs}, on {split} images: {', '.join(parts)}."


def loss_curves(rows: Sequence[dict[str, Any]]) -> Figure:
    """Charts the loss, R and KL of every split over epochs.

    Args:
        rows: The rows of metrics.jsonl; values that are missing or null leave a gap.
    """
    figure, axes = new_chart(11, 3.2, columns=len(CURVES))
    splits = dict.fromkeys(row["split"] for row in rows)
    for axis, (name, title) in zip(axes[0], CURVES.items(), strict=True):
        for split, colour in zip(splits, COLOURS, strict=False):
            own = [row for row in rows if row["split"] == split and row.get(name) is not None]
            axis.plot(
                [row["epoch"] for row in own],
                [row[name] for row in own],
                marker=".",
                color=colour,
                label=split,
            )
        axis.set(title=title, xlabel="epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    if splits:  # There are no rows before the end of the first epoch.
        axes[0][0].legend()
    return figure
