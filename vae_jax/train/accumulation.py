"""The gradient of a batch from micro-batches, whose activations fit where the batch's do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vae_jax.mesh import split
from vae_jax.streams import stream_key

# (params, batch_stats, examples, key, step, hyper) -> ((loss, (metrics, batch_stats)), gradient)
Gradient = Callable[..., tuple[tuple[jax.Array, tuple[Any, Any]], Any]]


def accumulated(gradient: Gradient, count: int) -> Gradient:
    """The same gradient, one micro-batch after the other.

    Loss, metrics and gradient are the means over micro-batches weighted by their images: those of
    the whole batch, but for what is no mean over images. Batch norm takes the statistics of each
    micro-batch, free bits and 'optimal_sigma' their means over it; dropout draws anew in each.

    Args:
        gradient: of a batch.
        count: k; it divides the batch.

    Returns:
        A function with the same arguments and results.
    """

    def of_batch(
        params: Any, batch_stats: Any, examples: Any, key: jax.Array, step: jax.Array, hyper: Any
    ) -> tuple[tuple[jax.Array, tuple[Any, Any]], Any]:
        images = jnp.sum(examples.weights)
        key = stream_key(key, "micro_batch")

        def of_part(stats: Any, i: jax.Array, part: Any) -> Any:
            return gradient(params, stats, split(part), jax.random.fold_in(key, i), step, hyper)

        def add(carry: tuple[Any, Any], numbered: tuple[jax.Array, Any]) -> tuple[Any, None]:
            means, stats = carry
            i, part = numbered
            (loss, (metrics, new_stats)), grads = of_part(stats, i, part)
            own = jnp.sum(part.weights)  # None in the last, smaller batch of an epoch perhaps.
            means = jax.tree.map(
                lambda m, v: m + jnp.where(own > 0, v * (own / images), 0).astype(m.dtype),
                means,
                (loss, metrics, grads),
            )
            stats = jax.tree.map(lambda new, old: jnp.where(own > 0, new, old), new_stats, stats)
            return (means, stats), None

        parts = micro_batches(examples, count)
        first = jax.tree.map(lambda x: x[0], parts)
        (loss, (metrics, _)), grads = jax.eval_shape(of_part, batch_stats, jnp.int32(0), first)
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), (loss, metrics, grads))
        numbered = (jnp.arange(count), parts)
        ((loss, metrics, grads), stats), _ = jax.lax.scan(add, (zeros, batch_stats), numbered)
        return (loss, (metrics, stats)), grads

    return of_batch


def micro_batches(tree: Any, count: int) -> Any:
    """`[B, ...]` to `[k, B / k, ...]`; micro-batch j has the images j, j + k, j + 2 k, ...

    So each device of a mesh cuts its own part of the batch, and no image travels.
    """
    return jax.tree.map(
        lambda x: jnp.moveaxis(x.reshape(-1, count, *x.shape[1:]), 1, 0),
        tree,
    )
