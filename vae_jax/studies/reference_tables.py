"""The published training results of the reference models for MNIST, and ours beside them.

A published row is the result of one seed, and results depend on the seed: `keras_example` stays on
a plateau with one active dimension for some seeds and leaves it early for others. Each published
value is therefore compared with our values for several seeds, their median and their range.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

from vae_jax.report.page import Page, Section, Table

METRICS = ("recon", "kl_weighted", "loss")


class Publication(NamedTuple):
    """A published training.

    Attributes:
        rows: By epoch, counted from 1, the means of `METRICS` over the training batches.
        open_choices: What the publication does not state, and what we chose.
    """

    rows: dict[int, tuple[float, float, float]]
    open_choices: str


PUBLISHED = {
    "keras_example": Publication(
        {
            1: (214.5662, 2.6004, 217.1666),
            2: (186.4745, 3.2799, 189.7544),
            3: (181.9590, 3.4186, 185.3774),
            4: (177.5216, 3.9433, 181.4649),
            5: (163.7209, 5.5816, 169.3026),
        },
        "469 steps per epoch are stated, which makes 60,000 images",
    ),
    "mnist_z12": Publication(
        {
            3: (0.1091, 0.0044, 0.1135),
            4: (0.1070, 0.0044, 0.1114),
            5: (0.1055, 0.0044, 0.1098),
            6: (0.1041, 0.0044, 0.1085),
        },
        "learning rate 1e-3, Keras' default for Adam",
    ),
}


def comparison(name: str, runs: Mapping[int, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Returns what was published and what was measured, ready for JSON.

    Args:
        name: A key of `PUBLISHED`.
        runs: By seed, the rows of a run's metrics.jsonl.

    Returns:
        `published`, `{epoch: {metric: value}}`; `train` and `test`, the same of our runs by seed,
        with `kl` in nats per image; the number of `train_images`; and `open_choices`.
    """
    publication = PUBLISHED[name]
    published = {
        epoch: dict(zip(METRICS, row, strict=True)) for epoch, row in publication.rows.items()
    }
    ours = {
        split: {seed: _by_epoch(rows, split) for seed, rows in runs.items()}
        for split in ("train", "test")
    }
    counts = [row["images"] for rows in runs.values() for row in rows if row["split"] == "train"]
    facts = {"train_images": max(counts, default=0), "open_choices": publication.open_choices}
    return facts | {"published": published} | ours


def _by_epoch(rows: Sequence[Mapping[str, Any]], split: str) -> dict[int, dict[str, float]]:
    return {
        row["epoch"]: {metric: float(f"{row[metric]:.6g}") for metric in (*METRICS, "kl")}
        for row in rows
        if row["split"] == split
    }


def comparison_table(compared: Mapping[str, Any], metric: str) -> Table:
    """Returns a metric by epoch: published, median and range over seeds, and every seed.

    Args:
        compared: The result of `comparison`.
        metric: One of `METRICS`.

    Returns:
        One row for each published epoch and for our last one; a cell without a value is empty.
    """
    published, ours = compared["published"], compared["train"]
    epochs = set(published) | {max(rows) for rows in ours.values() if rows}
    lines = []
    for epoch in sorted(epochs):
        values = {
            seed: rows[epoch][metric] if epoch in rows else None for seed, rows in ours.items()
        }
        known = [value for value in values.values() if value is not None]
        theirs = published.get(epoch, {}).get(metric)
        inside = ""
        if theirs is not None and len(known) > 1:
            inside = "inside" if min(known) <= theirs <= max(known) else "outside"
        middle = _cell(median(known)) if known else ""
        span = f"{_cell(min(known))} to {_cell(max(known))}" if known else ""
        seeds = [_cell(value) for value in values.values()]
        lines.append([str(epoch), _cell(theirs), middle, span, inside, *seeds])
    header = ["epoch", "published", "median", "range over seeds", "published is"]
    caption = f"{metric}: means over the training batches of an epoch, in the units of the loss."
    return Table([*header, *(f"seed {seed}" for seed in ours)], lines, caption)


def page(compared: Mapping[str, Mapping[str, Any]]) -> Page:
    """Returns the page that compares every reference model that was trained.

    Args:
        compared: The results of `comparison` by name of the model.
    """
    sections = []
    for name, one in compared.items():
        text = f"{one['train_images']:,} training images; {one['open_choices']}."
        tables = [comparison_table(one, metric) for metric in METRICS]
        sections.append(Section(name, text, tables=tables))
    lead = (
        "The reference models for MNIST, trained as published, each published row beside ours. "
        "Results depend on the seed: by its seed alone, a model with two latent dimensions stays "
        "on a plateau with one active dimension or leaves it early. A published row is the result "
        "of one seed, and is compared with the range over our seeds."
    )
    return Page("Published training results and ours", lead, sections)


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if value < 1 else f"{value:.2f}"
