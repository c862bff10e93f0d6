"""The batches of a run, and its evaluation on held-out images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from vae_jax.data.batches import Batches
from vae_jax.data.feeds import Feed, make_feed
from vae_jax.data.splits import Splits, condition_labels, first_images
from vae_jax.train.engine import Engine
from vae_jax.train.epoch import EpochMeans, Pace, RunSteps, run_epoch
from vae_jax.train.evaluation_steps import EvalCarry, pooled_statistics, start_statistics
from vae_jax.train.state import Hyper, TrainState
from vae_jax.types import ImageSet, UserError


class Feeds(NamedTuple):
    """The batches of a run.

    Attributes:
        train: The training split, in the order of the run's seed.
        held_out: The splits `validation`, by which checkpoints are chosen, if there is one, and
            `test`, both in their own order.
        statistics: Full batches of the training split, for measuring batch statistics.
    """

    train: Feed
    held_out: dict[str, Feed]
    statistics: Feed


def order_seed(config: ConfigDict) -> int:
    """Returns the seed of the order of the images: `train.order_seed`, or that of the run."""
    return config.seed if config.train.order_seed < 0 else config.train.order_seed


def make_feeds(config: ConfigDict, splits: Splits, mesh: Mesh | None = None) -> Feeds:
    """Makes the feeds of a run by `config.data`, `train` and `eval`, on some devices.

    Raises:
        UserError: There are fewer training images than a batch has.
    """
    data, batch_size = config.data, config.train.batch_size
    if len(splits.train) < max(2, batch_size):
        raise UserError(
            f"config.train.batch_size is {batch_size}, but there are only {len(splits.train)} "
            "training images: lower it, or train on more"
        )

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
    """Evaluates runs on the held-out splits, with the statistics that their config asks for."""

    def __init__(self, engine: Engine, feeds: Feeds) -> None:
        self._engine, self._feeds = engine, feeds
        task = engine.task
        self._eval_program = engine.program(task.eval_step)
        self._statistics_program = task.statistics_step and engine.program(task.statistics_step)
        self._paces = (Pace(), Pace())
        self._measured: tuple[int, Any] = (-1, None)

    def batch_stats(self, state: TrainState) -> Any:
        """Returns the statistics to evaluate the runs with, a tree like `state.batch_stats`."""
        if self._statistics_program is None:
            return state.batch_stats
        engine, feed = self._engine, self._feeds.statistics
        step = int(engine.each(state.step)[0])
        if self._measured[0] != step:
            start = engine.over(start_statistics)(state.params, state.batch_stats)
            *_, (carry, _) = self._run(self._statistics_program, start, feed, engine.hyper, 0)
            self._measured = (step, engine.over(pooled_statistics)(carry))
        return self._measured[1]

    def evaluate(
        self, state: TrainState, stopped: Callable[[], bool] = lambda: False
    ) -> list[dict[str, dict[str, float]]] | None:
        """Returns the means of each run by held-out split; None as soon as `stopped()` is true."""
        engine = self._engine
        variables = {"params": state.params, "batch_stats": self.batch_stats(state)}
        start = engine.over(lambda own: EvalCarry(own, jnp.zeros((), jnp.int32)))(variables)
        hyper = engine.hyper.under(state.control)
        weights = [] if state.control is None else engine.each(hyper.kl_weight)
        found: list[dict[str, dict[str, float]]] = [{} for _ in engine.each(state.step)]
        for split, feed in self._feeds.held_out.items():
            means = [EpochMeans() for _ in found]
            for _, metrics in self._run(self._eval_program, start, feed, hyper, 1):
                for own, values in zip(means, engine.each_metrics(metrics), strict=True):
                    own.add(values)
                if stopped():
                    return None
            for own, mine in zip(means, found, strict=True):
                mine[split] = own.means()
            for weight, mine in zip(weights, found, strict=False):
                mine[split]["kl_weight"] = float(weight)
        return found

    def _run(
        self, program: RunSteps, carry: Any, feed: Feed, hyper: Hyper, pace: int
    ) -> Iterator[Any]:
        key = self._engine.evaluation_key
        return run_epoch(program, carry, feed, key, hyper, self._paces[pace])
