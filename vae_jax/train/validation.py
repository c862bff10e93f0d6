"""Steps that change no parameter: the objective on held-out images, and batch statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from vae_jax.data.batches import Batches
from vae_jax.data.feeds import Feed, make_feed
from vae_jax.data.inputs import CLEAN, InputStage, evaluation_pair
from vae_jax.data.splits import Splits, condition_labels, first_images
from vae_jax.losses import Objective
from vae_jax.models.vae import VAE
from vae_jax.streams import stream_key
from vae_jax.train.epoch import EpochMeans, Pace, RunSteps, compiled_steps, run_epoch
from vae_jax.train.rows import with_one_sigma
from vae_jax.train.setup import Experiment
from vae_jax.train.state import Hyper, TrainState
from vae_jax.train.step import Metrics, Step, objective_terms
from vae_jax.types import Batch, ImageSet


class EvalCarry(NamedTuple):
    """What validation carries from batch to batch.

    Attributes:
        variables: `{'params': ..., 'batch_stats': ...}`.
        batch: int32 scalar, index of the batch.
    """

    variables: Any
    batch: jax.Array


@lru_cache(maxsize=32)
def make_eval_step(model: VAE, objective: Objective, stage: InputStage = CLEAN) -> Step:
    """Build the pure evaluation step: full KL weight, no dropout, one seeded posterior sample.

    For `optimal_sigma` it measures the squared error, of which `with_one_sigma` makes the objective
    of the whole split.

    Args:
        model: the module.
        objective: the static part of the objective.
        stage: how inputs and targets are made of images.

    Returns:
        `eval_step(carry, batch, key, hyper) -> (carry, metrics)` with an `EvalCarry`.
    """

    if objective.likelihood == "optimal_sigma":
        objective = replace(objective, likelihood="squared_error")

    def eval_step(
        carry: EvalCarry, batch: Batch, key: jax.Array, hyper: Hyper
    ) -> tuple[EvalCarry, Metrics]:
        first = carry.batch * len(batch.images)
        inputs, targets = evaluation_pair(stage, key, batch.images, first)
        output: Any = model.apply(
            carry.variables,
            inputs,
            train=False,
            sample=model.sample,
            labels=batch.labels,
            z_mask=hyper.z_mask,
            rngs={"latent": jax.random.fold_in(key, carry.batch)},
        )
        terms = objective_terms(
            objective, output, targets, batch.weights, hyper.kl_weight, hyper.z_mask
        )
        metrics = terms | {"images": jnp.sum(batch.weights)}
        return EvalCarry(carry.variables, carry.batch + 1), metrics

    return eval_step


class StatisticsCarry(NamedTuple):
    """Sums over batches while batch statistics are measured anew.

    Attributes:
        params: of the model.
        total: tree like `batch_stats`, sum of the batches' means and variances.
        square: the same tree, sum of their squares.
        batches: int32 scalar, how many were added.
    """

    params: Any
    total: Any
    square: Any
    batches: jax.Array


def start_statistics(params: Any, batch_stats: Any) -> StatisticsCarry:
    """The empty carry for a model with these parameters and this tree of statistics."""
    zeros = jax.tree.map(jnp.zeros_like, batch_stats)
    return StatisticsCarry(params, zeros, zeros, jnp.zeros((), jnp.int32))


@lru_cache(maxsize=32)
def make_statistics_step(model: VAE, stage: InputStage = CLEAN) -> Step:
    """Build the step that measures batch statistics at fixed parameters.

    Args:
        model: the module.
        stage: how inputs are made of images.

    Returns:
        `statistics_step(carry, batch, key, hyper) -> (carry, {})` with a `StatisticsCarry`.
    """
    # Momentum 0 leaves the statistics of this one batch in the collection.
    probe = model.clone(style=replace(model.style, norm_momentum=0.0, dropout=0.0))

    def statistics_step(
        carry: StatisticsCarry, batch: Batch, key: jax.Array, hyper: Hyper
    ) -> tuple[StatisticsCarry, Metrics]:
        first = carry.batches * len(batch.images)
        inputs, _ = evaluation_pair(stage, key, batch.images, first)
        _, mutated = probe.apply(
            {"params": carry.params, "batch_stats": carry.total},
            inputs,
            train=True,
            sample=model.sample,
            labels=batch.labels,
            mask=batch.weights > 0,
            z_mask=hyper.z_mask,
            rngs={"latent": jax.random.fold_in(key, carry.batches)},
            mutable=["batch_stats"],
        )
        stats = mutated["batch_stats"]
        total = jax.tree.map(jnp.add, carry.total, stats)
        square = jax.tree.map(lambda s, x: s + jnp.square(x), carry.square, stats)
        return StatisticsCarry(carry.params, total, square, carry.batches + 1), {}

    return statistics_step


def pooled_statistics(carry: StatisticsCarry) -> Any:
    """Mean and variance over all images of equally large batches.

    The variance is the mean variance within a batch plus the variance of the batches' means.

    Args:
        carry: after at least one batch.

    Returns:
        A tree like `batch_stats`.
    """

    def pool(total: Any, square: Any) -> Any:
        if "var" not in total:
            return {name: pool(total[name], square[name]) for name in total}
        mean = total["mean"] / carry.batches
        between = square["mean"] / carry.batches - jnp.square(mean)
        return {"mean": mean, "var": total["var"] / carry.batches + jnp.maximum(between, 0.0)}

    return pool(carry.total, carry.square)


class Feeds(NamedTuple):
    """The batches of a run.

    Attributes:
        train: in the order of the run's seed.
        held_out: `validation`, by which states are chosen, if there is one; and `test`. In the
            order of the split.
        statistics: full batches of the training split, for measuring batch statistics.
    """

    train: Feed
    held_out: dict[str, Feed]
    statistics: Feed


def order_seed(config: ConfigDict) -> int:
    """The seed of the order of the images: that of the run, unless `train.order_seed` is set."""
    return config.seed if config.train.order_seed < 0 else config.train.order_seed


def make_feeds(config: ConfigDict, splits: Splits, mesh: Mesh | None = None) -> Feeds:
    """The feeds of a run, by `config.data`, `config.train` and `config.eval`, on some devices."""
    data, batch_size = config.data, config.train.batch_size

    def feed(split: ImageSet, size: int, seed: int | None = None) -> Feed:
        batches = Batches(split, condition_labels(data, split), size, seed)
        return make_feed(batches, data.resident, data.resident_gib, mesh)

    count = min(config.eval.statistics_batches, max(1, len(splits.train) // batch_size))
    probe = first_images(splits.train, min(count * batch_size, len(splits.train)), "")
    held_out = {"validation": splits.validation, "test": splits.test}
    return Feeds(
        feed(splits.train, batch_size, order_seed(config)),
        {name: feed(split, config.eval.batch_size) for name, split in held_out.items() if split},
        feed(probe, batch_size),
    )


class Validator:
    """Evaluates states of one run on held-out splits, with the statistics the config asks for."""

    def __init__(self, config: ConfigDict, experiment: Experiment, feeds: Feeds) -> None:
        self._experiment, self._feeds = experiment, feeds
        self._reestimate = config.eval.batch_stats == "reestimated" and config.model.norm == "batch"
        self._key = stream_key(experiment.run_key, "evaluation")
        model, stage = experiment.model, experiment.stage
        self._eval_program = compiled_steps(make_eval_step(model, experiment.objective, stage))
        self._statistics_program = compiled_steps(make_statistics_step(model, stage))
        self._paces = (Pace(), Pace())
        self._measured: tuple[int, Any] = (-1, None)

    def batch_stats(self, state: TrainState) -> Any:
        """The statistics to evaluate `state` with, a tree like `state.batch_stats`."""
        if not self._reestimate:
            return state.batch_stats
        step = int(state.step)
        if self._measured[0] != step:
            start = start_statistics(state.params, state.batch_stats)
            *_, (carry, _) = self._run(self._statistics_program, start, self._feeds.statistics, 0)
            self._measured = (step, pooled_statistics(carry))
        return self._measured[1]

    def evaluate(
        self, state: TrainState, stopped: Callable[[], bool] = lambda: False
    ) -> dict[str, dict[str, float]] | None:
        """Means of `objective_terms` by held-out split; None once `stopped()`, asked often."""
        model, objective = self._experiment.model, self._experiment.objective
        variables = {"params": state.params, "batch_stats": self.batch_stats(state)}
        found = {}
        for split, feed in self._feeds.held_out.items():
            means = EpochMeans()
            start = EvalCarry(variables, cast(jax.Array, np.int32(0)))
            for _, metrics in self._run(self._eval_program, start, feed, 1):
                means.add(metrics)
                if stopped():
                    return None
            found[split] = with_one_sigma(means.means(), objective, model.image_shape)
        return found

    def _run(self, program: RunSteps, carry: Any, feed: Feed, pace: int) -> Iterator[Any]:
        hyper = self._experiment.hyper
        return run_epoch(program, carry, feed, self._key, hyper, self._paces[pace])
