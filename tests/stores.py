"""Stores of made-up images."""

import numpy as np

from vae_jax.data.store.reading import npy_header, open_store
from vae_jax.data.store.writing import DECODED, Contents, partial_of, seal


def write_store(directory, images, splits, labels=None, label_names=(), file_names=None):
    """Writes arrays as a store and opens it; files are named by row if nothing else is said."""
    names = [f"{row:06d}" for row in range(len(images))] if file_names is None else file_names
    partial_of(directory).mkdir()
    data = npy_header("uint8", images.shape) + images.tobytes()
    (partial_of(directory) / DECODED).write_bytes(data)
    contents = Contents(np.asarray(splits, np.uint8), labels, label_names, names, {}, {})
    seal(directory, np.ones(len(images), bool), contents)
    return open_store(directory)
