"""Bounds on the log-likelihood: ELBO and importance-weighted bound, any number of samples.

`log p(x) >= E log 1/k sum_i w_i`, with `w_i = p(x|z_i) p(z_i) / q(z_i|x)` and `z_i ~ q(z|x)`; k = 1
is the ELBO, and more samples come closer (Burda, Grosse, Salakhutdinov, "Importance weighted
autoencoders", ICLR 2016). Samples are streamed: memory depends neither on their number nor on that
of the images, and only five numbers an image reach the host.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.losses import Objective, gaussian_kl, reconstruction_nll
from vae_jax.models.vae import VAE, logits_of
from vae_jax.progress import Advance, progress
from vae_jax.run import Subject, encode_batch, in_batches
from vae_jax.streams import make_key
from vae_jax.types import UserError

CHUNK = 8  # samples of each image that are decoded together
CHUNKS_A_CALL = 32  # chunks between two reports of progress


class ImageBounds(NamedTuple):
    """Of each image, in nats.

    Attributes:
        recon: `[N]`, mean over samples of -log p(x|z).
        kl: `[N]`, KL(q(z|x) || N(0, I)).
        weighted: `[N]`, logarithm of the mean importance weight.
        error: `[N]`, standard error of `weighted` from its samples, by the delta method.
        effective: `[N]`, effective number of samples, `(sum w)^2 / sum w^2`.
    """

    recon: np.ndarray
    kl: np.ndarray
    weighted: np.ndarray
    error: np.ndarray
    effective: np.ndarray


class _Sums(NamedTuple):
    """Running sums over samples, `[B]` each; weights are relative to the largest so far."""

    largest: jax.Array
    total: jax.Array
    squares: jax.Array
    recon: jax.Array  # mean, not sum: 5,000 large numbers would cost float32 its digits


def image_bounds(
    subject: Subject, samples: int, seed: int = 0, *, chunk: int = CHUNK
) -> ImageBounds:
    """ELBO terms and importance-weighted bound of every image.

    Sample j of image i depends on (seed, i, j) alone, so more samples extend fewer.

    Args:
        subject: model and images; its objective must define a likelihood.
        samples: k, posterior samples an image.
        seed: of the samples.
        chunk: samples decoded together; changes the result by rounding only.

    Returns:
        Numbers for each image; with one sample, `error` is NaN.

    Raises:
        UserError: no samples, or an objective without likelihood.
    """
    if samples < 1:
        raise UserError(f"A bound needs at least 1 sample, but got {samples}")
    if not subject.objective.has_elbo or subject.objective.likelihood == "optimal_sigma":
        raise UserError(
            f"likelihood {subject.objective.likelihood!r} defines no density of an image by "
            "itself: there is no bound"
        )
    images = len(subject.images)
    with progress(images * samples, "Likelihood", "samples") as advance:
        program = partial(_batch_bounds, subject, make_key(seed), samples, chunk, advance)
        return ImageBounds(*in_batches(program, subject.images, np.arange(images), subject.labels))


def _batch_bounds(
    subject: Subject,
    key: jax.Array,
    samples: int,
    chunk: int,
    advance: Advance,
    images: np.ndarray,
    positions: np.ndarray,
    labels: np.ndarray | None,
) -> tuple[np.ndarray, ...]:
    """`ImageBounds` of one batch."""
    _, *prepared = encode_batch(
        subject.model, subject.stage, subject.variables, subject.key, images, positions, labels
    )
    count = len(images)
    sums = _Sums(jnp.full(count, -jnp.inf), *(jnp.zeros(count) for _ in range(3)))
    chunks = -(-samples // chunk)
    real = min(count, max(1, len(subject.images) - int(positions[0])))
    for first in range(0, chunks, CHUNKS_A_CALL):
        last = min(first + CHUNKS_A_CALL, chunks)
        sums = _accumulate(
            subject.model, subject.objective, chunk, subject.variables, key, sums, *prepared,
            positions, labels, first, last, samples,
        )  # fmt: skip
        jax.block_until_ready(sums)
        advance(real * (min(last * chunk, samples) - first * chunk))
    largest, total, squares, recon = (np.asarray(part, np.float64) for part in sums)
    kl = np.asarray(gaussian_kl(*prepared[1:]), np.float64)
    effective = total**2 / squares
    error = np.full(count, np.nan)
    if samples > 1:
        error = np.sqrt(np.maximum(samples / effective - 1, 0) / (samples - 1))
    return recon, kl, largest + np.log(total / samples), error, effective


@partial(jax.jit, static_argnums=(0, 1, 2))
def _accumulate(
    model: VAE,
    objective: Objective,
    chunk: int,
    variables: Any,
    key: jax.Array,
    sums: _Sums,
    targets: jax.Array,
    mean: jax.Array,
    log_var: jax.Array,
    positions: jax.Array,
    labels: jax.Array | None,
    first: int,
    last: int,
    samples: int,
) -> _Sums:
    """Add the chunks `first` to `last - 1` of samples to the sums."""
    batch, z_dim = mean.shape

    def repeat(x: jax.Array) -> jax.Array:
        return jnp.repeat(x, chunk, axis=0)

    def draw(position: jax.Array, sample: jax.Array) -> jax.Array:
        own = jax.random.fold_in(jax.random.fold_in(key, position), sample)
        return jax.random.normal(own, (z_dim,), mean.dtype)

    def add(index: jax.Array, sums: _Sums) -> _Sums:
        numbers = index * chunk + jnp.arange(chunk)
        noise = jax.vmap(lambda p: jax.vmap(lambda s: draw(p, s))(numbers))(positions)
        z = mean[:, None, :] + jnp.exp(log_var / 2)[:, None, :] * noise
        flat = z.reshape(batch * chunk, z_dim)
        repeated = None if labels is None else repeat(labels)
        logits = logits_of(model, variables, flat, repeated)
        nll = reconstruction_nll(objective, logits, repeat(targets), jnp.ones(batch * chunk))
        nll = nll.reshape(batch, chunk)
        ratio = 0.5 * jnp.sum(jnp.square(noise) - jnp.square(z) + log_var[:, None, :], axis=-1)
        counts = (numbers < samples)[None, :]
        log_weight = jnp.where(counts, ratio - nll, -jnp.inf)
        return _added(sums, log_weight, nll, counts, index * chunk)

    return jax.lax.fori_loop(first, last, add, sums)


def _added(
    sums: _Sums, log_weight: jax.Array, nll: jax.Array, counts: jax.Array, before: jax.Array
) -> _Sums:
    """The sums with `[B, chunk]` more samples, `before` of which were added already."""
    largest = jnp.maximum(sums.largest, jnp.max(log_weight, axis=1))
    scale = jnp.exp(sums.largest - largest)
    weight = jnp.exp(log_weight - largest[:, None])
    new = jnp.sum(counts)
    mean = jnp.sum(jnp.where(counts, nll, 0), axis=1) / new
    return _Sums(
        largest,
        sums.total * scale + jnp.sum(weight, axis=1),
        sums.squares * scale**2 + jnp.sum(weight**2, axis=1),
        sums.recon + (mean - sums.recon) * new / (before + new),
    )


def summary(bounds: ImageBounds, samples: int, objective: Objective, pixels: int) -> dict:
    """Means over images, under the names that the likelihood earns.

    Args:
        bounds: of `image_bounds`.
        samples: k.
        objective: Bernoulli bounds are named `elbo` and `iw_bound`; those of a Gaussian, which
            are densities on [0, 1] pixels, `log_density_bound` and `iw_log_density_bound`, also
            in bits per dimension of that density (neither dequantised nor discretised).
        pixels: H W C.

    Returns:
        Nats per image, each with its standard error over images; `iw_sampling_error` is the part
        of the error that more samples would remove, `iw_effective_samples` the mean number of
        samples that carry the weight.
    """
    elbo = -(bounds.recon + bounds.kl)
    density = objective.likelihood != "bernoulli"
    names = ("log_density_bound", "iw_log_density_bound") if density else ("elbo", "iw_bound")
    result = {"recon_nats": float(bounds.recon.mean()), "kl": float(bounds.kl.mean())}
    for name, values in zip(names, (elbo, bounds.weighted), strict=True):
        result[name] = float(values.mean())
        result[f"{name}_standard_error"] = _standard_error(values)
        if density:
            result[f"{name}_bits_per_dim"] = float(values.mean() / (pixels * math.log(2)))
    result["iw_samples"] = samples
    result["iw_sampling_error"] = float(np.sqrt(np.sum(bounds.error**2)) / len(elbo))
    result["iw_effective_samples"] = float(bounds.effective.mean())
    return result


def _standard_error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan
