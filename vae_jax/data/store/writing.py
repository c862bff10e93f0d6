"""Writes a store so that a reader sees all of it or none.

Everything is built in a sibling `<name>.partial`, in which images.npy appears last: where it is,
all other files are whole and on the disk. Then that directory is renamed to the store's name.
Every step may be the last one before a kill or a power failure.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vae_jax.data.store.reading import (
    FORMAT,
    MANIFEST,
    VERSION,
    file_digest,
    manifest_digest,
    npy_header,
    split_sizes,
)
from vae_jax.files import sync, write_synced
from vae_jax.locks import file_lock
from vae_jax.types import UserError

IMAGES = "images.npy"
DECODED = "decoded.npy"  # images.npy to be, with room for every file of the source
PROGRESS = "progress.json"  # which rows of it are on the disk for good


class Contents(NamedTuple):
    """What a store holds besides its M images.

    Attributes:
        splits: `[M]` uint8: 0 train, 1 validation, 2 test.
        labels: `[M, A]` uint8 in {0, 1}, `[M]` int32, or None.
        label_names: The names of the A attributes or of the classes.
        file_names: The M names of the source files.
        settings: How the images were made.
        source: What they were made of.
    """

    splits: np.ndarray
    labels: np.ndarray | None
    label_names: Sequence[str]
    file_names: Sequence[str]
    settings: dict[str, Any]
    source: dict[str, Any]


def partial_of(directory: Path) -> Path:
    """Returns the directory in which a store is built."""
    return directory.with_name(directory.name + ".partial")


def exclusive(directory: Path) -> AbstractContextManager[None]:
    """Holds `<name>.lock` beside `directory`, which only one process prepares at a time.

    Raises:
        UserError: Another process holds it; names that process.
    """
    path = directory.with_name(directory.name + ".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    return file_lock(path, f"{directory} is being prepared by", "wait for it")


def refuse_existing(directory: Path) -> None:
    """Raises a UserError unless `directory` is absent or empty."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UserError(f"{directory} exists already: delete it or name another directory")


def reserve(path: Path, shape: tuple[int, ...]) -> bool:
    """Makes room on the disk for a .npy file of uint8 `shape`, and writes its header.

    Returns:
        Whether all of that size was there already, perhaps with images of earlier work.

    Raises:
        UserError: The disk is too small.
    """
    header = npy_header("uint8", shape)
    size = len(header) + int(np.prod(shape))
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        present = os.fstat(handle).st_size
        os.pwrite(handle, header, 0)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(handle, 0, size)
        os.ftruncate(handle, size)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        free = shutil.disk_usage(path.parent).free
        raise UserError(
            f"{path.parent} needs {size} bytes and the disk has {free} left: make room"
        ) from error
    finally:
        os.close(handle)
    return present >= size


def seal(directory: Path, kept: np.ndarray, contents: Contents) -> None:
    """Turns decoded images into a store; the caller holds `exclusive(directory)`.

    Args:
        directory: The store that is to be; its `partial_of` holds `DECODED`.
        kept: `[N]` bool, the rows of `DECODED` that become the M images of the store.
        contents: Everything else.
    """
    partial = partial_of(directory)
    images = partial / DECODED
    if not kept.all():
        images = _copy_rows(images, partial / "kept.npy", kept)
    shape = np.load(images, mmap_mode="r").shape
    about = {"bytes": images.stat().st_size, "sha256": file_digest(images)}
    files = {IMAGES: {**about, "dtype": "uint8", "shape": list(shape)}}
    for name, array in (("splits.npy", contents.splits), ("labels.npy", contents.labels)):
        if array is not None:
            data = npy_header(array.dtype.name, array.shape) + array.tobytes()
            files[name] = _save(partial / name, data)
            files[name] |= {"dtype": array.dtype.name, "shape": list(array.shape)}
    names = json.dumps(list(contents.file_names), indent=0).encode()
    files["files.json"] = _save(partial / "files.json", names)
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "files": files,
        "splits": split_sizes(contents.splits),
        "label_names": list(contents.label_names),
        "settings": contents.settings,
        "source": contents.source,
    }
    manifest["sha256"] = manifest_digest(manifest)
    write_synced(partial / MANIFEST, json.dumps(manifest, indent=1).encode())
    sync(partial)
    os.rename(images, partial / IMAGES)
    move_into_place(directory)


def move_into_place(directory: Path) -> bool:
    """Gives a finished store its name; returns False if there is none."""
    partial = partial_of(directory)
    if not (partial / IMAGES).exists():
        return False
    for name in (PROGRESS, DECODED):
        (partial / name).unlink(missing_ok=True)
    sync(partial)
    os.rename(partial, directory)
    sync(directory.parent)
    return True


def _copy_rows(source: Path, target: Path, kept: np.ndarray) -> Path:
    """Copies the kept rows of a .npy file to another one."""
    images = np.load(source, mmap_mode="r")
    with target.open("wb") as file:
        file.write(npy_header("uint8", (int(kept.sum()), *images.shape[1:])))
        for row in np.flatnonzero(kept):
            file.write(images[row].tobytes())
        file.flush()
        os.fsync(file.fileno())
    return target


def _save(path: Path, data: bytes) -> dict[str, Any]:
    """Writes a file and returns its entry in the manifest."""
    write_synced(path, data)
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
