"""Train the two reference models for MNIST and print every published row beside ours.

python -m experiments.reference_tables --data=data/mnist --workdir=runs/reference

Published are means of the training loss over an epoch, as Keras displays them. Runs resume where
they were stopped; --mnist_z12_epochs=6 reaches the last published row.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
from absl import flags
from ml_collections import ConfigDict

from configs import keras_example, mnist_z12
from experiments import app
from vae_jax.metrics_log import read_rows
from vae_jax.train.loop import fit

_DATA = flags.DEFINE_string("data", "data/mnist", "Folder with MNIST's four IDX files.")
_WORKDIR = flags.DEFINE_string("workdir", "runs/reference", "Folder of the two runs.")
_OUT = flags.DEFINE_string("out", "experiments/reference_tables.json", "Results to write.")
_EPOCHS = {
    "keras_example": flags.DEFINE_integer("keras_example_epochs", 5, "0 leaves it out."),
    "mnist_z12": flags.DEFINE_integer("mnist_z12_epochs", 37, "0 leaves it out."),
}
_TRAIN_COUNT = flags.DEFINE_integer("train_count", 0, "Training images; 0 for all.")
_SEED = flags.DEFINE_integer("seed", 0, "Of initialisation, order and noise.")

METRICS = ("recon", "kl_weighted", "loss")


class Study(NamedTuple):
    """A published training.

    Attributes:
        config: how we run it.
        published: `METRICS` by epoch.
        chosen: what the publication leaves open, and what we took.
    """

    config: ConfigDict
    published: dict[int, tuple[float, float, float]]
    chosen: str


STUDIES = {
    "keras_example": Study(
        keras_example.get_config(),
        {
            1: (214.5662, 2.6004, 217.1666),
            2: (186.4745, 3.2799, 189.7544),
            3: (181.9590, 3.4186, 185.3774),
            4: (177.5216, 3.9433, 181.4649),
            5: (163.7209, 5.5816, 169.3026),
        },
        "60,000 training images (469 steps an epoch are published, not which images)",
    ),
    "mnist_z12": Study(
        mnist_z12.get_config(),
        {
            3: (0.1091, 0.0044, 0.1135),
            4: (0.1070, 0.0044, 0.1114),
            5: (0.1055, 0.0044, 0.1098),
            6: (0.1041, 0.0044, 0.1085),
        },
        "learning rate 1e-3, Keras' default for Adam; 60,000 training images",
    ),
}


def train(name: str, study: Study) -> int | None:
    """Train one study in its own folder; returns the signal that stopped it, or None."""
    config = study.config
    config.data.path, config.data.train_count = _DATA.value, _TRAIN_COUNT.value
    config.train.epochs, config.seed = _EPOCHS[name].value, _SEED.value
    return fit(config, Path(_WORKDIR.value) / name).interrupted_by


def results(name: str, study: Study) -> dict[str, Any]:
    """The published rows and ours, ready for JSON."""
    rows = read_rows(Path(_WORKDIR.value) / name)
    ours = {
        split: {
            row["epoch"]: {metric: float(f"{row[metric]:.6g}") for metric in (*METRICS, "kl")}
            for row in rows
            if row["split"] == split
        }
        for split in ("train", "test")
    }
    published = {
        epoch: dict(zip(METRICS, row, strict=True)) for epoch, row in study.published.items()
    }
    return {"published": published, **ours, "chosen": f"{study.chosen}; seed {_SEED.value}"}


def table(result: dict[str, Any]) -> str:
    """Markdown: each published row, ours beside it; the last row is our last epoch."""
    lines = ["| epoch | " + " | ".join(f"{m} published | ours" for m in METRICS) + " |"]
    lines.append("|---" * (1 + 2 * len(METRICS)) + "|")
    for epoch in sorted({*result["published"], *list(result["train"])[-1:]}):
        cells = [str(epoch)]
        for metric in METRICS:
            for rows in (result["published"], result["train"]):
                value = rows.get(epoch, {}).get(metric)
                cells.append("" if value is None else f"{value:.{4 if value < 1 else 2}f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int | None:
    """Train, print, write."""
    versions = {"jax": jax.__version__, "device": jax.devices()[0].device_kind}
    written: dict[str, Any] = {"versions": versions}
    for name, study in STUDIES.items():
        if not _EPOCHS[name].value:
            continue
        signal = train(name, study)
        if signal is not None:
            return 128 + signal
        written[name] = results(name, study)
    for name in written.keys() - {"versions"}:
        print(f"\n{name} ({written[name]['chosen']})\n\n{table(written[name])}")
    Path(_OUT.value).write_text(json.dumps(written, indent=1) + "\n")
    print(f"\nwrote {_OUT.value}")
    return None


if __name__ == "__main__":
    app.run(main)
