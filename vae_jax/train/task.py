"""What the loop trains: all that it needs to know, and how a VAE fills it in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
from ml_collections import ConfigDict

from vae_jax.config import is_classifier
from vae_jax.data.splits import Splits, condition_names
from vae_jax.devices import data_mesh
from vae_jax.train.rows import complete_row
from vae_jax.train.setup import make_experiment
from vae_jax.train.state import Hyper, TrainState
from vae_jax.train.step import Step
from vae_jax.train.summary import run_summary
from vae_jax.train.validation import Feeds, Validator, make_feeds
from vae_jax.types import UserError

Row = dict[str, Any]


class Evaluates(Protocol):
    """Evaluates states on the held-out splits."""

    def batch_stats(self, state: TrainState) -> Any:
        """The statistics to evaluate `state` with, a tree like `state.batch_stats`."""
        ...

    def evaluate(
        self, state: TrainState, stopped: Callable[[], bool] = ...
    ) -> dict[str, dict[str, float]] | None:
        """Means by split, or None once `stopped()`; the validation `loss` ranks checkpoints."""
        ...


class Task(NamedTuple):
    """What is trained, on which batches, and how its metrics are told.

    Attributes:
        init_state: makes the state at step 0; its `params` have a subtree for each network.
        train_step: pure step.
        hyper: traced hyperparameters.
        run_key: every random draw of the run derives from it.
        feeds: the batches.
        validator: evaluates states.
        label_names: saved with every checkpoint.
        summary: printed before the start.
        complete_row: an epoch's means to the row that is logged.
        describe: a row's figures for the line an epoch, such as "loss 0.3".
    """

    init_state: Callable[[], TrainState]
    train_step: Step
    hyper: Hyper
    run_key: jax.Array
    feeds: Feeds
    validator: Evaluates
    label_names: tuple[str, ...]
    summary: str
    complete_row: Callable[[dict[str, float]], Row]
    describe: Callable[[Row], str]


# (config, splits, workdir) -> task
MakeTask = Callable[[ConfigDict, Splits, str], Task]


def total_steps(config: ConfigDict, splits: Splits) -> int:
    """Steps of a whole run."""
    return -(-len(splits.train) // config.train.batch_size) * config.train.epochs


def schedule_steps(config: ConfigDict, splits: Splits) -> int:
    """Steps until a learning rate that falls has fallen: of the run as it was first planned.

    Raises:
        UserError: a warm-up that is longer.
    """
    epochs = config.optimizer.schedule_epochs or config.train.epochs
    steps = -(-len(splits.train) // config.train.batch_size) * epochs
    if config.optimizer.warmup_steps > steps:
        raise UserError(
            f"config.optimizer.warmup_steps is {config.optimizer.warmup_steps}, but the run has "
            f"only {steps} steps; warm up for fewer, or train longer"
        )
    return steps


def vae_task(config: ConfigDict, splits: Splits, workdir: str, feeds: Feeds | None = None) -> Task:
    """A VAE with the objective of `config.loss`.

    Args:
        config: the whole config.
        splits: the data.
        workdir: run folder, for the summary.
        feeds: the batches, if other runs share them; None makes them.

    Returns:
        The task.

    Raises:
        UserError: the config is that of a classifier, or its model does not fit the images.
    """
    if is_classifier(config):
        raise UserError(
            "this config has the section `classifier`; train it with experiments.train_classifier"
        )
    label_names = condition_names(config.data, splits.train)
    experiment = make_experiment(config, schedule_steps(config, splits), len(label_names))
    feeds = feeds or make_feeds(config, splits, data_mesh(config))
    model, objective, weight = experiment.model, experiment.objective, float(config.loss.kl_weight)
    return Task(
        init_state=experiment.init_state,
        train_step=experiment.train_step,
        hyper=experiment.hyper,
        run_key=experiment.run_key,
        feeds=feeds,
        validator=Validator(config, experiment, feeds),
        label_names=label_names,
        summary=run_summary(config, model, splits, workdir, len(label_names)),
        complete_row=lambda means: complete_row(
            means, objective, weight, model.image_shape, model.z_dim, model.sample
        ),
        describe=_describe,
    )


def _describe(row: Row) -> str:
    return (
        f"loss {row['loss']:.5g} = recon {row['recon']:.5g} + "
        f"KL {row['kl_weighted']:.4g} ({row['kl']:.3g} nats, {row['kl_share']:.2%})"
    )
