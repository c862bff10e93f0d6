"""The published training results of the reference models for MNIST, and ours beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

METRICS = ("recon", "kl_weighted", "loss")


class Publication(NamedTuple):
    """A published training.

    Attributes:
        rows: by epoch, counted from 1, the means of `METRICS` over the training batches.
        open_choices: what the publication does not state, and what we took.
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
        "seed 0; 469 steps an epoch are stated, and so 60,000 images are taken",
    ),
    "mnist_z12": Publication(
        {
            3: (0.1091, 0.0044, 0.1135),
            4: (0.1070, 0.0044, 0.1114),
            5: (0.1055, 0.0044, 0.1098),
            6: (0.1041, 0.0044, 0.1085),
        },
        "seed 0; learning rate 1e-3, Keras' default for Adam",
    ),
}


def comparison(name: str, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What was published and what was measured, ready for JSON.

    Args:
        name: a key of `PUBLISHED`.
        rows: of a run's metrics.jsonl.

    Returns:
        `published`, `train` and `test`, each `{epoch: {metric: value}}`, ours with `kl` in nats
        per image; the number of `train_images`; and `open_choices`.
    """
    publication = PUBLISHED[name]
    published = {
        epoch: dict(zip(METRICS, row, strict=True)) for epoch, row in publication.rows.items()
    }
    ours = {
        split: {
            row["epoch"]: {metric: float(f"{row[metric]:.6g}") for metric in (*METRICS, "kl")}
            for row in rows
            if row["split"] == split
        }
        for split in ("train", "test")
    }
    images = max((row["images"] for row in rows if row["split"] == "train"), default=0)
    facts = {"train_images": images, "open_choices": publication.open_choices}
    return facts | {"published": published} | ours


def markdown_table(compared: Mapping[str, Any]) -> str:
    """The published epochs and our last one, ours beside the published values.

    Args:
        compared: of `comparison`.

    Returns:
        A Markdown table; a cell is empty where one side has no value.
    """
    published, ours = compared["published"], compared["train"]
    lines = [
        "| epoch | " + " | ".join(f"{metric} published | ours" for metric in METRICS) + " |",
        "|---" * (1 + 2 * len(METRICS)) + "|",
    ]
    for epoch in sorted(published.keys() | ({max(ours)} if ours else set())):
        cells = [str(epoch)]
        for metric in METRICS:
            cells += [_cell(side.get(epoch, {}).get(metric)) for side in (published, ours)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if value < 1 else f"{value:.2f}"
