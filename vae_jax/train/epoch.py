"""Runs many steps in one program, and adds up what they measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax import devices
from vae_jax.data.feeds import Feed, Segment
from vae_jax.devices import in_mesh, place, split, whole
from vae_jax.train.state import Hyper
from vae_jax.train.step import Step
from vae_jax.types import Batch

# The most steps of one call of a program; more would save no more time of the host.
MAX_STEPS_A_CALL = 256
# How long a call takes at most: progress and stop signals wait for its end.
CALL_SECONDS = 0.4

RunSteps = Callable[..., tuple[Any, dict[str, jax.Array]]]


def make_run_steps(step: Step) -> RunSteps:
    """Builds the program that takes `count` steps over a segment; the caller applies `jit`.

    The count is traced: however an epoch is divided into calls, every step runs the same compiled
    code, so that the division does not change a bit of the result.

    Args:
        step: A step of training, evaluation or statistics.

    Returns:
        `run_steps(carry, segment, start, count, key, hyper) -> (carry, metrics)`, where each
        metric is `[MAX_STEPS_A_CALL]` and holds its first `count` entries.
    """

    traced_once = jax.jit(step)

    def run_steps(
        carry: Any,
        segment: Segment,
        start: jax.Array,
        count: jax.Array,
        key: jax.Array,
        hyper: Hyper,
    ) -> tuple[Any, dict[str, jax.Array]]:
        def batch_at(i: jax.Array) -> Batch:
            rows = i if segment.rows is None else segment.rows[i]
            labels = None if segment.labels is None else segment.labels[rows]
            return split(Batch(segment.images[rows], segment.weights[i], labels))

        def body(i: jax.Array, loop: tuple[Any, Any]) -> tuple[Any, Any]:
            carry, buffer = loop
            carry, metrics = traced_once(carry, batch_at(start + i), key, hyper)
            return carry, jax.tree.map(lambda b, m: b.at[i].set(m), buffer, metrics)

        shapes = jax.eval_shape(lambda c: traced_once(c, batch_at(start), key, hyper)[1], carry)
        buffer = jax.tree.map(lambda s: jnp.zeros((MAX_STEPS_A_CALL, *s.shape), s.dtype), shapes)
        return whole(jax.lax.fori_loop(0, count, body, (carry, buffer)))

    return run_steps


@lru_cache(maxsize=32)
def compiled_steps(step: Step, donate: bool = False) -> RunSteps:
    """Returns the jitted `run_steps` of a step; runs that share the step share what was compiled.

    Args:
        step: A step of training, evaluation or statistics.
        donate: Whether the memory of the carry is reused for the result.
    """
    return jax.jit(make_run_steps(step), donate_argnums=(0,) if donate else ())


class Pace:
    """Chooses the number of steps of each call by how long the last one took."""

    def __init__(self) -> None:
        self._steps = 1
        self._calls = 0

    def count(self, remaining: int) -> int:
        """Returns the steps of the next call, at most `remaining`; the same in all processes."""
        return devices.least(min(self._steps, remaining, MAX_STEPS_A_CALL))

    def record(self, steps: int, seconds: float) -> None:
        """Adapts to a call of `steps` that took `seconds`."""
        self._calls += 1
        if self._calls == 1:
            return  # The first call includes the compilation.
        fitting = int(CALL_SECONDS * steps / max(seconds, 1e-9))
        self._steps = max(1, min(fitting, 4 * self._steps, MAX_STEPS_A_CALL))


def run_epoch(
    program: RunSteps,
    carry: Any,
    feed: Feed,
    key: jax.Array,
    hyper: Hyper,
    pace: Pace,
    epoch: int = 0,
    start: int = 0,
) -> Iterator[tuple[Any, dict[str, np.ndarray]]]:
    """Takes the steps of an epoch, one call of the program after the other.

    Args:
        program: The jitted `run_steps`.
        carry: The state to start from.
        feed: The batches.
        key: The run key.
        hyper: The traced hyperparameters.
        pace: Chooses the length of the calls.
        epoch: The number of the epoch, which determines the order of the images.
        start: The first batch to take.

    Yields:
        After each call the carry and the metrics `[count]` of its steps, on the host.
    """
    carry, key, hyper = place((carry, key, hyper), feed.mesh)
    for segment in feed.segments(epoch, start):
        first = segment.first
        while first < segment.end:
            count = pace.count(segment.end - first)
            began = time.monotonic()
            arguments = (carry, segment, np.int32(first), np.int32(count), key, hyper)
            try:
                with in_mesh(feed.mesh):
                    carry, metrics = jax.block_until_ready(program(*arguments))
            except FloatingPointError:
                # Of jax_debug_nans, which names the loop; without jit it names the operation.
                with jax.disable_jit():
                    program(*arguments)
                raise
            pace.record(count, time.monotonic() - began)
            first += count
            yield carry, {name: np.asarray(values)[:count] for name, values in metrics.items()}


class EpochMeans:
    """The means of an epoch: of the values of its batches, weighted by their images.

    Sums are float64 and added step by step, so that an epoch that was interrupted and resumed has
    the means of an uninterrupted one, bit for bit. Non-finite steps are left out and counted.
    """

    def __init__(self, saved: dict[str, float] | None = None) -> None:
        self._sums = dict(saved or {"images": 0.0, "skipped": 0.0})

    def add(self, metrics: dict[str, np.ndarray]) -> None:
        """Adds the metrics `[count]` of some steps, in their order."""
        names = [name for name in metrics if name not in ("images", "finite")]
        finite = metrics.get("finite", np.ones_like(metrics["images"], bool))
        for i, images in enumerate(metrics["images"].astype(np.float64)):
            if not finite[i]:
                self._sums["skipped"] += 1.0
                continue
            self._sums["images"] += float(images)
            for name in names:
                value = float(metrics[name][i]) * float(images)
                self._sums[name] = self._sums.get(name, 0.0) + value

    def saved(self) -> dict[str, float]:
        """Returns the sums, to be kept in a checkpoint."""
        return dict(self._sums)

    def means(self) -> dict[str, float]:
        """Returns the mean of every metric, and the numbers of `images` and `skipped` steps."""
        sums = dict(self._sums)
        images, skipped = sums.pop("images"), sums.pop("skipped")
        means = {name: total / images for name, total in sums.items()} if images else {}
        return means | {"images": int(images), "skipped": int(skipped)}
