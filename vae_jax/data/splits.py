"""Opens the data set of `config.data` as its training, validation and test split."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vae_jax.data.faces.files import write_faces
from vae_jax.data.formats import celeba, cifar, folder, idx
from vae_jax.data.store.reading import MANIFEST, Store, open_store, store_beside
from vae_jax.files import reason_of
from vae_jax.types import ImageSet, UserError

# Data sets that are read into memory from files of their own.
ARRAYS = {"mnist": idx.open_mnist, "cifar10": cifar.open_cifar10}
# The seed that draws validation images from the training images, the same ones for every run.
HELD_OUT_SEED = 0


class Splits(NamedTuple):
    """The images of a data set, by their use; no image is in two splits.

    Attributes:
        train: The images that weights are fitted to.
        validation: The images by which epochs, weights and models are chosen, or None.
        test: The images that results are reported on, and nothing is chosen by.
        digest: The SHA-256 of the data set that they were taken from.
    """

    train: ImageSet
    validation: ImageSet | None
    test: ImageSet
    digest: str


def open_splits(
    data: Mapping[str, Any], prepare: bool = True, setting: str = "config.data.path"
) -> Splits:
    """Opens a data set, preparing it first where that has not been done.

    Args:
        data: The fields of `config.data`.
        prepare: Whether images may be drawn or prepared; otherwise a set that needs it is refused.
        setting: The flag or field that errors name, by which a user says where the images lie.

    Returns:
        The splits, cut to `train_count`, `validation_count` and `test_count` images. Validation
        images are those of the store; where it has none, `validation_count` images are held out
        of the training split, the same ones whatever the other counts are.

    Raises:
        UserError: There is nothing usable at the path, the images are not of `image_shape`, or
            they are not those of `digest`.
    """
    if not data["path"]:
        raise UserError("config.data.path is empty; name the folder of the images")
    try:
        train, validation, test, digest = _open(data, prepare, setting)
    except OSError as error:
        raise UserError(
            f"config.data.path is {data['path']!r}, which cannot be read: {reason_of(error)}"
        ) from error
    if data["digest"] not in ("", digest):
        raise UserError(
            f"the images at {data['path']} are not those that this run was trained on (SHA-256 "
            f"{digest[:12]}, not {data['digest'][:12]}): set {setting} to where those lie"
        )
    for split in (train, test):
        if split.image_shape != tuple(data["image_shape"]):
            raise UserError(
                f"config.data.image_shape is {tuple(data['image_shape'])}, but the images in "
                f"{data['path']} are {split.image_shape}; set it to that, or prepare them anew"
            )
    if validation is not None:
        count = data["validation_count"]
        validation = first_images(validation, count, "config.data.validation_count")
    elif data["validation_count"]:
        train, validation = _held_out(train, data["validation_count"])
    train = first_images(train, data["train_count"], "config.data.train_count")
    test = first_images(test, data["test_count"], "config.data.test_count")
    if data["binarize"] == "fixed":
        seed = data["generate_seed"]
        train, test = fixed_binarized(train, (seed, 0)), fixed_binarized(test, (seed, 1))
        if validation is not None:
            validation = fixed_binarized(validation, (seed, 2))
    return Splits(train, validation, test, digest)


def _open(data: Mapping[str, Any], prepare: bool, setting: str) -> Splits:
    """Opens whole splits as the data set has them."""
    if data["name"] in ARRAYS:
        _require_path(Path(data["path"]), setting)
        sets = ARRAYS[data["name"]](data["path"])
        digest = hashlib.sha256()
        for name in ("train", "test"):
            digest.update(np.ascontiguousarray(sets[name].images).data)
            digest.update(np.ascontiguousarray(sets[name].labels).data)
        return Splits(sets["train"], None, sets["test"], digest.hexdigest())
    prepared = _prepared(data, prepare, setting)
    validation = prepared.split("validation") if prepared.split_sizes["validation"] else None
    return Splits(prepared.split("train"), validation, prepared.split("test"), prepared.digest)


def _held_out(train: ImageSet, count: int) -> tuple[ImageSet, ImageSet]:
    """Splits `train` into what remains and `count` images of a fixed random choice."""
    if count >= len(train):
        raise UserError(
            f"config.data.validation_count is {count}, but these images would be taken from the "
            f"{len(train)} training images, of which some must remain: make it smaller"
        )
    chosen = np.zeros(len(train), bool)
    chosen[np.random.default_rng(HELD_OUT_SEED).permutation(len(train))[:count]] = True
    return _at(train, np.flatnonzero(~chosen)), _at(train, np.flatnonzero(chosen))


def fixed_binarized(split: ImageSet, seed: tuple[int, ...]) -> ImageSet:
    """Makes images black and white by the Bernoulli law of grey levels, the same every time.

    Args:
        split: Grey images.
        seed: The seed of the draw.

    Returns:
        The split with images of 0 and 255, in memory.
    """
    generator = np.random.default_rng(seed)
    images = np.empty((len(split), *split.image_shape), np.uint8)
    for i in range(len(split)):
        image = split.images[split.rows[i]]
        # A pixel of 255 is always white, one of 0 never.
        images[i] = np.where(generator.random(image.shape) * 255 < image, 255, 0)
    return replace(split, images=images, rows=np.arange(len(split)))


def _prepared(data: Mapping[str, Any], prepare: bool, setting: str) -> Store:
    path, faces = Path(data["path"]), data["name"] == "faces"
    height, width, channels = data["image_shape"]
    if height != width or channels != 3:
        raise UserError(
            f"config.data.image_shape is {tuple(data['image_shape'])}, but data set "
            f"{data['name']!r} gives square colour images: (size, size, 3)"
        )
    home = path / f"{data['generate_count']}-seed{data['generate_seed']}"
    out = home / str(height) if faces else store_beside(path, height)
    if (path / MANIFEST).exists() and (not faces or data["digest"]):  # which is compared
        return open_store(path)
    if (out / MANIFEST).exists() and (faces or not prepare):
        return open_store(out)
    if not prepare:
        _require_path(path, setting)
        raise UserError(
            f"config.data.path is {str(path)!r}, where the images of this run are not prepared: "
            f"set {setting} to where they lie, or may be prepared"
        )
    if faces:
        write_faces(home / "jpeg", data["generate_count"], data["generate_seed"])
        return celeba.prepare(home / "jpeg", out, height)
    _require_path(path, setting)
    return (celeba if data["name"] == "celeba" else folder).prepare(path, out, height)


def _require_path(path: Path, setting: str) -> None:
    if not path.exists():
        raise UserError(
            f"config.data.path is {str(path)!r}, which does not exist: set {setting} to where the "
            "images lie"
        )


def first_images(split: ImageSet, count: int, field: str) -> ImageSet:
    """Returns the first `count` images, or all of them for 0; `field` names it in errors."""
    if count > len(split):
        raise UserError(f"{field} is {count}, but there are only {len(split)} images")
    return piece_of(split, 0, count) if count else split


def piece_of(split: ImageSet, start: int, count: int) -> ImageSet:
    """Returns at most `count` images of a split, from position `start`."""
    return _at(split, np.arange(start, min(start + count, len(split))))


def _at(split: ImageSet, positions: np.ndarray) -> ImageSet:
    """Returns the images at `positions` `[N]` of a split."""
    return replace(
        split,
        rows=split.rows[positions],
        labels=None if split.labels is None else split.labels[positions],
        file_names=tuple(split.file_names[i] for i in positions) if split.file_names else (),
    )


def condition_names(data: Mapping[str, Any], split: ImageSet) -> tuple[str, ...]:
    """Returns the names of the L entries of the condition; empty for none."""
    if data["condition"] == "none":
        return ()
    return tuple(data["attributes"]) or split.label_names


def condition_labels(data: Mapping[str, Any], split: ImageSet) -> np.ndarray | None:
    """Returns the condition of each image of a split.

    Args:
        data: The fields of `config.data`; `condition` says which labels are used.
        split: The images with their labels.

    Returns:
        `[N, L]` float32: one-hot classes, or the chosen attributes as 0 and 1; None for none.

    Raises:
        UserError: The split has no such labels; the sentence lists the valid names.
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
    """Returns the column of attribute `name`, or raises a UserError listing the valid names."""
    if name not in split.label_names:
        raise UserError(
            f"{name!r} is not an attribute of this data set; valid are "
            f"{', '.join(split.label_names)}"
        )
    return split.label_names.index(name)
