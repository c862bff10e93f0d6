"""From image files to a store: decode in parallel, write in order, resume, report bad files."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL

from vae_jax.data.store.decoding_worker import Chunk, Job
from vae_jax.data.store.durable import exclusive
from vae_jax.data.store.reading import Store, open_store
from vae_jax.data.store.sources import Member, Source
from vae_jax.data.store.workers import available_cores, decode_in_order
from vae_jax.data.store.writing import StoreWriter, move_into_place, refuse_existing
from vae_jax.progress import progress
from vae_jax.types import UserError

CHUNK_FILES = 32
CHUNK_BYTES = 2**20
COMMIT_CHUNKS = 32  # Work lost by a kill: about 1,000 images.
MAX_SIZE = 2048
NAMED_IN_ERRORS = 3


@dataclass(frozen=True)
class Annotations:
    """What is known about the N files of a source.

    Attributes:
        splits: `[N]` uint8, 0 train, 1 validation, 2 test.
        rule: where the splits come from, in words.
        labels: `[N, A]` uint8 or None.
        label_names: `[A]`.
    """

    splits: np.ndarray
    rule: str
    labels: np.ndarray | None = None
    label_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class BadFiles:
    """What to do about files that cannot be used: "stop" at the first, or "skip" up to a limit."""

    policy: str = "stop"
    limit: int = 100

    def __post_init__(self) -> None:
        if self.policy not in ("stop", "skip"):
            raise UserError(f"on_bad_file is '{self.policy}', expected 'stop' or 'skip'")
        if self.limit < 0:
            raise UserError(f"max_bad is {self.limit}, expected 0 or more")

    def check(self, root: Path, bad: Sequence[Sequence[str]]) -> None:
        """Raise UserError when `bad`, pairs of name and reason, is more than is allowed."""
        if not bad or (self.policy == "skip" and len(bad) <= self.limit):
            return
        named = "; ".join(f"{name} {reason}" for name, reason in bad[:NAMED_IN_ERRORS])
        if self.policy == "stop":
            raise UserError(
                f"{root}: {named}: replace it, or skip bad files (on_bad_file 'skip'), and run "
                "again to go on from there"
            )
        raise UserError(f"{root}: more than {self.limit} bad files (max_bad): {named}; ...")


def build_store(
    source: Source,
    out: Path,
    job: Job,
    annotations: Annotations,
    bad_files: BadFiles,
    workers: int | None = None,
) -> Store:
    """Prepare `source` into a store at `out`, or go on with an interrupted preparation.

    The result depends on the files, `job` and `annotations` only: not on `workers`, nor on
    interruptions. A finished store of the same work is opened; one of other work is refused.

    Args:
        source: the files, N of them.
        out: the store's directory.
        job: how to decode a file.
        annotations: splits and labels of the N files.
        bad_files: what to do about files that cannot be used.
        workers: number of processes; None: one a core.

    Raises:
        UserError: bad files, `out` is taken, no room on the disk.
    """
    if not 1 <= job.size <= MAX_SIZE:
        raise UserError(f"size is {job.size}, expected 1 to {MAX_SIZE} pixels")
    if workers is not None and workers < 1:
        raise UserError(f"workers is {workers}, expected 1 or more")
    settings = {
        "size": job.size,
        "crop": job.crop if isinstance(job.crop, str) else list(job.crop),
        "filter": "Lanczos",
        "formats": list(job.formats),
        "pillow": PIL.__version__,
    }
    try:
        with exclusive(out):
            if move_into_place(out) or (out / "manifest.json").exists():
                return _reopen(out, source, settings, annotations)
            refuse_existing(out)
            _write(source, out, job, settings, annotations, bad_files, workers)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error}") from error
    return open_store(out)


def _write(
    source: Source,
    out: Path,
    job: Job,
    settings: dict[str, Any],
    annotations: Annotations,
    bad_files: BadFiles,
    workers: int | None,
) -> None:
    members = source.members
    shape = (job.size, job.size, 3)
    length = max(1, min(CHUNK_FILES, CHUNK_BYTES // math.prod(shape)))
    chunks = [members[start : start + length] for start in range(0, len(members), length)]
    with StoreWriter(out, len(members), shape, settings) as writer:
        done = _finished(writer.entries, chunks)
        writer.keep(done)
        bad = [pair for entry in writer.entries for pair in entry["bad"]]
        digests = [entry["digests"] for entry in writer.entries]
        bad_files.check(source.root, bad)
        results = decode_in_order(job, chunks[done:], workers or available_cores())
        finished = sum(map(len, chunks[:done]))
        with closing(results), progress(len(members), "Preparing", "images", finished) as advance:
            for files, chunk in zip(chunks[done:], results, strict=True):
                found = _append(writer, files, chunk)
                bad += found
                digests.append(chunk.digests)
                if found:
                    bad_files.check(source.root, bad)
                advance(len(files))
        if not writer.rows:
            raise UserError(f"{source.root}: not one of its {len(members)} files can be used")
        kept = _kept(members, bad)
        writer.finish(
            annotations.splits[kept],
            None if annotations.labels is None else annotations.labels[kept],
            annotations.label_names,
            [member.name for member, keep in zip(members, kept, strict=True) if keep],
            {
                "name": source.root.name,
                "files": len(members),
                "listing": _listing_digest(source),
                "sha256": hashlib.sha256("".join(digests).encode()).hexdigest(),
                "partition": annotations.rule,
                "skipped": bad,
            },
        )


def _finished(entries: Sequence[dict[str, Any]], chunks: Sequence[Sequence[Member]]) -> int:
    """How many chunks earlier work has done; it counts as long as it was about the same files."""
    same = (e.get("files") == _stamp(chunk) for e, chunk in zip(entries, chunks, strict=False))
    return sum(itertools.takewhile(bool, same))


def _append(writer: StoreWriter, files: Sequence[Member], chunk: Chunk) -> list[list[str]]:
    """Write one chunk; returns name and reason of its bad files."""
    bad = [[files[index].name, reason] for index, reason in chunk.bad]
    writer.append(chunk.images, {"files": _stamp(files), "bad": bad, "digests": chunk.digests})
    # Also before a bad file may stop everything: the next run goes on right there.
    if bad or writer.pending >= COMMIT_CHUNKS:
        writer.commit()
    return bad


def _reopen(out: Path, source: Source, settings: dict[str, Any], annotations: Annotations) -> Store:
    store = open_store(out)
    made = {**store.manifest["settings"], "pillow": settings["pillow"]}
    kept = _kept(source.members, store.manifest["source"]["skipped"])
    labels = None if annotations.labels is None else annotations.labels[kept]
    same = (
        made == settings
        and store.manifest["source"]["listing"] == _listing_digest(source)
        and np.array_equal(store.splits, annotations.splits[kept])
        and (store.labels is None) == (labels is None)
        and (labels is None or store.labels is None or np.array_equal(store.labels, labels))
    )
    if not same:
        raise UserError(
            f"{out} holds a store of other files or settings ({store.manifest['settings']}): "
            "delete it or name another directory"
        )
    return store


def _kept(members: Sequence[Member], bad: Sequence[Sequence[str]]) -> np.ndarray:
    """`[N]` bool: which of the members are not among the bad files."""
    skipped = {name for name, _ in bad}
    return np.array([member.name not in skipped for member in members])


def _stamp(members: Sequence[Member]) -> str:
    """Changes with the names, sizes and modification times of the files."""
    return hashlib.sha256(repr(members).encode()).hexdigest()


def _listing_digest(source: Source) -> str:
    """SHA-256 over names and sizes (and CRC-32 where known): the same on another machine."""
    rows = [(m.name, m.size, m.stamp if source.is_zip else 0) for m in source.members]
    return hashlib.sha256(repr(rows).encode()).hexdigest()
