"""Train the two reference models for MNIST and print every published row beside ours.

python -m experiments.reference_tables --data=data/mnist --workdir=runs/reference

Published are means of the training loss over an epoch, as Keras displays them. A second start goes
on where the first was stopped; --mnist_z12_epochs=6 ends with the last published row.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
from absl import flags

from configs import keras_example, mnist_z12
from experiments import app
from vae_jax.report.reference_tables import comparison, markdown_table
from vae_jax.run_folder import read_rows
from vae_jax.train.trainer import fit

_DATA = flags.DEFINE_string("data", "data/mnist", "Folder with MNIST's four IDX files.")
_WORKDIR = flags.DEFINE_string("workdir", "runs/reference", "Folder of the two runs.")
_OUT = flags.DEFINE_string("out", "experiments/results/reference_tables.json", "Results.")
_EPOCHS = {
    "keras_example": flags.DEFINE_integer("keras_example_epochs", 5, "0 leaves it out."),
    "mnist_z12": flags.DEFINE_integer("mnist_z12_epochs", 37, "0 leaves it out."),
}
_TRAIN_COUNT = flags.DEFINE_integer("train_count", 0, "Training images; 0 for all 60,000.")
_CONFIGS = {"keras_example": keras_example, "mnist_z12": mnist_z12}


def main() -> int | None:
    """Train, print, write."""
    compared: dict[str, Any] = {}
    for name, module in _CONFIGS.items():
        config, workdir = module.get_config(), Path(_WORKDIR.value) / name
        config.data.path, config.data.train_count = _DATA.value, _TRAIN_COUNT.value
        config.train.epochs = _EPOCHS[name].value
        if config.train.epochs == 0:
            continue
        signal = fit(config, workdir).interrupted_by
        if signal is not None:
            return 128 + signal
        compared[name] = comparison(name, read_rows(workdir))
    for name, result in compared.items():
        facts = f"{result['train_images']:,} training images; {result['open_choices']}"
        print(f"\n{name} ({facts})\n\n{markdown_table(result)}")
    versions = {"jax": jax.__version__, "device": jax.devices()[0].device_kind}
    out = Path(_OUT.value)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"versions": versions} | compared, indent=1) + "\n")
    print(f"\nwrote {out}")
    return None


if __name__ == "__main__":
    app.run(main)
