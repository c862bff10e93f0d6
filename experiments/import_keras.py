"""Make a run folder from Keras weights, or write those of a run for Keras.

python -m experiments.import_keras --config=configs/celeba.py --encoder=enc.weights.h5 \
    --decoder=dec.weights.h5 --workdir=runs/from_keras
python -m experiments.import_keras --export --encoder=enc.weights.h5 --decoder=dec.weights.h5 \
    --workdir=runs/celeba

The run folder starts at step 0 with a fresh optimiser; sampling, encoding and training take it.
"""

from __future__ import annotations

from absl import flags

from experiments import app, command_line
from experiments.config_file import ConfigFlag
from vae_jax.types import UserError

_CONFIG = ConfigFlag("Config file with the Keras model's layers.", required=False)
_ENCODER = flags.DEFINE_string("encoder", None, "The encoder's .weights.h5.", required=True)
_DECODER = flags.DEFINE_string("decoder", None, "The decoder's .weights.h5.", required=True)
_WORKDIR = command_line.workdir()
_EXPORT = flags.DEFINE_bool("export", False, "Write the files from the run instead.")
_STEP = command_line.step()


def main() -> None:
    """Imports weights from Keras, or exports them."""
    if _EXPORT.value:
        from vae_jax.interop.keras import save_keras
        from vae_jax.run import open_run

        run = open_run(_WORKDIR.value, _STEP.value)
        save_keras(run.variables, _ENCODER.value, _DECODER.value)
        print(f"exported step {run.step}")
        command_line.tell([_ENCODER.value, _DECODER.value], "sample", workdir=_WORKDIR.value)
        return
    if _CONFIG.path is None:
        raise UserError("--config is missing: name one that has the layers of the Keras model")
    config = _CONFIG.value

    from vae_jax.interop.keras import import_run

    import_run(config, _ENCODER.value, _DECODER.value, _WORKDIR.value)
    command_line.tell([_WORKDIR.value], "sample", workdir=_WORKDIR.value)


if __name__ == "__main__":
    app.run(main)
