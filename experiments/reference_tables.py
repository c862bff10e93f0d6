"""Train the two reference models for MNIST with several seeds, and print what was published beside.

python -m experiments.reference_tables --data=data/mnist --workdir=runs/reference \
    --seeds=0,1,2,3,4 --mnist_z12_epochs=6

Published are means of the training loss over an epoch, as Keras displays them. Runs lie in
WORKDIR/MODEL-seedN; a second start goes on where the first was stopped. Writes index.html and
results.json to OUT. Five epochs of keras_example take about two minutes per seed on two CPU cores.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from absl import flags

from configs import keras_example, mnist_z12
from experiments import app, command_line, publish

_DATA = flags.DEFINE_string("data", "data/mnist", "Folder with MNIST's four IDX files.")
_WORKDIR = flags.DEFINE_string("workdir", "runs/reference", "Folder of the runs.")
_SEEDS = flags.DEFINE_list("seeds", ["0"], "Seeds of each model; seeds scatter, so give five.")
_OUT = command_line.out_below("tables", "the page")
_EPOCHS = {
    "keras_example": command_line.count("keras_example_epochs", 5, "0 leaves it out.", low=0),
    "mnist_z12": command_line.count("mnist_z12_epochs", 37, "0 leaves it out.", low=0),
}
_TRAIN_COUNT = command_line.count("train_count", 0, "Training images; 0 for all 60,000.", low=0)
_CONFIGS = {"keras_example": keras_example, "mnist_z12": mnist_z12}


def main() -> int | None:
    """Trains the models, prints the tables, and writes the page."""
    import jax

    from vae_jax.run_folder import read_rows
    from vae_jax.studies.reference_tables import comparison, page
    from vae_jax.train.trainer import fit
    from vae_jax.types import UserError

    if not all(seed.isdecimal() for seed in _SEEDS.value) or not _SEEDS.value:
        raise UserError(f"--seeds={','.join(_SEEDS.value)} is not a list of seeds such as 0,1,2")
    compared: dict[str, Any] = {}
    for name, module in _CONFIGS.items():
        if _EPOCHS[name].value == 0:
            continue
        rows = {}
        for seed in map(int, _SEEDS.value):
            config, workdir = module.get_config(), Path(_WORKDIR.value) / f"{name}-seed{seed}"
            config.data.path, config.data.train_count = _DATA.value, _TRAIN_COUNT.value
            config.train.epochs, config.seed = _EPOCHS[name].value, seed
            signal = fit(config, workdir).interrupted_by
            if signal is not None:
                return 128 + signal
            rows[seed] = read_rows(workdir)
        compared[name] = comparison(name, rows)
    facts = {"jax": jax.__version__, "device": jax.devices()[0].device_kind}
    written = publish.publish(replace(page(compared), facts=facts), compared, _OUT.value)
    name = f"{next(iter(compared), 'keras_example')}-seed{_SEEDS.value[0]}"
    command_line.tell(written, "sample", workdir=f"{_WORKDIR.value}/{name}")
    return None


if __name__ == "__main__":
    app.run(main)
