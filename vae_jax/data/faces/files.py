"""Seeded procedural faces with known factors, in CelebA's own layout.

Worker processes import this file, so nothing here imports JAX.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

from vae_jax.data.faces.drawing import render_face
from vae_jax.data.faces.factors import ATTRIBUTES, face_attributes, face_factors
from vae_jax.data.workers import available_cores, in_processes
from vae_jax.progress import progress
from vae_jax.types import UserError

IMAGE_FOLDER = "img_align_celeba"
ATTRIBUTE_FILE = "list_attr_celeba.txt"
PARTITION_FILE = "list_eval_partition.txt"
MANIFEST_FILE = "faces.json"
DRAWING_VERSION = 1  # Raise with every change of factors or drawing: old folders are refused.
JPEG_QUALITY = 92
MAX_COUNT = 999_999  # Six digits in a file name.
CHUNK = 32  # Faces a worker draws between two reports.
MIN_FACES_PER_WORKER = 150  # Fewer are drawn before another process has started.
STALE_SECONDS = 600.0  # A temporary file lives for milliseconds unless its writer died.


def write_faces(
    directory: str | os.PathLike[str],
    count: int,
    seed: int,
    workers: int | None = None,
    splits: Sequence[float] = (0.8, 0.1, 0.1),
) -> int:
    """Writes a data set of faces as CelebA is laid out: images, attributes, partition.

    Interrupted work is taken up where it stopped: every file appears whole or not at all
    (after a power cut, cut-off images are drawn again), and the two text files come last.

    Args:
        directory: The folder, which is made if it is missing.
        count: The number of faces, 1 to 999,999.
        seed: The seed of `face_factors`; row i is the face `(seed, i)`.
        workers: The number of processes; all cores by default. The files do not depend on it.
        splits: The shares of training, validation and test faces, in this order of the rows.

    Returns:
        Number of faces drawn by this call: 0 if everything was there already.

    Raises:
        UserError: The arguments are out of range, or the directory holds other data.
    """
    if not 1 <= count <= MAX_COUNT:
        raise UserError(f"count of faces is {count}; choose 1 to {MAX_COUNT:,}")
    if len(splits) != 3 or min(splits) < 0 or abs(sum(splits) - 1) > 1e-6:
        raise UserError(f"splits are {tuple(splits)}; give three shares that add to 1")
    if workers is not None and workers < 1:
        raise UserError(f"workers is {workers}; give 1 or more, or None for all cores")
    face_factors(seed, 0)  # Refuses a bad seed before anything is written.
    root = Path(directory)
    shares = [float(share) for share in splits]
    _claim(root, {"count": int(count), "seed": int(seed), "splits": shares})
    folder = root / IMAGE_FOLDER
    folder.mkdir(exist_ok=True)
    _remove_stale(root)
    _remove_stale(folder)
    missing = [i for i in range(count) if not _is_whole(folder / _file_name(i))]
    if missing:
        _draw_all(folder, seed, missing, workers or available_cores(), count)
    if not (root / ATTRIBUTE_FILE).exists():
        _write_text(root / ATTRIBUTE_FILE, _attribute_lines(count, seed))
    if not (root / PARTITION_FILE).exists():
        _write_text(root / PARTITION_FILE, _partition_lines(count, splits))
    return len(missing)


def _claim(root: Path, wanted: dict[str, object]) -> None:
    """Records what the directory is for, or checks that it is for the same."""
    if root.is_file():
        raise UserError(f"{root} is a file; name a directory for the faces")
    manifest = root / MANIFEST_FILE
    wanted = {**wanted, "drawing_version": DRAWING_VERSION}
    if manifest.exists():
        try:
            found = json.loads(manifest.read_bytes())
        except ValueError:
            found = "an unreadable " + MANIFEST_FILE
        if found != wanted:
            raise UserError(
                f"{root} holds procedural faces with {found}, but {wanted} was asked for; "
                "delete that directory or name another one"
            )
        return
    for name in (IMAGE_FOLDER, ATTRIBUTE_FILE, PARTITION_FILE):
        if (root / name).exists():
            raise UserError(
                f"{root} holds {name} but no {MANIFEST_FILE}, so it is not a set of procedural "
                "faces (perhaps CelebA itself); name another directory"
            )
    root.mkdir(parents=True, exist_ok=True)
    _write_text(manifest, [json.dumps(wanted)])


def _file_name(index: int) -> str:
    return f"{index + 1:06d}.jpg"


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def _write_text(path: Path, lines: list[str]) -> None:
    temporary = _temporary(path)
    with open(temporary, "w", encoding="utf-8", newline="\n") as file:
        file.writelines(line + "\n" for line in lines)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _remove_stale(folder: Path) -> None:
    for path in folder.glob(".*.tmp"):
        if time.time() - path.stat().st_mtime > STALE_SECONDS:
            path.unlink(missing_ok=True)


def _is_whole(path: Path) -> bool:
    """Returns whether a file begins and ends as a JPEG does."""
    try:
        with open(path, "rb") as file:
            start = file.read(2)
            file.seek(-2, os.SEEK_END)
            return start == b"\xff\xd8" and file.read() == b"\xff\xd9"
    except OSError:  # Missing, or shorter than two bytes.
        return False


def _write_chunk(folder: Path, seed: int, indices: Sequence[int]) -> int:
    for index in indices:
        path = folder / _file_name(index)
        temporary = _temporary(path)
        render_face(face_factors(seed, index)).save(temporary, "JPEG", quality=JPEG_QUALITY)
        os.replace(temporary, path)
    return len(indices)


def _draw_all(folder: Path, seed: int, missing: list[int], workers: int, count: int) -> None:
    """Draws the missing ones of `count` faces."""
    chunks = [missing[first : first + CHUNK] for first in range(0, len(missing), CHUNK)]
    draw = functools.partial(_write_chunk, folder, seed)
    workers = min(workers, -(-len(missing) // MIN_FACES_PER_WORKER))
    with (
        contextlib.closing(in_processes(draw, chunks, workers)) as drawn,
        progress(count, "Drawing faces", "images", start=count - len(missing)) as advance,
    ):
        for number in drawn:
            advance(number)


def _attribute_lines(count: int, seed: int) -> list[str]:
    lines = [str(count), " ".join(ATTRIBUTES)]
    for index in range(count):
        values = face_attributes(face_factors(seed, index))
        marks = " ".join(" 1" if value else "-1" for value in values)
        lines.append(f"{_file_name(index)} {marks}")
    return lines


def _partition_lines(count: int, splits: Sequence[float]) -> list[str]:
    train_end = round(count * splits[0])
    validation_end = round(count * (splits[0] + splits[1]))
    parts = (int(i >= train_end) + int(i >= validation_end) for i in range(count))
    return [f"{_file_name(index)} {part}" for index, part in enumerate(parts)]
