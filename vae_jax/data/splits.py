"""The one way from `config.data` to the training and the test split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vae_jax.data import celeba, cifar, faces, idx, store
from vae_jax.types import ImageSet, UserError

# Data sets that are read into memory from files of their own.
ARRAYS = {"mnist": idx.open_mnist, "cifar10": cifar.open_cifar10}


class Splits(NamedTuple):
    """Training and test images of one data set."""

    train: ImageSet
    test: ImageSet


def open_splits(data: Mapping[str, Any]) -> Splits:
    """Open a data set, preparing it first where that has not been done.

    Args:
        data: the fields of `config.data`.

    Returns:
        The two splits, cut to `train_count` and `test_count` images.

    Raises:
        UserError: nothing usable at the path, or images of another shape than the config says.
    """
    if data["name"] in ARRAYS:
        sets = ARRAYS[data["name"]](data["path"])
        train, test = sets["train"], sets["test"]
    else:
        prepared = store.open_store(_prepared(data))
        train, test = prepared.split("train"), prepared.split("test")
    for split in (train, test):
        if split.image_shape != tuple(data["image_shape"]):
            raise UserError(
                f"config.data.image_shape is {tuple(data['image_shape'])}, but the images in "
                f"{data['path']} are {split.image_shape}; set it to that, or prepare them anew"
            )
    train = first_images(train, data["train_count"], "config.data.train_count")
    test = first_images(test, data["test_count"], "config.data.test_count")
    if data.get("binarize", "none") == "fixed":
        seed = data["generate_seed"]
        train, test = fixed_binarized(train, (seed, 0)), fixed_binarized(test, (seed, 1))
    return Splits(train, test)


def fixed_binarized(split: ImageSet, seed: tuple[int, ...]) -> ImageSet:
    """Black and white images, the same ones every time: each pixel by its grey level's Bernoulli.

    Args:
        split: grey images.
        seed: of the draw; image i depends on (seed, i) alone.

    Returns:
        The split with images of 0 and 255 in memory.
    """
    generator = np.random.default_rng(seed)
    images = np.empty((len(split), *split.image_shape), np.uint8)
    for i in range(len(split)):
        image = split.images[split.rows[i]]
        # A pixel of 255 is always white, one of 0 never.
        images[i] = np.where(generator.random(image.shape) * 255 < image, 255, 0)
    return replace(split, images=images, rows=np.arange(len(split)))


def _prepared(data: Mapping[str, Any]) -> Path:
    path = Path(data["path"])
    height, width, channels = data["image_shape"]
    if height != width or channels != 3:
        raise UserError(
            f"config.data.image_shape is {tuple(data['image_shape'])}, but data set "
            f"{data['name']!r} gives square colour images: (size, size, 3)"
        )
    if data["name"] == "faces":
        home = path / f"{data['generate_count']}-seed{data['generate_seed']}"
        source, out = home / "jpeg", home / str(height)
        if not (out / store.MANIFEST).exists():
            faces.write_faces(source, data["generate_count"], data["generate_seed"])
            celeba.prepare(source, out, height)
        return out
    if (path / store.MANIFEST).exists():
        return path
    if not path.exists():
        raise UserError(
            f"config.data.path is {str(path)!r}, which does not exist; give a prepared store, "
            "a folder of images or a zip"
        )
    out = path.with_name(f"{path.stem}-{height}")
    if not (out / store.MANIFEST).exists():
        prepare = celeba.prepare if data["name"] == "celeba" else celeba.prepare_folder
        prepare(path, out, height)
    return out


def first_images(split: ImageSet, count: int, field: str) -> ImageSet:
    """The first `count` images of a split, or all of them for 0; `field` names it in errors."""
    if count > len(split):
        raise UserError(f"{field} is {count}, but there are only {len(split)} images")
    return piece_of(split, 0, count) if count else split


def piece_of(split: ImageSet, start: int, count: int) -> ImageSet:
    """At most `count` images of a split, from position `start`."""
    piece = slice(start, start + count)
    return replace(
        split,
        rows=split.rows[piece],
        labels=None if split.labels is None else split.labels[piece],
        file_names=split.file_names[piece],
    )


def condition_names(data: Mapping[str, Any], split: ImageSet) -> tuple[str, ...]:
    """Names of the L entries of the condition that the model is told; empty for none."""
    if data["condition"] == "none":
        return ()
    return tuple(data["attributes"]) or split.label_names


def condition_labels(data: Mapping[str, Any], split: ImageSet) -> np.ndarray | None:
    """What the model is told about each image of a split.

    Args:
        data: the fields of `config.data`; `condition` says what is used.
        split: its labels.

    Returns:
        `[N, L]` float32: one-hot classes, or the chosen attributes as 0 and 1; None for none.

    Raises:
        UserError: the split has no such labels; the sentence lists the valid names.
    """
    if data["condition"] == "none":
        return None
    wanted_dimensions = 1 if data["condition"] == "class" else 2
    if split.labels is None or split.labels.ndim != wanted_dimensions:
        raise UserError(
            f"config.data.condition is {data['condition']!r}, but data set {data['name']!r} at "
            f"{data['path']} has no such labels"
        )
    if data["condition"] == "class":
        return np.eye(len(split.label_names), dtype=np.float32)[split.labels]
    columns = [attribute_column(split, name) for name in data["attributes"]]
    return split.labels[:, columns].astype(np.float32)


def attribute_column(split: ImageSet, name: str) -> int:
    """The column of attribute `name`; UserError listing the valid names if there is none."""
    if name not in split.label_names:
        raise UserError(
            f"{name!r} is not an attribute of this data set; valid are "
            f"{', '.join(split.label_names)}"
        )
    return split.label_names.index(name)
