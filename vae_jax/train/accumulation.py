"""Computes the gradient of a batch from micro-batches, which need less memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vae_jax.devices import split
from vae_jax.streams import stream_key

# (params, batch_stats, examples, key, step, hyper) -> ((loss, (metrics, batch_stats)), gradient)
Gradient = Callable[..., tuple[tuple[jax.Array, tuple[Any, Any]], Any]]


def accumulated(gradient: Gradient, count: int, momentum: float) -> Gradient:
    """Returns a function that computes the same gradient from one micro-batch after the other.

    Loss, metrics and gradient are the means over micro-batches weighted by their images: those of
    the whole batch, but for what is no mean over images. Batch norm normalises by the statistics
    of each micro-batch, free bits and 'optimal_sigma' take their means over it; dropout draws anew
    in each. The running statistics move once, towards the statistics of the whole batch.

    Args:
        gradient: Computes the gradient of a batch.
        count: k, the number of micro-batches; it divides the batch.
        momentum: The momentum of the running statistics.

    Returns:
        A function with the same arguments and results.
    """

    def of_batch(
        params: Any, batch_stats: Any, examples: Any, key: jax.Array, step: jax.Array, hyper: Any
    ) -> tuple[tuple[jax.Array, tuple[Any, Any]], Any]:
        images = jnp.sum(examples.weights)
        key = stream_key(key, "micro_batch")

        def of_part(i: jax.Array, part: Any) -> Any:
            own_key = jax.random.fold_in(key, i)
            return gradient(params, batch_stats, split(part), own_key, step, hyper)

        def add(means: Any, numbered: tuple[jax.Array, Any]) -> tuple[Any, tuple[jax.Array, Any]]:
            i, part = numbered
            (loss, (metrics, stats)), grads = of_part(i, part)
            share = jnp.sum(part.weights) / images  # 0 perhaps in the last, smaller batch.
            means = jax.tree.map(
                lambda m, v: m + jnp.where(share > 0, v * share, 0).astype(m.dtype),
                means,
                (loss, metrics, grads),
            )
            return means, (share, stats)

        parts = micro_batches(examples, count)
        first = jax.tree.map(lambda x: x[0], parts)
        (loss, (metrics, _)), grads = jax.eval_shape(of_part, jnp.int32(0), first)
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), (loss, metrics, grads))
        numbered = (jnp.arange(count), parts)
        (loss, metrics, grads), (shares, stats) = jax.lax.scan(add, zeros, numbered)
        return (loss, (metrics, pooled_running(stats, shares, momentum))), grads

    return of_batch


def pooled_running(moved: Any, shares: jax.Array, momentum: float) -> Any:
    """Returns the running statistics after a batch from where each micro-batch moves them.

    The variance of a batch is the mean variance within its parts plus the variance of their means.

    Args:
        moved: Running `mean` and `var` `[k, C]` after each micro-batch alone, all from the same
            start; leaves of a tree.
        shares: `[k]`, the part of the batch's images that is in each; they add up to 1.
        momentum: m of `m old + (1 - m) new`.

    Returns:
        The tree with `[C]`.
    """

    def mean_of(values: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(shares[:, None] > 0, values * shares[:, None], 0), axis=0)

    def pool(own: Any) -> Any:
        if "var" not in own:
            return {name: pool(child) for name, child in own.items()}
        mean, var = mean_of(own["mean"]), mean_of(own["var"])
        if momentum < 1:  # Means have moved (1 - m) of their way, and so has what lies between.
            var += mean_of(jnp.square(own["mean"] - mean[None, :])) / (1 - momentum)
        return {"mean": mean, "var": var}

    return pool(moved)


def micro_batches(tree: Any, count: int) -> Any:
    """Returns `[B, ...]` as `[k, B / k, ...]`; micro-batch j has the images j, j + k, j + 2 k, ...

    So each device of a mesh cuts its own part of the batch, and no image travels.
    """
    return jax.tree.map(
        lambda x: jnp.moveaxis(x.reshape(-1, count, *x.shape[1:]), 1, 0),
        tree,
    )
