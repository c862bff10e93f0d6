"""Steps that change no parameter: they evaluate held-out images or measure batch statistics."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vae_jax.data.inputs import CLEAN, InputStage, evaluation_pair
from vae_jax.losses import Objective
from vae_jax.models.told import Pair
from vae_jax.models.vae import VAE
from vae_jax.streams import stream_key
from vae_jax.train.state import Hyper
from vae_jax.train.step import Metrics, Step, asked_of, drawn_pair, objective_terms
from vae_jax.types import Batch


class EvalCarry(NamedTuple):
    """What an evaluation carries from batch to batch.

    Attributes:
        variables: `{'params': ..., 'batch_stats': ...}`.
        batch: int32 scalar, the index of the batch.
    """

    variables: Any
    batch: jax.Array


@lru_cache(maxsize=32)
def make_eval_step(model: VAE, objective: Objective, stage: InputStage = CLEAN) -> Step:
    """Builds the pure evaluation step: full KL weight, no dropout, one seeded posterior sample.

    For `optimal_sigma` it measures the squared error, from which `with_one_sigma` computes the
    objective of the whole split.

    Args:
        model: The module.
        objective: The static part of the objective.
        stage: How inputs and targets are made of images.

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
        pair = _told_pair(model, key, carry.batch, batch, hyper)
        kl_weight, z_mask = asked_of(model, pair, hyper)
        output: Any = model.apply(
            carry.variables,
            inputs,
            train=False,
            sample=model.sample,
            labels=batch.labels,
            z_mask=z_mask,
            pair=pair,
            rngs={"latent": jax.random.fold_in(key, carry.batch)},
        )
        terms = objective_terms(objective, output, targets, batch.weights, kl_weight, z_mask)
        metrics = terms | {"images": jnp.sum(batch.weights)}
        return EvalCarry(carry.variables, carry.batch + 1), metrics

    return eval_step


def _told_pair(
    model: VAE, key: jax.Array, number: jax.Array, batch: Batch, hyper: Hyper
) -> Pair | None:
    """Draws what a model is told in an evaluation: from the whole plane, as in training."""
    key = jax.random.fold_in(stream_key(key, "told"), number)
    return drawn_pair(model, key, len(batch.images), hyper)


class StatisticsCarry(NamedTuple):
    """Sums over batches, from which batch statistics are computed.

    Attributes:
        params: The parameters of the model.
        total: A tree like `batch_stats`, the sum of the batches' means and variances.
        square: The same tree, the sum of their squares.
        batches: int32 scalar, the number of batches.
    """

    params: Any
    total: Any
    square: Any
    batches: jax.Array


def start_statistics(params: Any, batch_stats: Any) -> StatisticsCarry:
    """Returns the empty carry for a model with these parameters and this tree of statistics."""
    zeros = jax.tree.map(jnp.zeros_like, batch_stats)
    return StatisticsCarry(params, zeros, zeros, jnp.zeros((), jnp.int32))


@lru_cache(maxsize=32)
def make_statistics_step(model: VAE, stage: InputStage = CLEAN) -> Step:
    """Builds the step that measures batch statistics at fixed parameters.

    Args:
        model: The module.
        stage: How inputs are made of images.

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
        pair = _told_pair(model, key, carry.batches, batch, hyper)
        _, mutated = probe.apply(
            {"params": carry.params, "batch_stats": carry.total},
            inputs,
            train=True,
            sample=model.sample,
            labels=batch.labels,
            mask=batch.weights > 0,
            z_mask=asked_of(model, pair, hyper)[1],
            pair=pair,
            rngs={"latent": jax.random.fold_in(key, carry.batches)},
            mutable=["batch_stats"],
        )
        stats = mutated["batch_stats"]
        total = jax.tree.map(jnp.add, carry.total, stats)
        square = jax.tree.map(lambda s, x: s + jnp.square(x), carry.square, stats)
        return StatisticsCarry(carry.params, total, square, carry.batches + 1), {}

    return statistics_step


def pooled_statistics(carry: StatisticsCarry) -> Any:
    """Returns mean and variance over all images of equally large batches.

    The variance is the mean variance within a batch plus the variance of the batches' means.

    Args:
        carry: The sums over at least one batch.

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
