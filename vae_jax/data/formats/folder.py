"""Prepares a folder or zip archive of JPEG and PNG files into a store."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from vae_jax.data.store.decoding import Job
from vae_jax.data.store.preparation import Annotations, BadFiles, build_store
from vae_jax.data.store.reading import TEST, TRAIN, Store
from vae_jax.data.store.sources import IMAGE_NAMES, list_source

TEST_FRACTION = 0.1


def prepare(source: str | Path, out: str | Path, size: int) -> Store:
    """Prepares every JPEG and PNG below a folder (or in a zip archive), a tenth of them for test.

    Args:
        source: A folder or zip archive; files are named by their path below it.
        out: The directory of the store.
        size: The height and width of the images in pixels; centred squares are resized to it.

    Raises:
        UserError: A file that cannot be used, by name; see `build_store`.
    """
    files = list_source(source, IMAGE_NAMES, nested=True)
    return build_store(
        files,
        Path(out),
        Job(str(files.root), files.is_zip, size, "square", ("JPEG", "PNG")),
        lambda: by_fraction([member.name for member in files.members]),
        BadFiles(),
    )


def by_fraction(names: list[str]) -> Annotations:
    """Assigns a tenth of the files, by hash of the name, to testing, and the others to training."""
    digests = [hashlib.sha256(name.encode(errors="surrogateescape")).digest() for name in names]
    count = max(1, round(TEST_FRACTION * len(names))) if len(names) > 1 else 0
    splits = np.full(len(names), TRAIN, np.uint8)
    splits[np.argsort(np.array(digests, dtype="S32"), kind="stable")[:count]] = TEST
    rule = (
        f"fraction: the {count} files with the lowest SHA-256 of their name are test, others train"
    )
    return Annotations(splits, rule)
