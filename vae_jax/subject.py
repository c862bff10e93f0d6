"""A trained model together with the images that it is judged by."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.data.inputs import InputStage, evaluation_pair, make_input_stage
from vae_jax.data.splits import condition_labels, first_images
from vae_jax.losses import Objective
from vae_jax.models.vae import VAE, posterior_of
from vae_jax.run import Run, decode, in_batches, run_splits
from vae_jax.streams import make_key, numbered_keys, stream_key
from vae_jax.types import ImageSet, UserError

SPLITS = ("test", "train")


class Subject(NamedTuple):
    """A trained model and the images that it is judged by.

    Attributes:
        model: The module.
        variables: Parameters and statistics of both networks.
        objective: The objective whose likelihood the bounds use.
        stage: How inputs and targets are made of images.
        key: The run's key of evaluation: image i is corrupted and binarised in the same way always.
        images: `[N, H, W, C]` uint8.
        labels: `[N, L]` condition, or None.
        split: The images as a set with attributes and classes, in the same order.
    """

    model: VAE
    variables: Any
    objective: Objective
    stage: InputStage
    key: jax.Array
    images: np.ndarray
    labels: np.ndarray | None
    split: ImageSet


class LabelledImages(NamedTuple):
    """Real or generated images, with the condition of each.

    Attributes:
        images: `[N, H, W, C]`, uint8 or in [0, 1].
        labels: `[N, L]` condition, or None.
    """

    images: np.ndarray
    labels: np.ndarray | None


def open_subject(run: Run[VAE], split: str = "test", count: int = 0) -> Subject:
    """Returns the model of a run with the first images of a split.

    Args:
        run: A run opened by `open_run`.
        split: One of `SPLITS`.
        count: The largest number of images; 0 for all.

    Raises:
        UserError: The split is unknown, or the data cannot be opened.
    """
    if split not in SPLITS:
        raise UserError(f"--split is {split!r}; valid are {', '.join(SPLITS)}")
    chosen = getattr(run_splits(run), split)
    return make_subject(run, first_images(chosen, min(count, len(chosen)), "--count"))


def make_subject(run: Run[VAE], split: ImageSet) -> Subject:
    """Returns the model of a run with the images of a split of its data, or of a part of one."""
    loss = run.config.loss
    return Subject(
        run.model,
        run.variables,
        Objective(loss.likelihood, loss.reduction, loss.free_bits, loss.sigma),
        make_input_stage(run.config.data),
        stream_key(make_key(run.config.seed), "evaluation"),
        split.take(np.arange(len(split))),
        condition_labels(run.config.data, split),
        split,
    )


class Seen(NamedTuple):
    """Images as the model was shown them.

    Attributes:
        inputs: `[N, H, W, C]` float32 in [0, 1], what was encoded.
        targets: `[N, H, W, C]` float32 in [0, 1], what has to be reconstructed.
        mean: `[N, Z]` posterior mean.
        log_var: `[N, Z]` logarithm of the posterior variance.
    """

    inputs: np.ndarray
    targets: np.ndarray
    mean: np.ndarray
    log_var: np.ndarray


def encode_subject(subject: Subject, first: int = 0) -> Seen:
    """Encodes all images of the subject as validation shows them to the model.

    Args:
        subject: The model and its images.
        first: The position of its first image in the split, where it holds only a part of one.
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
    """Returns inputs and targets `[B, H, W, C]`, mean and log_var `[B, Z]` of a batch.

    Args:
        model: The module.
        stage: How inputs and targets are made of images.
        variables: Parameters and statistics of the encoder, or of both networks.
        key: The run's key of evaluation.
        images: `[B, H, W, C]` uint8.
        positions: `[B]` of the images in their split, one after the other.
        labels: `[B, L]` condition, or None.
    """
    inputs, targets = evaluation_pair(stage, key, images, positions[0])
    return inputs, targets, *posterior_of(model, variables, inputs, labels)


def reconstructions(
    subject: Subject, seen: Seen, chosen: np.ndarray, sample_key: jax.Array | None = None
) -> np.ndarray:
    """Decodes the codes of images.

    Args:
        subject: The model and its images.
        seen: What `encode_subject` returned for them.
        chosen: `[M]` positions of the images.
        sample_key: The key of one posterior sample per image; None decodes the mean.

    Returns:
        `[M, H, W, C]` float32 in [0, 1].
    """
    z = seen.mean[chosen]
    if sample_key is not None:
        keys = numbered_keys(sample_key, jnp.asarray(chosen))
        noise = jax.vmap(lambda k: jax.random.normal(k, z.shape[1:], jnp.float32))(keys)
        z = z + np.exp(seen.log_var[chosen] / 2) * np.asarray(noise)
    labels = None if subject.labels is None else subject.labels[chosen]
    return decode(subject.model, subject.variables, z, labels)


def decode_points(subject: Subject, z: np.ndarray) -> np.ndarray:
    """Returns images of latent points, all under the condition of the subject's first image.

    Args:
        subject: The model.
        z: `[N, Z]`.

    Returns:
        `[N, H, W, C]` float32 in [0, 1].
    """
    labels = None if subject.labels is None else np.tile(subject.labels[:1], (len(z), 1))
    return decode(subject.model, subject.variables, z.astype(np.float32), labels)


def chosen_images(count: int, among: int, seed: int, reference: bool = False) -> np.ndarray:
    """Chooses the images that a page shows.

    Args:
        count: The number of images to choose.
        among: The number of images to choose from.
        seed: The seed of the choice.
        reference: Whether to choose as the reference code does, with repetitions, by
            `RandomState(MT19937(SeedSequence(seed))).randint(0, among, count)`.

    Returns:
        `[count]` positions, at most `among` of them unless `reference`; a larger count keeps the
        first ones.
    """
    if reference:
        generator = np.random.RandomState(np.random.MT19937(np.random.SeedSequence(seed)))
        return generator.randint(0, among, count)
    return np.random.default_rng(seed).permutation(among)[:count]
