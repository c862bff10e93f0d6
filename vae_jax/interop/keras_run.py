"""A run folder whose checkpoint at step 0 has weights from Keras."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ml_collections import ConfigDict

from vae_jax import config as configs
from vae_jax.checkpoint.saving import Checkpoints
from vae_jax.interop.keras import load_keras
from vae_jax.run_folder import CHECKPOINTS, CONFIG_FILE, run_lock, write_config
from vae_jax.train import persistence
from vae_jax.train.setup import make_experiment
from vae_jax.types import UserError


def import_run(config: ConfigDict, encoder: str, decoder: str, workdir: str | Path) -> None:
    """Make `workdir` a run of `config` whose checkpoint at step 0 has Keras' weights.

    Args:
        config: whole config.
        encoder: `.weights.h5` of the encoder.
        decoder: `.weights.h5` of the decoder.
        workdir: a folder without a run.

    Raises:
        UserError: bad config or files, or a run in the folder.
    """
    configs.validate(config)
    if config.data.condition != "none":
        raise UserError("config.data.condition must be 'none' for weights from Keras")
    workdir = Path(workdir)
    if (workdir / CONFIG_FILE).exists():
        raise UserError(f"--workdir={workdir} holds a run already; choose another folder")
    experiment = make_experiment(config, config.train.epochs)
    variables = load_keras(encoder, decoder, experiment.model)
    state = dataclasses.replace(experiment.init_state(), **variables)
    facts = persistence.Facts(configs.digest(config), (), {})
    with run_lock(workdir), Checkpoints(workdir / CHECKPOINTS) as checkpoints:
        persistence.save(checkpoints, state, state.batch_stats, float("nan"), facts)
        checkpoints.wait()
        write_config(workdir, config)
