"""Train a VAE, or go on where the last run in the workdir ended.

python -m experiments.train --config=configs/faces.py --workdir=runs/faces

Exit codes: 0 finished, 2 a user's error, 143 after SIGTERM and 130 after SIGINT (checkpoint saved).
"""

from __future__ import annotations

import jax
from absl import flags
from ml_collections import config_flags

from experiments import app, drawing
from vae_jax.train.loop import fit

_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
_DEBUG_NANS = flags.DEFINE_bool("debug_nans", False, "Stop at the operation that makes a NaN.")


def main() -> int:
    """Train and draw what came out."""
    jax.config.update("jax_debug_nans", _DEBUG_NANS.value)
    result = fit(_CONFIG.value, _WORKDIR.value)
    if result.interrupted_by is not None:
        print(f"stopped at step {result.step}; the same command resumes there")
        return 128 + result.interrupted_by
    for path in drawing.draw_run(_WORKDIR.value):
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main)
