"""All that the trainer needs to know of a run, and the task of training a VAE."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from vae_jax.config import beta
from vae_jax.data.inputs import CLEAN
from vae_jax.data.splits import Splits, condition_names
from vae_jax.devices import data_share
from vae_jax.models.vae import VAE
from vae_jax.streams import make_key
from vae_jax.train.evaluation_steps import make_eval_step, make_statistics_step
from vae_jax.train.rows import complete_row, with_one_sigma
from vae_jax.train.setup import make_experiment
from vae_jax.train.state import Hyper, TrainState
from vae_jax.train.step import Step
from vae_jax.types import UserError

Row = dict[str, Any]


class Task(NamedTuple):
    """What is trained and evaluated, and how its metrics are logged and shown.

    Attributes:
        init_state: Makes the state at step 0; its `params` have a subtree for each network.
        train_step: The pure training step.
        eval_step: The pure step on held-out images, with an `EvalCarry`.
        statistics_step: The pure step that measures batch statistics anew, with a
            `StatisticsCarry`; None to evaluate with the running ones.
        hyper: The traced hyperparameters.
        run_key: The key that every random draw of the run derives from.
        label_names: The names of the condition or of the labels, saved with every checkpoint.
        complete_row: Returns the row that is logged, from a split and its means over an epoch.
        describe: Returns the figures of a row in words, such as "0.3, accuracy 91%".
        layers: Returns the tables of layers, as text.
        about: Lines of the summary that is printed before the start.
        z_dim: Z, in which the members of a group may differ; 0 if there is none.
    """

    init_state: Callable[[], TrainState]
    train_step: Step
    eval_step: Step
    statistics_step: Step | None
    hyper: Hyper
    run_key: jax.Array
    label_names: tuple[str, ...]
    complete_row: Callable[[str, dict[str, float]], Row]
    describe: Callable[[Row], str]
    layers: Callable[[], str]
    about: tuple[str, ...]
    z_dim: int = 0


def steps_per_epoch(config: ConfigDict, splits: Splits) -> int:
    """Returns the number of training steps of an epoch; its last batch may be smaller."""
    return -(-len(splits.train) // config.train.batch_size)


def schedule_steps(config: ConfigDict, splits: Splits) -> int:
    """Returns the step at which a falling learning rate is 0.

    Raises:
        UserError: The warm-up is longer.
    """
    epochs = config.optimizer.schedule_epochs or config.train.epochs
    steps = steps_per_epoch(config, splits) * epochs
    if config.optimizer.warmup_steps > steps:
        raise UserError(
            f"config.optimizer.warmup_steps is {config.optimizer.warmup_steps}, but the run has "
            f"only {steps} steps; warm up for fewer, or train longer"
        )
    return steps


def vae_task(config: ConfigDict, splits: Splits) -> Task:
    """Makes the task of a VAE with the objective of `config.loss`.

    Raises:
        UserError: The model does not fit the images, or the data has no such labels.
    """
    label_names = condition_names(config.data, splits.train)
    experiment = make_experiment(config, schedule_steps(config, splits), len(label_names))
    model, objective, stage = experiment.model, experiment.objective, experiment.stage
    weight, shape = float(config.loss.kl_weight), model.image_shape
    reestimated = config.eval.batch_stats == "reestimated" and config.model.norm == "batch"

    def complete(split: str, means: dict[str, float]) -> Row:
        if split != "train":
            means = with_one_sigma(means, objective, shape)
        return complete_row(means, objective, weight, shape, model.z_dim, model.sample)

    about = (
        f"objective  {_objective_line(config)}",
        f"evaluation {config.eval.batch_stats} batch statistics",
    )
    if stage != CLEAN:
        inputs = f"{stage.corruption}; augmentation in training: {stage.augmentation}"
        about = (f"inputs     {inputs}", *about)
    return Task(
        init_state=experiment.init_state,
        train_step=experiment.train_step,
        eval_step=make_eval_step(model, objective, stage),
        statistics_step=make_statistics_step(model, stage) if reestimated else None,
        hyper=experiment.hyper,
        run_key=experiment.run_key,
        label_names=label_names,
        complete_row=complete,
        describe=_describe,
        layers=lambda: _layers(model, len(label_names)),
        about=about,
        z_dim=model.z_dim,
    )


def _describe(row: Row) -> str:
    return f"{row['loss']:.5g}, KL {row['kl']:.3g} nats"


@lru_cache(maxsize=32)
def _layers(model: VAE, label_dim: int) -> str:
    images = jnp.zeros((1, *model.image_shape))
    z = jnp.zeros((1, model.z_dim))
    labels = jnp.zeros((1, label_dim)) if label_dim else None
    code = jnp.zeros((1, model.told.width)) if model.told else None
    bound = model.bind({})
    return "\n".join(
        layer_table(network.clone(parent=None), example, False, labels, None, code)
        for network, example in ((bound.encoder, images), (bound.decoder, z))
    )


def layer_table(network: Any, *inputs: Any) -> str:
    """Returns a table of a network's layers: their outputs and numbers of parameters."""
    order: list[str] = []

    def init(key: jax.Array) -> Any:
        _, variables = network.init_with_output(
            key, *inputs, mutable=True, capture_intermediates=True
        )
        order.extend(variables["intermediates"])  # What comes back from a trace is sorted.
        return variables

    variables = jax.eval_shape(init, make_key(0))
    title = type(network).__name__.lower()
    lines = [f"{title:16}{'output':>16}{'parameters':>16}"]
    for name in order:
        returned = jax.tree.leaves(variables["intermediates"][name])
        own = variables["params"] if name == "__call__" else variables["params"].get(name, {})
        shape = "x".join(str(n) for n in returned[0].shape[1:])
        count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(own))
        label = f"{title} in all" if name == "__call__" else name
        lines.append(f"{label:16}{shape:>16}{count:>16,}")
    return "\n".join(lines)


def _objective_line(config: ConfigDict) -> str:
    loss, shape = config.loss, tuple(config.data.image_shape)
    weight = beta(loss.reduction, loss.kl_weight, shape, config.model.z_dim)
    line = (
        f"{loss.likelihood}, {loss.reduction}, kl_weight {loss.kl_weight:g} (beta {weight:g}); "
        f"KL schedule {loss.kl_schedule}"
    )
    if loss.target_rate:
        line += f"; the weight is moved until K is {loss.target_rate:g} nats"
    return line + (f"; free bits {loss.free_bits:g} nats a dimension" if loss.free_bits else "")


def run_summary(config: ConfigDict, task: Task, splits: Splits, workdir: str) -> str:
    """Returns the summary of a run before it starts: layers, data, task, devices and folder."""
    size = "x".join(str(n) for n in config.data.image_shape)
    chosen = f"{len(splits.validation):,} validation" if splits.validation else "no validation"
    chosen_from, reason = data_share(config)
    device = f"{len(chosen_from)} x {chosen_from[0].device_kind} ({chosen_from[0].platform})"
    if jax.process_count() > 1:
        device += f" in {jax.process_count()} processes"
    lines = [
        task.layers().rstrip(),
        f"data       {config.data.name}: {len(splits.train):,} training, {chosen} and "
        f"{len(splits.test):,} test images of {size}, from {config.data.path}",
        *task.about,
        f"device     {device}, {reason}" if reason else f"device     {device}",
        f"workdir    {workdir}: config.json, metrics.jsonl, checkpoints/",
    ]
    return "\n".join(lines)
