"""Writes files all or nothing, and says in one sentence why a file cannot be written."""

from __future__ import annotations

import errno
import io
import json
import math
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from vae_jax.types import UserError

REASONS = {
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EROFS: "the file system is read-only",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would exceed the largest size allowed",
    errno.EMFILE: "too many files are open",
    errno.ENFILE: "too many files are open",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EISDIR: "it is a folder",
    errno.EEXIST: "a file of this name is in its place",
    errno.ENOENT: "it does not exist",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ELOOP: "its symbolic links lead in a circle",
}


def reason_of(error: OSError) -> str:
    """Returns what an operating-system error means, in words."""
    return REASONS.get(error.errno or 0) or error.strerror or str(error)


@contextmanager
def explained(path: str | os.PathLike[str], remedy: str = "name another place") -> Iterator[None]:
    """Turns an OSError while writing `path` into a UserError of one sentence.

    Args:
        path: What is written.
        remedy: What the user can do.

    Raises:
        UserError: Writing failed; names the path, the reason and the remedy.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {reason_of(error)}; {remedy}") from error


def write_files(folder: str | Path, files: Mapping[str, bytes]) -> list[Path]:
    """Writes several files into a folder: either all of them or none.

    All files are written under temporary names first and renamed in the order given, so that the
    last one (such as an index of the others) appears when everything it names is there.

    Args:
        folder: Made if it is missing, with its parents.
        files: Contents by file name.

    Returns:
        The paths, in the order given.

    Raises:
        UserError: A file cannot be written, or something other than a regular file is in its place.
    """
    folder = Path(folder)
    temporaries: list[tuple[Path, Path]] = []
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        for name, data in files.items():
            path = folder / name
            check_replaceable(path)
            temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
            temporaries.append((temporary, path))
            with explained(path):
                temporary.write_bytes(data)
        for temporary, path in temporaries:
            with explained(path):
                temporary.replace(path)
    finally:
        for temporary, _ in temporaries:
            temporary.unlink(missing_ok=True)
    return [path for _, path in temporaries]


def write_file(path: str | Path, data: bytes) -> Path:
    """Writes one file, all or nothing, and makes its parents; raises as `write_files` does."""
    path = Path(path)
    return write_files(path.parent, {path.name: data})[0]


def check_replaceable(path: Path) -> None:
    """Raises a UserError unless `path` is free or a regular file: no device, pipe or folder."""
    with explained(path):
        try:
            mode = path.stat().st_mode
        except FileNotFoundError:
            return
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
        raise UserError(f"cannot write {path}: it is {kind}; name another place")


def json_bytes(value: Any) -> bytes:
    """Returns a value as strict JSON: arrays as lists, NaN and infinity as null.

    Args:
        value: Mappings, sequences, named tuples, numbers and texts, NumPy arrays and scalars.
    """
    return (json.dumps(_plain(value), indent=2, allow_nan=False) + "\n").encode()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if hasattr(value, "_asdict"):  # a NamedTuple
        return _plain(value._asdict())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def npy_bytes(array: np.ndarray) -> bytes:
    """Returns an array as the contents of a .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def npz_bytes(**arrays: np.ndarray) -> bytes:
    """Returns named arrays as the contents of a .npz file."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def write_synced(path: Path, data: bytes) -> None:
    """Writes a file and waits until it is on the disk."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace_synced(path: Path, data: bytes) -> None:
    """Replaces a file as a whole, and waits until the new one is on the disk under its name."""
    temporary = path.with_name(f".{path.name}.tmp")
    write_synced(temporary, data)
    temporary.replace(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Waits until a file, or every name in a directory, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
