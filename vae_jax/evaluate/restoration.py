"""How well corrupted images are restored, beside what needs no training."""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.data.inputs import Corruption, erased_pixels, evaluation_key, luminance
from vae_jax.evaluate.restoration_baselines import baselines
from vae_jax.metrics.image_quality import WINDOW, mse, ssim
from vae_jax.models.classifier import Classifier
from vae_jax.run import Run, Subject, encode_subject, in_batches, predict, reconstructions

# An error below half a grey level is none: keeps the PSNR of equal images finite, at 54.2 dB.
MIN_MSE = (0.5 / 255.0) ** 2
CHUNK = 64  # images at a time
KEPT = "restored, kept pixels as they were"
LUMINANCE = "restored, luminance as it was"


class Score(NamedTuple):
    """Means over images.

    Attributes:
        psnr: dB, at most 54.2.
        ssim: NaN for images smaller than its window.
        psnr_erased: dB, of the erased pixels alone; NaN if there are none.
    """

    psnr: float
    ssim: float
    psnr_erased: float


class Restored(NamedTuple):
    """Images by what was done to them.

    Attributes:
        images: `[N, H, W, C]` float32 in [0, 1] by name: `clean`, `corrupted input`, `restored`,
            with what the input still tells (`KEPT`, `LUMINANCE`), and the baselines.
        erased: `[N, H, W, 1]` bool.
    """

    images: dict[str, np.ndarray]
    erased: np.ndarray


def restore(subject: Subject, mean_image: np.ndarray) -> Restored:
    """Decode the posterior means of inputs corrupted as in every evaluation of the run.

    Args:
        subject: a model of corrupted inputs, and images.
        mean_image: `[H, W, C]` float32 in [0, 1], of the training images.

    Returns:
        Images and erased pixels.
    """
    seen = encode_subject(subject)
    count = len(seen.inputs)
    restored = reconstructions(subject, seen, np.arange(count))
    erased = np.zeros((*seen.inputs.shape[:3], 1), bool)
    if subject.stage.corruption.erases:
        program = partial(_erased, subject.stage.corruption, subject.key)
        (erased,) = in_batches(program, seen.targets, np.arange(count))
    images = {"clean": seen.targets, "restored": restored}
    if erased.any():
        images[KEPT] = np.where(erased, restored, seen.inputs)
    elif subject.stage.corruption.grey:
        grey = np.asarray(luminance(jnp.asarray(restored)))
        images[LUMINANCE] = np.clip(restored - grey + seen.inputs, 0, 1)
    return Restored(images | baselines(seen.inputs, erased, mean_image), erased)


@partial(jax.jit, static_argnums=0)
def _erased(
    corruption: Corruption, key: jax.Array, targets: jax.Array, positions: jax.Array
) -> tuple[jax.Array]:
    return (erased_pixels(evaluation_key(key), targets, corruption, positions[0]),)


def scores(
    restored: Restored, judge: Run[Classifier] | None = None, classes: np.ndarray | None = None
) -> dict[str, dict[str, float]]:
    """Every kind of image against the clean ones.

    Args:
        restored: of `restore`.
        judge: a classifier, or None.
        classes: `[N]` true classes, for the judge.

    Returns:
        By name the fields of `Score` and `recognised`, the share of images in which the judge
        sees the true class; NaN where there is no such figure.
    """
    result = {}
    for name, images in restored.images.items():
        values = score(images, restored.images["clean"], restored.erased)._asdict()
        recognised = math.nan
        if judge is not None:
            recognised = float(np.mean(predict(judge, images).argmax(1) == classes))
        result[name] = values | {"recognised": recognised}
    return result


def score(images: np.ndarray, clean: np.ndarray, erased: np.ndarray) -> Score:
    """Compare with the clean images.

    Args:
        images: `[N, H, W, C]` float32 in [0, 1].
        clean: the same.
        erased: `[N, H, W, 1]` bool.

    Returns:
        PSNR (mean over images, as usual, of -10 log10 of the mean squared error), SSIM.
    """
    psnrs, ssims, hidden = [], [], []
    for start in range(0, len(images), CHUNK):
        piece = slice(start, start + CHUNK)
        x, y = jnp.asarray(images[piece]), jnp.asarray(clean[piece])
        psnrs.append(_decibels(mse(x, y)))
        if min(clean.shape[1:3]) >= WINDOW:
            ssims.append(ssim(x, y))
        errors = np.mean(np.square(images[piece] - clean[piece]), axis=-1, keepdims=True)
        count = erased[piece].sum((1, 2, 3))
        has = count > 0
        sums = (errors * erased[piece]).sum((1, 2, 3))
        hidden.append(_decibels(jnp.asarray(sums[has] / count[has])))
    return Score(_mean(psnrs), _mean(ssims), _mean(hidden))


def _decibels(errors: jax.Array) -> np.ndarray:
    return np.asarray(-10.0 * jnp.log10(jnp.maximum(errors, MIN_MSE)))


def _mean(pieces: list[np.ndarray]) -> float:
    values = np.concatenate(pieces) if pieces else np.empty(0)
    return float(values.mean()) if len(values) else math.nan
