"""Reads the IDX format of MNIST and Fashion-MNIST, gzipped or not.

A file is two zero bytes, a type code, the number of dimensions, each dimension as a big-endian
uint32, and the values, big-endian (http://yann.lecun.com/exdb/mnist).
"""

from __future__ import annotations

import gzip
import io
import math
import os
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from vae_jax.types import ImageSet, UserError

TYPE_CODES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
MAX_BYTES = 2**30  # EMNIST, the largest relative of MNIST, has 550 MB.
MAX_DEFLATE_RATIO = 1032  # The most that deflate can expand its input.
GZIP_MAGIC = b"\x1f\x8b"
FILE_STEMS = {"train": "train", "test": "t10k"}


def read_idx(path: str | Path) -> np.ndarray:
    """Reads one IDX file; gzip is detected by content.

    Args:
        path: The file.

    Returns:
        The array, in native byte order, with the file's shape and type.

    Raises:
        UserError: It is missing, not IDX, or not of the size that its header says.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            zipped = file.read(2) == GZIP_MAGIC
            file.seek(0)
            if not zipped:
                return _read(path, file, size)
            with gzip.GzipFile(fileobj=file) as unpacked:
                return _read(path, unpacked, MAX_DEFLATE_RATIO * size, exact=False)
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist") from error
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read, download it again ({error})") from error


def open_mnist(directory: str | Path) -> dict[str, ImageSet]:
    """Reads MNIST, or any data set in the same four files.

    Args:
        directory: Holds `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and the same with
            `t10k`; `.gz` may follow, and `.idx3-ubyte` may stand for `-idx3-ubyte`.

    Returns:
        "train" and "test", with images `[N, H, W, 1]` uint8 and labels `[N]` int32.

    Raises:
        UserError: A file is missing or damaged, or images and labels do not match.
    """
    directory = Path(directory)
    return {name: _open_split(directory, stem) for name, stem in FILE_STEMS.items()}


def _read(
    path: Path, file: BinaryIO | gzip.GzipFile, available: int, exact: bool = True
) -> np.ndarray:
    """Reads from `file`, which holds `available` bytes, or at most so many if not `exact`."""
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in TYPE_CODES or not magic[3]:
        raise UserError(f"{path} is not an IDX file (it starts with {magic.hex() or 'nothing'})")
    dtype, dimensions = np.dtype(TYPE_CODES[magic[2]]), magic[3]
    header = file.read(4 * dimensions)
    if len(header) < 4 * dimensions:
        raise UserError(f"{path} ends inside its header: download it again")
    shape = struct.unpack(f">{dimensions}I", header)
    size = math.prod(shape) * dtype.itemsize
    total = 4 + len(header) + size
    if total > MAX_BYTES or total > available or (exact and total != available):
        raise UserError(
            f"{path} says it holds {list(shape)} values of {dtype.itemsize} bytes, {total} bytes "
            f"in all, but it has {'' if exact else 'at most '}{available}: download it again"
        )
    data = _read_at_most(file, size + 1)
    if len(data) != size:
        found = "fewer" if len(data) < size else "more"
        raise UserError(f"{path} holds {found} than the {size} bytes of values it announces")
    try:
        return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)
    except ValueError as error:  # More dimensions than NumPy has.
        raise UserError(f"{path} has {dimensions} dimensions, too many ({error})") from error


def _read_at_most(file: BinaryIO | gzip.GzipFile, size: int) -> memoryview:
    """Reads up to `size` bytes piece by piece: memory grows with what is there, not with `size`."""
    data = io.BytesIO()
    while data.tell() < size and (piece := file.read(min(2**20, size - data.tell()))):
        data.write(piece)
    return data.getbuffer()


def _open_split(directory: Path, stem: str) -> ImageSet:
    image_path = _find(directory, f"{stem}-images", "idx3-ubyte")
    label_path = _find(directory, f"{stem}-labels", "idx1-ubyte")
    images, labels = read_idx(image_path), read_idx(label_path)
    if images.ndim != 3 or images.dtype != np.uint8 or not images.size:
        raise UserError(
            f"{image_path} is {images.dtype} {list(images.shape)}, expected uint8 [N, H, W]"
        )
    if labels.dtype != np.uint8 or labels.shape != images.shape[:1]:
        raise UserError(
            f"{label_path} is {labels.dtype} {list(labels.shape)}, expected one uint8 label for "
            f"each of the {len(images)} images of {image_path.name}"
        )
    return ImageSet(
        images=images[..., None],
        rows=np.arange(len(images)),
        labels=labels.astype(np.int32),
        label_names=tuple(str(label) for label in range(max(10, int(labels.max()) + 1))),
    )


def _find(directory: Path, stem: str, ending: str) -> Path:
    names = [f"{stem}{mark}{ending}{gz}" for mark in "-." for gz in ("", ".gz")]
    for name in names:
        if (directory / name).is_file():
            return directory / name
    raise UserError(f"{directory} holds none of {', '.join(names)}: put that file of MNIST there")
