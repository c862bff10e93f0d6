"""The programs of runs that are trained side by side: plain for one run, mapped over several.

The trainer and the validator are written for a list of runs, and an engine does what differs. A
single run is computed by its own step, bit for bit as if there were no engine. Several runs have
their states stacked, `[K, ...]`, and one program that is mapped over them; members with a smaller Z
are padded to the largest one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from vae_jax.data.feeds import Feed, ResidentFeed, Segment
from vae_jax.devices import MEMBERS, OWN, WHOLE, axis_size, host, on_own_members, place
from vae_jax.streams import stream_key
from vae_jax.train.epoch import RunSteps, compiled_steps, make_run_steps
from vae_jax.train.state import Hyper, TrainState
from vae_jax.train.step import Step
from vae_jax.train.task import Task
from vae_jax.types import UserError

Item = TypeVar("Item")
Function = TypeVar("Function", bound=Callable[..., Any])

# Which fields of a segment have a leading axis K of their own.
SHARED = Segment(*cast(Any, [None] * len(Segment._fields)))
OWN_ORDER = SHARED._replace(rows=0)


class Training(NamedTuple):
    """What trains the runs of an engine.

    Attributes:
        feed: The batches.
        program: The jitted `run_steps`, see `make_run_steps`; it reuses the memory of its carry.
    """

    feed: Feed
    program: RunSteps


class Plain:
    """The engine of one run.

    Attributes:
        task: The task whose model and steps serve all runs.
        key: The run key; like everything here, with a leading axis K in a `Mapped` engine.
        evaluation_key: The key of everything that is drawn in an evaluation.
        hyper: The traced hyperparameters.
    """

    def __init__(self, task: Task) -> None:
        self.task, self.key, self.hyper = task, task.run_key, task.hyper
        self.evaluation_key = stream_key(task.run_key, "evaluation")

    def pack(self, states: Sequence[TrainState]) -> TrainState:
        """Returns the states of the runs as one state; here it is the only one."""
        (state,) = states
        return state

    def unpack(self, state: TrainState) -> list[TrainState]:
        """Undoes `pack`."""
        return [state]

    def each(self, tree: Any) -> list[Any]:
        """Returns the tree of each run, if nothing in it depends on Z."""
        return [tree]

    def each_metrics(self, metrics: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
        """Returns the metrics `[steps]` of each run."""
        return [metrics]

    def over(self, function: Function) -> Function:
        """Makes a function of all runs' trees from one of a single run."""
        return function

    def program(self, step: Step) -> RunSteps:
        """Returns the jitted `run_steps` of a step over batches that all runs share."""
        return compiled_steps(step)

    def training(self, feed: Feed, order_seeds: Sequence[int]) -> Training:
        """Returns what trains the runs on the images of `feed`, each in its own order."""
        (seed,) = order_seeds
        return Training(feed.reordered(seed), compiled_steps(self.task.train_step, donate=True))


class Mapped:
    """The engine of several runs, which may differ in KL weight, learning rate, seed and Z.

    Args:
        tasks: The tasks of the runs; the one with the largest Z serves all.
        mesh: The devices that the members are divided among; None for one device. K is a multiple
            of their number: copies of the last member fill it up, and nobody reads them.
    """

    def __init__(self, tasks: Sequence[Task], mesh: Mesh | None = None) -> None:
        self.task = max(tasks, key=lambda task: task.z_dim)
        self._tasks, self._mesh = tuple(tasks), mesh
        slots = _filled(tasks, mesh)
        masks = np.arange(self.task.z_dim)[None, :] < np.array([t.z_dim for t in slots])[:, None]
        kl_weights, learning_rates = (
            jnp.array([getattr(task.hyper, name) for task in slots], jnp.float32)
            for name in ("kl_weight", "learning_rate")
        )
        hyper = Hyper(kl_weights, learning_rates, jnp.asarray(masks, jnp.float32))
        keys = [jnp.stack([task.run_key for task in slots])]
        keys.append(jnp.stack([stream_key(task.run_key, "evaluation") for task in slots]))
        (self.key, self.evaluation_key), self.hyper = place((keys, hyper), mesh, OWN)

    def pack(self, states: Sequence[TrainState]) -> TrainState:
        """Returns the states padded to the largest Z and stacked, `[K, ...]`."""
        shapes = jax.eval_shape(self.task.init_state)
        padded = [
            pad_latent(state, shapes, task.z_dim)
            for state, task in zip(states, self._tasks, strict=True)
        ]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *_filled(padded, self._mesh))
        return place(stacked, self._mesh, OWN)

    def unpack(self, state: TrainState) -> list[TrainState]:
        """Returns the states that the runs would have alone, on the host."""
        return [
            unpad_latent(padded, jax.eval_shape(task.init_state), task.z_dim)
            for padded, task in zip(self.each(state), self._tasks, strict=True)
        ]

    def each(self, tree: Any) -> list[Any]:
        """Returns the tree of each run, padded, on the host."""
        arrays = host(tree)
        return [jax.tree.map(lambda leaf, k=k: leaf[k], arrays) for k in range(len(self._tasks))]

    def each_metrics(self, metrics: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
        """Returns the metrics `[steps]` of each run, from those of all, `[steps, K]`."""
        return [
            {name: values[:, k] for name, values in metrics.items()}
            for k in range(len(self._tasks))
        ]

    def over(self, function: Function) -> Function:
        """Returns the function mapped over the leading axis K."""
        return jax.vmap(function)

    def program(self, step: Step) -> RunSteps:
        """Returns the jitted `run_steps` of a step, mapped over the runs."""
        return mapped_steps(step, SHARED)

    def training(self, feed: Feed, order_seeds: Sequence[int]) -> Training:
        """Returns what trains the runs, in one order if they share it, else each in its own."""
        step = self.task.train_step
        if len(set(order_seeds)) == 1:
            return Training(feed.reordered(order_seeds[0]), mapped_steps(step, SHARED, donate=True))
        # It has all of a Feed but `reordered`: its orders are given.
        ordered = cast(Feed, OrderedFeed(feed, order_seeds))
        return Training(ordered, mapped_steps(step, OWN_ORDER, donate=True))


Engine = Plain | Mapped


def _filled(items: Sequence[Item], mesh: Mesh | None) -> list[Item]:
    """Returns the items, and copies of the last one up to a multiple of the devices."""
    return [*items, *[items[-1]] * (-len(items) % axis_size(mesh, MEMBERS))]


@lru_cache(maxsize=32)
def mapped_steps(step: Step, axes: Segment, donate: bool = False) -> RunSteps:
    """Returns the jitted `run_steps` of all members at once.

    Args:
        step: The step of one member.
        axes: 0 for the fields of the segment that have a leading axis K.
        donate: Whether the memory of the carry is reused for the result.

    Returns:
        `run_steps(carry, segment, start, count, key, hyper) -> (carry, metrics)`, where carry, key
        and hyper have a leading axis K and each metric is `[steps, K]`.
    """
    mapped = jax.vmap(make_run_steps(step), (0, axes, None, None, 0, 0), (0, 1))
    segment = Segment(*cast(Any, [WHOLE if axis is None else OWN for axis in axes]))
    mapped = on_own_members(mapped, (OWN, segment, WHOLE, WHOLE, OWN, OWN))
    return jax.jit(mapped, donate_argnums=(0,) if donate else ())


class OrderedFeed:
    """The batches of K members that draw the same images, each in its own order.

    Args:
        feed: The images; they must lie on the device.
        seeds: The seeds of the members' orders.
    """

    def __init__(self, feed: Feed, seeds: Sequence[int]) -> None:
        if not isinstance(feed, ResidentFeed):
            raise UserError(
                "config.sweep.same_batches is off, and members that are trained together then "
                "need the images on the device: set config.data.resident to 'always', or "
                "config.sweep.schedule to 'in_turn'"
            )
        self._feeds = [feed.reordered(seed) for seed in _filled(seeds, feed.mesh)]
        self.steps_per_epoch, self.seconds_waited = feed.steps_per_epoch, 0.0
        self.mesh = feed.mesh

    def segments(self, epoch: int, start: int = 0) -> Iterator[Segment]:
        """Yields segments with rows `[K, S, B]`."""
        for some in zip(*(feed.segments(epoch, start) for feed in self._feeds), strict=True):
            yield some[0]._replace(rows=jnp.stack([segment.rows for segment in some]))


def pad_latent(tree: Any, shapes: Any, z_dim: int) -> Any:
    """Inserts zeros for the latent dimensions that a smaller model lacks.

    They follow the dimensions it has: columns of the kernels and biases of mean and log_var, rows
    of the decoder's first kernel (before the rows of a condition). A member padded so and masked
    by `z_mask` computes what it computes alone, and no gradient reaches the zeros.

    Args:
        tree: Arrays of a model with `z_dim` latent dimensions, such as a `TrainState`.
        shapes: The same tree for the larger model.
        z_dim: Z of the smaller model.

    Returns:
        The tree with the shapes of `shapes`; leaves of equal shape are returned as they are.
    """

    def pad(leaf: Any, wanted: Any) -> Any:
        if leaf.shape == wanted.shape:
            return leaf
        axis = _differing_axis(leaf, wanted)
        missing = wanted.shape[axis] - leaf.shape[axis]
        zeros = np.zeros((*leaf.shape[:axis], missing, *leaf.shape[axis + 1 :]), leaf.dtype)
        head, tail = np.split(np.asarray(leaf), [z_dim], axis)
        return np.concatenate([head, zeros, tail], axis)

    return jax.tree.map(pad, tree, shapes)


def unpad_latent(tree: Any, shapes: Any, z_dim: int) -> Any:
    """Undoes `pad_latent`: `shapes` and `z_dim` are those of the smaller model."""

    def unpad(leaf: Any, wanted: Any) -> Any:
        if leaf.shape == wanted.shape:
            return leaf
        axis = _differing_axis(leaf, wanted)
        extra = leaf.shape[axis] - wanted.shape[axis]
        return np.delete(np.asarray(leaf), np.s_[z_dim : z_dim + extra], axis)

    return jax.tree.map(unpad, tree, shapes)


def _differing_axis(leaf: Any, wanted: Any) -> int:
    pairs = zip(leaf.shape, wanted.shape, strict=True)
    (axis,) = (axis for axis, (old, new) in enumerate(pairs) if old != new)
    return axis
