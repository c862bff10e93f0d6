"""Where images are compared as points: spaces that need no weights but the model's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from vae_jax.run import Subject, encode, in_batches
from vae_jax.types import UserError

SIDE = 8  # pixels
INCEPTION_FEATURES = 2048


def encoder_mean(subject: Subject, images: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
    """Posterior means `[N, Z]` of the judged model's own encoder.

    Directions that the encoder ignores do not count, so models cannot be ranked by it.
    """
    return encode(subject.model, subject.variables, images, labels)[0]


def small_pixels(subject: Subject, images: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
    """Images averaged down to 8 x 8 pixels, `[N, 64 C]` in [0, 1]: colour and layout."""
    del subject, labels

    def shrink(batch: jax.Array) -> tuple[jax.Array]:
        scale = 255.0 if batch.dtype == np.uint8 else 1.0
        shape = (len(batch), SIDE, SIDE, batch.shape[-1])
        small = jax.image.resize(batch.astype(np.float32) / scale, shape, "linear", antialias=True)
        return (small.reshape(len(batch), -1),)

    return in_batches(jax.jit(shrink), images)[0]


FEATURE_SPACES: dict[str, Callable[[Subject, np.ndarray, np.ndarray | None], np.ndarray]] = {
    "encoder_mean": encoder_mean,
    "pixels_8x8": small_pixels,
}


def inception_activations(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """A user's own Inception activations of real and generated images.

    Args:
        path: .npz with `real` `[N, 2048]` and `fake` `[M, 2048]`, the pool3 features of the
            network that FID is defined by (Heusel et al. 2017).

    Returns:
        The two arrays.

    Raises:
        UserError: not such a file.
    """
    try:
        with open(path, "rb") as handle, np.load(handle, allow_pickle=False) as file:
            real, fake = file["real"], file["fake"]
    except Exception as error:  # zipfile, zlib and NumPy raise many kinds for broken files.
        raise UserError(
            f"--inception={path} must be a .npz with the arrays real and fake ({error})"
        ) from None
    for name, array in (("real", real), ("fake", fake)):
        if array.ndim != 2 or array.shape[1] != INCEPTION_FEATURES:
            raise UserError(
                f"--inception={path}: {name} is {array.shape}, but FID is defined by the "
                f"{INCEPTION_FEATURES} pool3 features of Inception, [N, {INCEPTION_FEATURES}]"
            )
    return real, fake
