"""Our sides of training and decoding: exactly what `fit` and `decode` run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

import vae_jax.train.trainer  # noqa: F401 (unused, but a user's first step waits for its imports)
from experiments.speed.side import Call, Result, TaskFolder, peak_memory_mib, run_side
from vae_jax import config as configs
from vae_jax import run
from vae_jax.data.batches import Batches, to_unit_range
from vae_jax.data.feeds import ResidentFeed
from vae_jax.streams import step_key, stream_key
from vae_jax.train.epoch import EpochMeans, Pace, make_run_steps, run_epoch
from vae_jax.train.setup import Experiment, make_experiment
from vae_jax.train.state import TrainState
from vae_jax.types import Batch, ImageSet


def training_calls(config: ConfigDict, split: ImageSet, epochs: int) -> Iterator[int]:
    """Trains on a resident split as `fit` does, without evaluation and checkpoints.

    Yields:
        The number of images of each call of the program, once it is done.
    """
    experiment = make_experiment(config, -(-len(split) // config.train.batch_size) * epochs)
    feed = ResidentFeed(Batches(split, None, config.train.batch_size, config.seed))
    program = jax.jit(make_run_steps(experiment.train_step), donate_argnums=0)
    carry, pace = experiment.init_state(), Pace()
    for epoch in range(epochs):
        means = EpochMeans()
        calls = run_epoch(program, carry, feed, experiment.run_key, experiment.hyper, pace, epoch)
        for state, metrics in calls:
            carry = state
            means.add(metrics)
            yield int(metrics["images"].sum())


class Training:
    """Training steps; a step of this side is one call of the program of many steps."""

    def __init__(self, folder: TaskFolder) -> None:
        self._folder = folder
        self._config = configs.from_json(folder.task.config)
        images = folder.images()
        split = ImageSet(images, np.arange(len(images)))
        self._calls = training_calls(self._config, split, epochs=10**6)

    def check(self) -> dict[str, float]:
        """Returns loss and gradient norm of the first step; writes weights and noise for peers."""
        experiment = make_experiment(self._config, total_steps=1)
        images = jnp.asarray(self._folder.images()[: self._config.train.batch_size])
        batch = Batch(images, jnp.ones(len(images)))
        state = experiment.init_state()

        @jax.jit
        def first_step(state: TrainState, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
            noise = _noise_of_first_step(experiment, state, batch.images)
            return noise, experiment.train_step(state, batch, experiment.run_key, experiment.hyper)[
                1
            ]

        noise, metrics = first_step(state, batch)
        self._folder.save_check(_by_path(state.params), np.asarray(noise))
        return {name: float(metrics[name]) for name in ("loss", "grad_norm")}

    def step(self) -> int:
        """Calls the program once."""
        return next(self._calls)

    def synchronize(self) -> None:
        """Does nothing: `run_epoch` has waited already."""


class Decoding:
    """Latent points to images on the host."""

    def __init__(self, folder: TaskFolder) -> None:
        self._folder, self._z = folder, folder.latents()
        experiment = make_experiment(configs.from_json(folder.task.config), total_steps=1)
        state = experiment.init_state()
        self._model = experiment.model
        self._variables = {"params": state.params, "batch_stats": state.batch_stats}

    def check(self) -> dict[str, float]:
        """Returns the standard deviation of decoded pixels; writes weights for the peers."""
        self._folder.save_check(_by_path(self._variables["params"]), np.zeros((0,)))
        return {"pixel_std": float(run.decode(self._model, self._variables, self._z).std())}

    def step(self) -> int:
        """Decodes all points."""
        return len(run.decode(self._model, self._variables, self._z))

    def synchronize(self) -> None:
        """Does nothing: `decode` returns arrays on the host."""


def _noise_of_first_step(experiment: Experiment, state: TrainState, images: jax.Array) -> jax.Array:
    """Returns the noise `[B, Z]` of step 0, recovered from the posterior and z."""
    key = step_key(experiment.run_key, 0)
    output, _ = experiment.model.apply(
        {"params": state.params, "batch_stats": state.batch_stats},
        to_unit_range(images),
        train=True,
        sample=True,
        rngs={name: stream_key(key, name) for name in ("latent", "dropout")},
        mutable=["batch_stats"],
    )
    return (output.z - output.mean) * jnp.exp(-0.5 * output.log_var)


def _by_path(params: Any) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {"/".join(entry.key for entry in path): np.asarray(leaf) for path, leaf in leaves}


def train(call: Call) -> Result:
    """Measures training."""
    return run_side(call, Training(TaskFolder(call.folder)))


def decode(call: Call) -> Result:
    """Measures decoding."""
    return run_side(call, Decoding(TaskFolder(call.folder)))


def whole_run(call: Call) -> Result:
    """Trains all epochs on as many images as the variant says, which repeat those of the pool."""
    folder = TaskFolder(call.folder)
    config, images = configs.from_json(folder.task.config), folder.images()
    split = ImageSet(images, np.arange(int(call.variant)) % len(images))
    done = sum(training_calls(config, split, config.train.epochs))
    return {"images": done, "seconds": call.since_start(), "peak_memory_mib": peak_memory_mib()}
