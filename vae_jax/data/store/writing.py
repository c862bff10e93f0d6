"""Writes a store so that a reader sees all of it or none, and so that a killed run resumes.

Everything is built in a sibling `<name>.partial`: rows are appended to images.npy, synced, and
only then entered in a journal (`journal.py`); what is not in it is written again. At the end the
manifest is written and the directory renamed into place. Every step may be the last one before
a kill or a power failure, and a repeated run still ends with the same bytes.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vae_jax.data.store.durable import exclusive, sync_directory, write_synced
from vae_jax.data.store.journal import JOURNAL, Journal
from vae_jax.data.store.reading import (
    FORMAT,
    HASH_BLOCK_BYTES,
    VERSION,
    Store,
    file_digest,
    manifest_digest,
    npy_header,
    open_store,
    split_sizes,
)
from vae_jax.types import UserError


class StoreWriter:
    """Builds one store; use it while holding `exclusive(directory)`.

    Attributes:
        rows: number of rows written.

    Args:
        directory: where the finished store will be.
        capacity: the largest number of rows it can get.
        image_shape: `(H, W, C)`.
        settings: what the rows depend on; work done under other settings is refused.

    Raises:
        UserError: unfinished work with other settings, or not enough room on the disk.
    """

    def __init__(
        self,
        directory: Path,
        capacity: int,
        image_shape: tuple[int, int, int],
        settings: dict[str, Any],
    ) -> None:
        self.directory = directory
        self.partial = directory.with_name(directory.name + ".partial")
        self.capacity, self.image_shape = capacity, tuple(image_shape)
        self.settings = json.loads(json.dumps(settings))  # As they will be read back.
        self._row_bytes = int(np.prod(image_shape))
        self._header = npy_header("uint8", (capacity, *image_shape))
        self._files: dict[str, dict[str, Any]] = {}
        self.partial.mkdir(parents=True, exist_ok=True)
        self._journal = Journal(self.partial, self.settings)
        self.rows = self._journal.rows
        self._reserve()

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._images)

    @property
    def entries(self) -> list[dict[str, Any]]:
        """Journal entries of finished work, each with "rows", its number of images."""
        return self._journal.entries

    @property
    def pending(self) -> int:
        """Number of entries that `commit` would add to the journal."""
        return len(self._journal.pending)

    def keep(self, count: int) -> None:
        """Keep the first `count` entries of earlier work, forget the rest, and go on from there."""
        self._journal.keep(count)
        self.rows = self._journal.rows
        os.pwrite(self._images, self._header, 0)
        self._digest = hashlib.sha256(self._header)
        for start in range(0, self.rows * self._row_bytes, HASH_BLOCK_BYTES):
            size = min(HASH_BLOCK_BYTES, self.rows * self._row_bytes - start)
            self._digest.update(os.pread(self._images, size, len(self._header) + start))

    def append(self, images: np.ndarray, entry: dict[str, Any]) -> None:
        """Append `images` `[N, H, W, C]` uint8; `entry` reaches the journal with `commit`."""
        if images.shape[1:] != self.image_shape or images.dtype != np.uint8:
            raise ValueError(
                f"got {images.dtype} {images.shape}, expected uint8 {self.image_shape}"
            )
        if self.rows + len(images) > self.capacity:
            raise ValueError(f"more than {self.capacity} rows")
        data = np.ascontiguousarray(images).data.cast("B") if len(images) else b""
        offset = len(self._header) + self.rows * self._row_bytes
        written = 0
        while written < len(data):
            written += os.pwrite(self._images, data[written:], offset + written)
        self._digest.update(data)
        self.rows += len(images)
        self._journal.pending.append({**entry, "rows": len(images)})

    def commit(self) -> None:
        """Make everything appended so far survive a kill or a power failure."""
        os.fsync(self._images)
        self._journal.commit()

    def finish(
        self,
        splits: np.ndarray,
        labels: np.ndarray | None,
        label_names: Sequence[str],
        file_names: Sequence[str],
        source: dict[str, Any],
    ) -> None:
        """Write the remaining files and the manifest, and rename the store into place."""
        self.commit()
        shape = (self.rows, *self.image_shape)
        if self.rows != self.capacity:
            os.pwrite(self._images, npy_header("uint8", shape), 0)
        os.ftruncate(self._images, len(self._header) + self.rows * self._row_bytes)
        os.fsync(self._images)
        path = self.partial / "images.npy"
        full = self.rows == self.capacity
        digest = self._digest.hexdigest() if full else file_digest(path)
        self._files["images.npy"] = {
            "bytes": path.stat().st_size, "sha256": digest, "dtype": "uint8", "shape": list(shape)
        }  # fmt: skip
        self._save_array("splits.npy", splits)
        (self.partial / "labels.npy").unlink(missing_ok=True)
        if labels is not None:
            self._save_array("labels.npy", labels)
        self._save("files.json", json.dumps(list(file_names), indent=0).encode())
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "files": self._files,
            "splits": split_sizes(splits),
            "label_names": list(label_names),
            "settings": self.settings,
            "source": source,
        }
        manifest["sha256"] = manifest_digest(manifest)
        write_synced(self.partial / "manifest.json", json.dumps(manifest, indent=1).encode())
        sync_directory(self.partial)
        self._journal.remove()
        move_into_place(self.directory)

    def _reserve(self) -> None:
        path = self.partial / "images.npy"
        size = len(self._header) + self.capacity * self._row_bytes
        present = path.stat().st_size if path.exists() else 0
        if present < len(self._header) + self.rows * self._row_bytes:
            self._journal.entries, self.rows = [], 0
        self._images = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(self._images, 0, size)
        except OSError as error:
            os.close(self._images)
            if error.errno != errno.ENOSPC:
                raise
            free = shutil.disk_usage(self.partial).free
            raise UserError(
                f"{self.partial} needs {size} bytes and the disk has {free} left: make room"
            ) from error

    def _save_array(self, name: str, array: np.ndarray) -> None:
        dtype = array.dtype.name
        data = npy_header(dtype, array.shape) + np.ascontiguousarray(array).tobytes()
        self._save(name, data, dtype=dtype, shape=list(array.shape))

    def _save(self, name: str, data: bytes, **about: Any) -> None:
        write_synced(self.partial / name, data)
        digest = hashlib.sha256(data).hexdigest()
        self._files[name] = {"bytes": len(data), "sha256": digest, **about}


def write_store(
    directory: str | Path,
    images: np.ndarray,
    splits: np.ndarray,
    labels: np.ndarray | None = None,
    label_names: Sequence[str] = (),
    file_names: Sequence[str] | None = None,
    settings: dict[str, Any] | None = None,
) -> Store:
    """Write arrays that are in memory as a store, and open it.

    Args:
        directory: must not exist yet.
        images: `[M, H, W, C]` uint8.
        splits: `[M]` of 0 (train), 1 (validation), 2 (test).
        labels: `[M, A]` uint8 in {0, 1}, `[M]` int32, or None.
        label_names: names of the attributes or of the classes.
        file_names: `[M]`; row numbers by default.
        settings: how the images came about, for the manifest.

    Raises:
        UserError: `directory` exists or is being written by another process.
    """
    directory = Path(directory)
    names = [f"{row:06d}" for row in range(len(images))] if file_names is None else file_names
    with exclusive(directory):
        refuse_existing(directory)
        with StoreWriter(directory, len(images), images.shape[1:], settings or {}) as writer:
            writer.keep(0)
            writer.append(images, {})
            writer.finish(np.asarray(splits, np.uint8), labels, label_names, names, {})
    return open_store(directory)


def refuse_existing(directory: Path) -> None:
    """Raise UserError unless `directory` is absent or empty."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UserError(f"{directory} exists already: delete it or name another directory")


def move_into_place(directory: Path) -> bool:
    """Rename a complete `<name>.partial` to `directory`; False when there is none."""
    partial = directory.with_name(directory.name + ".partial")
    if not (partial / "manifest.json").exists() or (partial / JOURNAL).exists():
        return False
    sync_directory(partial)
    os.rename(partial, directory)
    sync_directory(directory.parent)
    return True
