"""Train a VAE, or go on where the last run in the workdir ended.

python -m experiments.train --config=configs/faces.py --workdir=runs/faces

With --coordinator=HOST:PORT --processes=N --process_id=I, or --distributed on a cluster, several
processes train together; all of them see the workdir.

Exit codes: 0 finished, 2 a user's error, 143 after SIGTERM and 130 after SIGINT (checkpoint saved),
3 another process of the run is gone.
"""

from __future__ import annotations

import jax
from absl import flags
from ml_collections import config_flags

from experiments import app, cluster, drawing
from vae_jax.processes import is_first
from vae_jax.train.loop import fit

_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
_DEBUG_NANS = flags.DEFINE_bool("debug_nans", False, "Stop at the operation that makes a NaN.")


def main() -> int:
    """Train and draw what came out."""
    jax.config.update("jax_debug_nans", _DEBUG_NANS.value)
    cluster.join()
    result = fit(_CONFIG.value, _WORKDIR.value)
    if not is_first():
        return 0 if result.interrupted_by is None else 128 + result.interrupted_by
    if result.interrupted_by is not None:
        print(f"stopped at step {result.step}; the same command resumes there")
        return 128 + result.interrupted_by
    for path in drawing.draw_run(_WORKDIR.value):
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main)
