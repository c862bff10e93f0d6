"""Train a VAE, or go on where the last run in the workdir ended.

python -m experiments.train --config=configs/faces_small.py --workdir=runs/faces

With --coordinator=HOST:PORT --processes=N --process_id=I, or --distributed on a cluster, several
processes train together; all of them see the workdir.

Exit codes: 0 finished, 2 a user's error, 128 + N after signal N (checkpoint saved; 143 SIGTERM,
130 SIGINT, 129 SIGHUP), 3 another process of the run is gone.
"""

from __future__ import annotations

from functools import partial

from absl import flags

from experiments import app, cluster, command_line, publish
from experiments.config_file import ConfigFlag
from vae_jax.types import UserError

_CONFIG = ConfigFlag("Config file.")
_WORKDIR = command_line.workdir()
_DEBUG_NANS = flags.DEFINE_bool("debug_nans", False, "Stop at the operation that makes a NaN.")


def main() -> int:
    """Trains the model, and draws pictures of it."""
    config = _CONFIG.value
    if "sweep" in config:
        raise UserError("config.sweep lists many runs: give this config to experiments.ablation")
    if "classifier" in config:
        raise UserError(
            "this config has the section `classifier`; train it with experiments.train_classifier"
        )

    import jax

    from vae_jax.devices import is_first
    from vae_jax.studies.training import draw_run
    from vae_jax.train.trainer import fit

    jax.config.update("jax_debug_nans", _DEBUG_NANS.value)
    cluster.join()
    draw = partial(draw_run, command=publish.command())
    result = fit(config, _WORKDIR.value, draw=draw)
    if result.interrupted_by is None:
        if is_first():
            command_line.tell(draw(_WORKDIR.value), "evaluate", workdir=_WORKDIR.value)
        return 0
    if is_first():
        print(f"stopped at step {result.step}; the same command resumes there")
        try:
            command_line.tell(draw(_WORKDIR.value))
        except UserError as error:
            print(f"no pictures: {error}")
    return 128 + result.interrupted_by


if __name__ == "__main__":
    app.run(main)
