"""Make a run folder from Keras weights, or write those of a run for Keras.

python -m experiments.import_keras --config=configs/celeba.py --encoder=enc.weights.h5 \
    --decoder=dec.weights.h5 --workdir=runs/from_keras
python -m experiments.import_keras --export --encoder=enc.weights.h5 --decoder=dec.weights.h5 \
    --workdir=runs/celeba

The run folder starts at step 0 with a fresh optimiser; sampling, encoding and training take it.
"""

from __future__ import annotations

from absl import flags
from ml_collections import config_flags

from experiments import app
from vae_jax.interop.keras import save_keras
from vae_jax.interop.keras_run import import_run
from vae_jax.run import open_run
from vae_jax.types import UserError

_CONFIG = config_flags.DEFINE_config_file("config", None, "Config with the Keras model's layers.")
_ENCODER = flags.DEFINE_string("encoder", None, "The encoder's .weights.h5.")
_DECODER = flags.DEFINE_string("decoder", None, "The decoder's .weights.h5.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
_EXPORT = flags.DEFINE_bool("export", False, "Write the files from the run instead.")
_STEP = flags.DEFINE_integer("step", None, "Checkpoint step to export; the newest by default.")


def main() -> None:
    """Import or export."""
    if _EXPORT.value:
        run = open_run(_WORKDIR.value, _STEP.value)
        save_keras(run.variables, _ENCODER.value, _DECODER.value)
        print(f"wrote {_ENCODER.value} and {_DECODER.value} from step {run.step}")
        return
    if _CONFIG.value is None:
        raise UserError("--config is missing: which config has the layers of the Keras model?")
    import_run(_CONFIG.value, _ENCODER.value, _DECODER.value, _WORKDIR.value)
    print(f"made {_WORKDIR.value}: train, sample and encode take it")


if __name__ == "__main__":
    flags.mark_flags_as_required(["encoder", "decoder", "workdir"])
    app.run(main)
