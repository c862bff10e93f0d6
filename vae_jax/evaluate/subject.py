"""A trained model together with the images it is judged by."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.data.inputs import InputStage, evaluation_pair, make_input_stage
from vae_jax.data.splits import condition_labels, first_images, open_splits
from vae_jax.latent.sampling import decode, in_batches
from vae_jax.losses import Objective
from vae_jax.models.vae import VAE, posterior_of
from vae_jax.streams import stream_key
from vae_jax.types import ImageSet, UserError
from vae_jax.workdir import Run

SPLITS = ("test", "train")


class Subject(NamedTuple):
    """What every figure is computed from.

    Attributes:
        model: the module.
        variables: of encoder and decoder.
        objective: whose likelihood the bounds use.
        stage: how inputs and targets are made of images.
        key: of evaluation, as in the run: image i is always corrupted or binarised alike.
        images: `[N, H, W, C]` uint8.
        labels: `[N, L]` condition, or None.
        split: the image set, for attributes and classes; its rows are those of `images`.
    """

    model: VAE
    variables: Any
    objective: Objective
    stage: InputStage
    key: jax.Array
    images: np.ndarray
    labels: np.ndarray | None
    split: ImageSet


def open_subject(run: Run[VAE], split: str = "test", count: int = 0) -> Subject:
    """The model of a run and the first images of a split.

    Args:
        run: of `open_run`.
        split: one of `SPLITS`.
        count: how many images, at most; 0 for all.

    Returns:
        The subject.

    Raises:
        UserError: an unknown split, or data that cannot be opened.
    """
    if split not in SPLITS:
        raise UserError(f"--split is {split!r}; valid are {', '.join(SPLITS)}")
    chosen = getattr(open_splits(run.config.data), split)
    return make_subject(run, first_images(chosen, min(count, len(chosen)), "--count"))


def make_subject(run: Run[VAE], split: ImageSet) -> Subject:
    """The model of a run and the images of a split of its data, or of a part of one."""
    loss = run.config.loss
    return Subject(
        run.model,
        run.variables,
        Objective(loss.likelihood, loss.reduction, loss.free_bits, loss.sigma),
        make_input_stage(run.config.data),
        stream_key(jax.random.key(run.config.seed), "evaluation"),
        split.take(np.arange(len(split))),
        condition_labels(run.config.data, split),
        split,
    )


class Seen(NamedTuple):
    """Images as the model was shown them.

    Attributes:
        inputs: `[N, H, W, C]` float32 in [0, 1], what was encoded.
        targets: `[N, H, W, C]` float32 in [0, 1], what has to come back.
        mean: `[N, Z]` posterior mean.
        log_var: `[N, Z]` logarithm of the posterior variance.
    """

    inputs: np.ndarray
    targets: np.ndarray
    mean: np.ndarray
    log_var: np.ndarray


def encode_subject(subject: Subject, first: int = 0) -> Seen:
    """Inputs, targets and posterior of all images of the subject.

    Args:
        subject: model and images.
        first: position of its first image in the split, where the subject holds a piece of it.

    Returns:
        What the model was shown, and its answer.
    """
    program = partial(encode_batch, subject.model, subject.stage, subject.variables, subject.key)
    positions = first + np.arange(len(subject.images))
    return Seen(*in_batches(program, subject.images, positions, subject.labels))


@partial(jax.jit, static_argnums=(0, 1))
def encode_batch(
    model: VAE,
    stage: InputStage,
    variables: Any,
    key: jax.Array,
    images: jax.Array,
    positions: jax.Array,
    labels: jax.Array | None,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Inputs and targets `[B, H, W, C]`, mean and log_var `[B, Z]` of one batch, for `in_batches`.

    Args:
        model: the module.
        stage: how inputs and targets are made.
        variables: of the encoder.
        key: of evaluation.
        images: `[B, H, W, C]` uint8.
        positions: `[B]` of the images in their split, one after the other.
        labels: `[B, L]` condition, or None.
    """
    inputs, targets = evaluation_pair(stage, key, images, positions[0])
    return inputs, targets, *posterior_of(model, variables, inputs, labels)


def reconstructions(
    subject: Subject, seen: Seen, chosen: np.ndarray, sample_key: jax.Array | None = None
) -> np.ndarray:
    """Images that come back.

    Args:
        subject: the model.
        seen: of `encode_subject`.
        chosen: `[M]` which images.
        sample_key: decode one posterior sample an image; None decodes the mean.

    Returns:
        `[M, H, W, C]` float32 in [0, 1].
    """
    z = seen.mean[chosen]
    if sample_key is not None:
        keys = jax.vmap(lambda i: jax.random.fold_in(sample_key, i))(jnp.asarray(chosen))
        noise = jax.vmap(lambda k: jax.random.normal(k, z.shape[1:]))(keys)
        z = z + np.exp(seen.log_var[chosen] / 2) * np.asarray(noise)
    labels = None if subject.labels is None else subject.labels[chosen]
    return decode(subject.model, subject.variables, z, labels)


def chosen_images(count: int, among: int, seed: int, reference: bool = False) -> np.ndarray:
    """Which images a page shows.

    Args:
        count: how many.
        among: images to choose from.
        seed: of the choice.
        reference: choose as the reference code does, with repetitions, by
            `RandomState(MT19937(SeedSequence(seed))).randint(0, among, count)`.

    Returns:
        `[count]` positions, at most `among` of them unless `reference`; a larger count keeps the
        first ones.
    """
    if reference:
        generator = np.random.RandomState(np.random.MT19937(np.random.SeedSequence(seed)))
        return generator.randint(0, among, count)
    return np.random.default_rng(seed).permutation(among)[:count]
