"""Any folder or zip archive of JPEG and PNG files as a store of cropped and resized images."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from vae_jax.data.store.decoding import Crop, Job
from vae_jax.data.store.preparation import Annotations, BadFiles, build_store
from vae_jax.data.store.reading import TEST, TRAIN, Store
from vae_jax.data.store.sources import IMAGE_NAMES, list_source
from vae_jax.types import UserError

TEST_FRACTION = 0.1


def prepare(
    source: str | Path,
    out: str | Path,
    size: int,
    *,
    crop: Crop = "square",
    on_bad_file: str = "stop",
    max_bad: int = 100,
    workers: int | None = None,
) -> Store:
    """Prepares every JPEG and PNG below a folder (or in a zip archive), a tenth of them for test.

    Files are named by their path below `source`; arguments and errors as in `celeba.prepare`.
    """
    files = list_source(source, IMAGE_NAMES, nested=True)
    return build_store(
        files,
        Path(out),
        Job(str(files.root), files.is_zip, size, checked_crop(crop), ("JPEG", "PNG")),
        lambda: by_fraction([member.name for member in files.members]),
        BadFiles(on_bad_file, max_bad),
        workers,
    )


def checked_crop(crop: Crop) -> Crop:
    """Returns the crop as it was asked for, or raises a UserError."""
    if crop in ("auto", "square"):
        return crop
    if isinstance(crop, str) or len(crop) != 4 or not all(type(edge) is int for edge in crop):
        raise UserError(
            f"crop is {crop!r}, expected 'auto', 'square' or (left, top, right, bottom)"
        )
    left, top, right, bottom = crop
    return left, top, right, bottom


def by_fraction(names: list[str]) -> Annotations:
    """Takes a tenth of the N files, by hash of the name, for testing, the others for training."""
    digests = [hashlib.sha256(name.encode(errors="surrogateescape")).digest() for name in names]
    count = max(1, round(TEST_FRACTION * len(names))) if len(names) > 1 else 0
    splits = np.full(len(names), TRAIN, np.uint8)
    splits[np.argsort(np.array(digests, dtype="S32"), kind="stable")[:count]] = TEST
    rule = (
        f"fraction: the {count} files with the lowest SHA-256 of their name are test, others train"
    )
    return Annotations(splits, rule)
