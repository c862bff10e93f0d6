"""The prepared images on disk: arrays that are opened as memory maps, and a manifest.

A store is a directory that is written once (`writing.py`) and never modified:

    images.npy     uint8 [M, H, W, C]
    splits.npy     uint8 [M]: 0 train, 1 validation, 2 test
    labels.npy     optional: uint8 [M, A] binary attributes, or int32 [M] class ids
    files.json     M source file names
    manifest.json  shapes, dtypes, sizes and SHA-256 of the files above, source, settings

A truncated memory map kills its reader with SIGBUS, hence every size is checked on opening.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vae_jax.files import reason_of
from vae_jax.types import ImageSet, UserError

MANIFEST = "manifest.json"
FORMAT = "vae_jax image store"
VERSION = 1
SPLIT_NAMES = ("train", "validation", "test")
TRAIN, VALIDATION, TEST = range(len(SPLIT_NAMES))
MAX_JSON_BYTES = 512 * 2**20


@dataclass(frozen=True)
class Store:
    """An opened store.

    Attributes:
        directory: Its place.
        images: `[M, H, W, C]` uint8, a read-only memory map.
        splits: `[M]` uint8, indices into `SPLIT_NAMES`.
        labels: `[M, A]` uint8 in {0, 1}, `[M]` int32, or None.
        label_names: The names of the A attributes or of the classes.
        file_names: The M names of the source files.
        manifest: The contents of manifest.json: settings, source, sizes and digests.
    """

    directory: Path
    images: np.ndarray
    splits: np.ndarray
    labels: np.ndarray | None
    label_names: tuple[str, ...]
    file_names: tuple[str, ...]
    manifest: dict[str, Any]

    @property
    def digest(self) -> str:
        """Returns the SHA-256 over images, splits, labels and file names."""
        files = sorted(self.manifest["files"].items())
        return hashlib.sha256("".join(file["sha256"] for _, file in files).encode()).hexdigest()

    @property
    def split_sizes(self) -> dict[str, int]:
        """Returns the number of images in each split."""
        return split_sizes(self.splits)

    def split(self, name: str) -> ImageSet:
        """Returns one split as an `ImageSet` over the memory map.

        Args:
            name: "train", "validation" or "test".

        Raises:
            UserError: The split is unknown or empty.
        """
        if name not in SPLIT_NAMES:
            raise UserError(f"split is '{name}', expected one of {', '.join(SPLIT_NAMES)}")
        rows = np.flatnonzero(self.splits == SPLIT_NAMES.index(name))
        if not len(rows):
            raise UserError(f"{self.directory} has no {name} images: {self.split_sizes}")
        return ImageSet(
            images=self.images,
            rows=rows.astype(np.int64),
            labels=None if self.labels is None else self.labels[rows],
            label_names=self.label_names,
            file_names=tuple(self.file_names[row] for row in rows),
        )


def split_sizes(splits: np.ndarray) -> dict[str, int]:
    """Returns the number of images in each split, of `splits` `[M]`."""
    counts = np.bincount(splits, minlength=len(SPLIT_NAMES))
    return {name: int(count) for name, count in zip(SPLIT_NAMES, counts, strict=True)}


def store_beside(source: str | Path, size: int) -> Path:
    """Returns where images are prepared by default: the folder PATH-SIZE beside their own."""
    path = Path(source)
    path = path if path.name not in ("", "..") else path.resolve()
    return path.parent / f"{path.name}-{size}"


def open_store(directory: str | Path, verify: bool = False) -> Store:
    """Opens a prepared store read-only, refusing one that is partial or damaged.

    Args:
        directory: The store.
        verify: Whether to compare the SHA-256 of every file too, which reads everything once.

    Raises:
        UserError: A file is missing or differs from the manifest; names file, expected, found.
    """
    directory = Path(directory)
    try:
        return _open(directory, _read_manifest(directory), verify)
    except (KeyError, TypeError, AttributeError, OverflowError, IndexError) as error:
        raise UserError(f"{directory / 'manifest.json'} is malformed ({error!r})") from error
    except OSError as error:
        raise UserError(
            f"{error.filename or directory} cannot be read: {reason_of(error)}"
        ) from error


def manifest_digest(manifest: dict[str, Any]) -> str:
    """Returns the SHA-256 of a manifest without its own "sha256" field."""
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def npy_header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """Returns the exact first bytes of a .npy file, little-endian and in C order."""
    header = io.BytesIO()
    fields = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, fields)
    return header.getvalue()


def file_digest(path: Path) -> str:
    """Returns the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_manifest(directory: Path) -> dict[str, Any]:
    path = directory / MANIFEST
    if not path.is_file():
        if directory.with_name(directory.name + ".partial").is_dir():
            raise UserError(
                f"{directory} is not finished: run its preparation again, it goes on from there"
            )
        raise UserError(f"{directory} is not a prepared store: {path} is missing")
    manifest = _read_json(path)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise UserError(f"{path} is not the manifest of an image store (format is not '{FORMAT}')")
    if manifest.get("version") != VERSION:
        found = manifest.get("version")
        raise UserError(f"{path} has format version {found}, expected {VERSION}: prepare it again")
    if manifest.get("sha256") != manifest_digest(manifest):
        raise UserError(f"{path} was changed after it was written: its own SHA-256 does not match")
    return manifest


def _read_json(path: Path) -> Any:
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise UserError(f"{path} is larger than {MAX_JSON_BYTES} bytes")
        return json.loads(path.read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path} is not readable JSON: {error}") from error


def _open(directory: Path, manifest: dict[str, Any], verify: bool) -> Store:
    entries = manifest["files"]
    names = {"images.npy", "splits.npy", "files.json"}
    if set(entries) - {"labels.npy"} != names:
        raise UserError(f"{directory / 'manifest.json'} lists {sorted(entries)}, expected {names}")
    for name, entry in entries.items():
        _check_file(directory / name, entry, verify)
    images = _map_array(directory / "images.npy", entries["images.npy"])
    splits = np.array(_map_array(directory / "splits.npy", entries["splits.npy"]))
    labels = None
    if "labels.npy" in entries:
        labels = np.array(_map_array(directory / "labels.npy", entries["labels.npy"]))
    file_names = _read_json(directory / "files.json")
    label_names = manifest["label_names"]
    _check_contents(directory, manifest, images, splits, labels, file_names)
    return Store(directory, images, splits, labels, tuple(label_names), tuple(file_names), manifest)


def _check_file(path: Path, entry: dict[str, Any], verify: bool) -> None:
    if not path.is_file():
        raise UserError(f"{path} is missing: prepare the store again")
    expected, found = entry["bytes"], path.stat().st_size
    if found != expected:
        raise UserError(f"{path} has {found} bytes, expected {expected}: prepare the store again")
    if verify and (found_digest := file_digest(path)) != entry["sha256"]:
        raise UserError(
            f"{path} was changed after it was written: SHA-256 is {found_digest}, "
            f"expected {entry['sha256']}: prepare the store again"
        )


def _map_array(path: Path, entry: dict[str, Any]) -> np.ndarray:
    dtype, shape = entry["dtype"], tuple(entry["shape"])
    if dtype not in ("uint8", "int32") or not all(type(n) is int and n > 0 for n in shape):
        raise UserError(f"{path}: the manifest says {dtype} {shape}, which is not possible")
    header = npy_header(dtype, shape)
    expected = len(header) + math.prod(shape) * np.dtype(dtype).itemsize
    with path.open("rb") as file:
        if file.read(len(header)) != header or path.stat().st_size != expected:
            raise UserError(
                f"{path} does not hold the {dtype} {list(shape)} array that the manifest says: "
                "prepare the store again"
            )
    return np.memmap(path, dtype=dtype, mode="r", offset=len(header), shape=shape)


def _check_contents(
    directory: Path,
    manifest: dict[str, Any],
    images: np.ndarray,
    splits: np.ndarray,
    labels: np.ndarray | None,
    file_names: Any,
) -> None:
    count, width = len(images), len(manifest["label_names"])
    if images.ndim != 4 or images.dtype != np.uint8:
        raise UserError(f"{directory / 'images.npy'} is not uint8 [M, H, W, C]")
    if splits.shape != (count,) or splits.dtype != np.uint8 or splits.max() >= len(SPLIT_NAMES):
        raise UserError(f"{directory / 'splits.npy'} is not uint8 [{count}] of 0, 1 and 2")
    if (found := split_sizes(splits)) != manifest["splits"]:
        raise UserError(f"{directory / 'splits.npy'} holds {found}, expected {manifest['splits']}")
    if labels is not None:
        binary = labels.dtype == np.uint8 and labels.shape == (count, width) and labels.max() <= 1
        if not binary and not (labels.dtype == np.int32 and labels.shape == (count,)):
            raise UserError(
                f"{directory / 'labels.npy'} is neither 0 or 1 of shape [{count}, {width}] "
                f"nor int32 [{count}]"
            )
    texts = isinstance(file_names, list) and all(isinstance(name, str) for name in file_names)
    if not texts or len(file_names) != count:
        raise UserError(f"{directory / 'files.json'} is not a list of {count} file names")
