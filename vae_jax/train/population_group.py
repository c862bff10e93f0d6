"""Several members at once: their states stacked, and every program mapped over them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from vae_jax.data.feeds import Feed, ResidentFeed, Segment
from vae_jax.devices import MEMBERS, OWN, WHOLE, axis_size, host, on_own_members, place
from vae_jax.streams import stream_key
from vae_jax.train import epoch
from vae_jax.train.epoch import EpochMeans, Pace, RunSteps, make_run_steps, run_epoch
from vae_jax.train.padding import pad_latent, unpad_latent
from vae_jax.train.rows import with_one_sigma
from vae_jax.train.setup import Experiment
from vae_jax.train.state import Hyper, TrainState
from vae_jax.train.step import Step
from vae_jax.train.validation import (
    EvalCarry,
    Feeds,
    make_eval_step,
    make_statistics_step,
    order_seed,
    pooled_statistics,
    start_statistics,
)
from vae_jax.types import UserError

Item = TypeVar("Item")

SHARED = Segment(*cast(Any, [None] * len(Segment._fields)))
OWN_ORDER = SHARED._replace(rows=0)


class Stacked(NamedTuple):
    """What the members of a group differ in, with a leading axis for the K members.

    Attributes:
        widest: the experiment whose model and step serve all of them.
        experiments: of the members alone.
        keys: `[K]` run keys.
        hyper: `[K]` KL weights and learning rates, `[K, Z]` masks.
        mesh: the devices that the members are divided among; None for one device. K is then a
            multiple of their number: copies of the last member fill it up, and nobody reads them.
    """

    widest: Experiment
    experiments: tuple[Experiment, ...]
    keys: jax.Array
    hyper: Hyper
    mesh: Mesh | None = None


def filled(items: Sequence[Item], mesh: Mesh | None) -> list[Item]:
    """The items, and copies of the last one up to a multiple of the devices of the members."""
    return [*items, *[items[-1]] * (-len(items) % axis_size(mesh, MEMBERS))]


def stack_experiments(experiments: Sequence[Experiment], mesh: Mesh | None = None) -> Stacked:
    """Bring experiments that differ in KL weight, learning rate, seed and z_dim side by side."""
    widest = max(experiments, key=lambda experiment: experiment.model.z_dim)
    slots = filled(experiments, mesh)
    z_dims = np.array([experiment.model.z_dim for experiment in slots])
    masks = np.arange(widest.model.z_dim)[None, :] < z_dims[:, None]
    kl_weights, learning_rates = (
        jnp.array([getattr(e.hyper, name) for e in slots], jnp.float32)
        for name in ("kl_weight", "learning_rate")
    )
    hyper = Hyper(kl_weights, learning_rates, jnp.asarray(masks, jnp.float32))
    keys, hyper = place((jnp.stack([e.run_key for e in slots]), hyper), mesh, OWN)
    return Stacked(widest, tuple(experiments), keys, hyper, mesh)


def stack_states(stacked: Stacked, states: Sequence[TrainState]) -> TrainState:
    """Pad the members' own states to the widest model and stack them, `[K, ...]`."""
    shapes = jax.eval_shape(stacked.widest.init_state)
    padded = [
        pad_latent(state, shapes, experiment.model.z_dim)
        for state, experiment in zip(states, stacked.experiments, strict=True)
    ]
    state = jax.tree.map(lambda *leaves: jnp.stack(leaves), *filled(padded, stacked.mesh))
    return place(state, stacked.mesh, OWN)


def unstack_states(stacked: Stacked, state: TrainState) -> list[TrainState]:
    """The members' own states on the host: the inverse of `stack_states`."""
    own = each_member(state, len(stacked.experiments))
    return [
        unpad_latent(padded, jax.eval_shape(experiment.init_state), experiment.model.z_dim)
        for padded, experiment in zip(own, stacked.experiments, strict=True)
    ]


def each_member(tree: Any, count: int) -> list[Any]:
    """Trees on the host, one for each of the first `count` members, without their axis."""
    arrays = host(tree)
    return [jax.tree.map(lambda leaf, k=k: leaf[k], arrays) for k in range(count)]


def mapped_steps(step: Step, axes: Segment = SHARED, donate: bool = False) -> RunSteps:
    """The jitted `run_steps` of all members at once.

    Args:
        step: of one member.
        axes: 0 for the fields of the segment that have a leading axis K.
        donate: the carry's memory is reused for the result.

    Returns:
        `run_steps(carry, segment, start, count, key, hyper) -> (carry, metrics)`, where carry, key
        and hyper have a leading axis K and each metric is `[steps, K]`.
    """
    return _mapped_steps(step, axes, donate, epoch.MAX_STEPS_A_CALL)


@lru_cache(maxsize=32)
def _mapped_steps(step: Step, axes: Segment, donate: bool, length: int) -> RunSteps:
    mapped = jax.vmap(make_run_steps(step), (0, axes, None, None, 0, 0), (0, 1))
    segment = Segment(*cast(Any, [WHOLE if axis is None else OWN for axis in axes]))
    mapped = on_own_members(mapped, (OWN, segment, WHOLE, WHOLE, OWN, OWN))
    return jax.jit(mapped, donate_argnums=(0,) if donate else ())


class OrderedFeed:
    """The batches of K members that draw the same images, each in its own order.

    Args:
        feed: the images; they must lie on the device.
        seeds: of the members' orders.
    """

    def __init__(self, feed: Feed, seeds: Sequence[int]) -> None:
        if not isinstance(feed, ResidentFeed):
            raise UserError(
                "config.sweep.same_batches is off, and members that are trained together then "
                "need the images on the device: set config.data.resident to 'always', or "
                "config.sweep.schedule to 'in_turn'"
            )
        self._feeds = [feed.reordered(seed) for seed in filled(seeds, feed.mesh)]
        self.steps_per_epoch, self.seconds_waited = feed.steps_per_epoch, 0.0
        self.mesh = feed.mesh

    def segments(self, epoch: int, start: int = 0) -> Iterator[Segment]:
        """Segments with rows `[K, S, B]`."""
        for some in zip(*(feed.segments(epoch, start) for feed in self._feeds), strict=True):
            yield some[0]._replace(rows=jnp.stack([segment.rows for segment in some]))


def group_feed(feed: Feed, group: Sequence[ConfigDict]) -> tuple[Feed, Segment]:
    """The training batches of some configs, and which fields of a segment have an axis K."""
    seeds = [order_seed(config) for config in group]
    if len(set(seeds)) == 1:
        return feed.reordered(seeds[0]), SHARED
    # All of a Feed but another order, since its orders are given.
    return cast(Feed, OrderedFeed(feed, seeds)), OWN_ORDER


class GroupValidator:
    """Evaluates all members of a group on held-out splits, as `Validator` does one."""

    def __init__(self, config: ConfigDict, stacked: Stacked, feeds: Feeds) -> None:
        self._reestimate = config.eval.batch_stats == "reestimated" and config.model.norm == "batch"
        self._stacked, self._feeds = stacked, feeds
        keys = [stream_key(e.run_key, "evaluation") for e in stacked.experiments]
        self._keys = place(jnp.stack(filled(keys, stacked.mesh)), stacked.mesh, OWN)
        model, objective = stacked.widest.model, stacked.widest.objective
        stage = stacked.widest.stage
        self._eval_program = mapped_steps(make_eval_step(model, objective, stage))
        self._statistics_program = mapped_steps(make_statistics_step(model, stage))
        self._paces = (Pace(), Pace())
        self._measured: tuple[int, Any] = (-1, None)

    def batch_stats(self, state: TrainState) -> Any:
        """The statistics to evaluate the members with, a tree like `state.batch_stats`."""
        if not self._reestimate:
            return state.batch_stats
        step = int(host(state.step)[0])
        if self._measured[0] != step:
            start = jax.vmap(start_statistics)(state.params, state.batch_stats)
            *_, (carry, _) = self._run(self._statistics_program, start, self._feeds.statistics, 0)
            self._measured = (step, jax.vmap(pooled_statistics)(carry))
        return self._measured[1]

    def evaluate(
        self, state: TrainState, stopped: Callable[[], bool] = lambda: False
    ) -> list[dict[str, dict[str, float]]] | None:
        """Each member's means by held-out split; None once `stopped()`, asked often."""
        count = len(self._stacked.experiments)
        model, objective = self._stacked.widest.model, self._stacked.widest.objective
        variables = {"params": state.params, "batch_stats": self.batch_stats(state)}
        found: list[dict[str, dict[str, float]]] = [{} for _ in range(count)]
        for split, feed in self._feeds.held_out.items():
            means = [EpochMeans() for _ in range(count)]
            start = EvalCarry(variables, jnp.zeros(len(self._keys), jnp.int32))
            for _, metrics in self._run(self._eval_program, start, feed, 1):
                for k, own in enumerate(means):
                    own.add(member_metrics(metrics, k))
                if stopped():
                    return None
            for mine, own in zip(found, means, strict=True):
                mine[split] = with_one_sigma(own.means(), objective, model.image_shape)
        return found

    def _run(self, program: RunSteps, carry: Any, feed: Feed, pace: int) -> Iterator[Any]:
        hyper = self._stacked.hyper
        return run_epoch(program, carry, feed, self._keys, hyper, self._paces[pace])


def member_metrics(metrics: dict[str, np.ndarray], k: int) -> dict[str, np.ndarray]:
    """The metrics `[steps]` of one member from those of all, `[steps, K]`."""
    return {name: values[:, k] for name, values in metrics.items()}
