"""Prepares image files into a store: in parallel, resuming after a kill, reporting bad files.

Workers write every image into the row of its file in `DECODED`. `PROGRESS` says which chunks of
files are on the disk; it is replaced as a whole after the rows are synced. Chunks that it does not
name, or whose files have changed since, are decoded again.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL

from vae_jax.data.store.decoding import Job, decode_chunk
from vae_jax.data.store.reading import MANIFEST, Store, open_store
from vae_jax.data.store.sources import Member, Source
from vae_jax.data.store.writing import (
    DECODED,
    PROGRESS,
    Contents,
    exclusive,
    move_into_place,
    partial_of,
    refuse_existing,
    reserve,
    seal,
)
from vae_jax.data.workers import available_cores, in_processes
from vae_jax.files import reason_of, replace_synced, sync
from vae_jax.progress import progress
from vae_jax.types import UserError

CHUNK_FILES = 32
COMMIT_SECONDS = 2.0  # The most work that a kill loses.
MAX_SIZE = 2048
NAMED_IN_ERRORS = 3


@dataclass(frozen=True)
class Annotations:
    """What is known about the N files of a source.

    Attributes:
        splits: `[N]` uint8, 0 train, 1 validation, 2 test.
        rule: How the splits were chosen, in words.
        labels: `[N, A]` uint8, or None.
        label_names: The names of the A labels.
    """

    splits: np.ndarray
    rule: str
    labels: np.ndarray | None = None
    label_names: tuple[str, ...] = ()


class Finished(NamedTuple):
    """A chunk of files that has been decoded.

    Attributes:
        stamp: A digest that changes with the times of the files.
        bad: The name of each file that cannot be used, and the reason.
        digest: The SHA-256 over the contents of the files.
    """

    stamp: str
    bad: Sequence[tuple[str, str]]
    digest: str


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
        """Raises a UserError when `bad`, pairs of name and reason, is more than is allowed."""
        if not bad or (self.policy == "skip" and len(bad) <= self.limit):
            return
        named = "; ".join(f"{name} {reason}" for name, reason in bad[:NAMED_IN_ERRORS])
        if self.policy == "stop":
            raise UserError(
                f"{root}: {named}: replace or remove it and run again, which goes on from there "
                "(experiments.prepare_celeba can skip bad files)"
            )
        raise UserError(f"{root}: more than {self.limit} bad files (max_bad): {named}; ...")


@dataclass(frozen=True)
class Preparation:
    """What a store is to be made of, where, and how.

    Attributes:
        source: The files.
        out: The store's directory.
        job: How to decode a file.
        settings: All that the store's bytes depend on besides the files.
        listing: A digest of names, sizes and times of all files that are read.
        bad_files: What to do about files that cannot be used.
        workers: The number of processes.
    """

    source: Source
    out: Path
    job: Job
    settings: dict[str, Any]
    listing: str
    bad_files: BadFiles
    workers: int

    @property
    def partial(self) -> Path:
        """The directory in which the store is built."""
        return partial_of(self.out)


def build_store(
    source: Source,
    out: Path,
    job: Job,
    annotate: Callable[[], Annotations],
    bad_files: BadFiles,
    workers: int | None = None,
    tables: Sequence[Path] = (),
    partition: Sequence[str | int] = (),
) -> Store:
    """Prepares `source` into a store at `out`, or goes on with an interrupted preparation.

    The result depends on the files, `job` and the annotations only, not on `workers` or
    interruptions. A finished store is opened if it was made of the same files in the same way, by
    their names, sizes and times, which takes seconds; otherwise it is refused.

    Args:
        source: The files, N of them.
        out: The store's directory.
        job: How to decode a file.
        annotate: Returns the splits and labels of the N files; not called for a finished store.
        bad_files: What to do about files that cannot be used.
        workers: The number of processes; None for one per core.
        tables: Further files on which the annotations depend.
        partition: The settings on which the splits depend.

    Raises:
        UserError: A file cannot be used, `out` is taken, the disk is too small, or files have
            changed.
    """
    if not 1 <= job.size <= MAX_SIZE:
        raise UserError(f"size is {job.size}, expected 1 to {MAX_SIZE} pixels")
    if workers is not None and workers < 1:
        raise UserError(f"workers is {workers}, expected 1 or more")
    settings = {
        "size": job.size,
        "crop": job.crop,
        "filter": "Lanczos",
        "formats": list(job.formats),
        "partition": list(partition),
        "pillow": PIL.__version__,
    }
    try:
        listing = _listing_digest(source, tables)
        workers = workers or available_cores()
        preparation = Preparation(source, out, job, settings, listing, bad_files, workers)
        if (out / MANIFEST).exists():
            return _reopened(preparation)
        with exclusive(out):
            if move_into_place(out) or (out / MANIFEST).exists():
                return _reopened(preparation)
            refuse_existing(out)
            _write(preparation, annotate())
    except OSError as error:
        raise UserError(f"{out} cannot be written: {reason_of(error)}") from error
    return open_store(out)


def _reopened(preparation: Preparation) -> Store:
    """Opens the finished store; refuses one that was made of other files or in another way."""
    out, settings = preparation.out, preparation.settings
    store = open_store(out)
    made = store.manifest["settings"]
    remedy = "delete it to prepare it anew, or name another place"
    if changed := _differences(made, {**settings, "pillow": made.get("pillow")}):
        raise UserError(f"{out} holds a store with other settings ({changed}): {remedy}")
    if store.manifest["source"].get("listing") != preparation.listing:
        raise UserError(
            f"{out} holds a store of other files than {preparation.source.root} has now (names, "
            f"sizes or times differ): {remedy}, or give {out} itself as the data"
        )
    return store


def _differences(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    """Returns in words which settings differ; empty for none."""
    changed = [key for key in wanted if found.get(key) != wanted[key]]
    return ", ".join(f"{key} {found.get(key)}, now {wanted[key]}" for key in changed)


def _write(preparation: Preparation, annotations: Annotations) -> None:
    source, partial = preparation.source, preparation.partial
    members = source.members
    partial.mkdir(parents=True, exist_ok=True)
    for path in partial.iterdir():
        if path.name not in (DECODED, PROGRESS):  # of a store that was nearly whole
            path.unlink()
    chunks = [members[start : start + CHUNK_FILES] for start in range(0, len(members), CHUNK_FILES)]
    earlier = _finished(preparation, chunks)
    size = preparation.job.size
    if not reserve(partial / DECODED, (len(members), size, size, 3)):
        earlier = []
    done = _decode(preparation, chunks, earlier)
    bad = [pair for chunk in done for pair in chunk.bad]
    kept = _kept(members, bad)
    if not kept.any():
        raise UserError(f"{source.root}: not one of its {len(members)} files can be used")
    about_source = {
        "name": source.root.name,
        "files": len(members),
        "listing": preparation.listing,
        "sha256": hashlib.sha256("".join(chunk.digest for chunk in done).encode()).hexdigest(),
        "partition": annotations.rule,
        "skipped": bad,
    }
    contents = Contents(
        annotations.splits[kept],
        None if annotations.labels is None else annotations.labels[kept],
        annotations.label_names,
        [member.name for member, keep in zip(members, kept, strict=True) if keep],
        preparation.settings,
        about_source,
    )
    seal(preparation.out, kept, contents)


def _decode(
    preparation: Preparation, chunks: Sequence[Sequence[Member]], earlier: Sequence[Finished]
) -> list[Finished]:
    """Decodes the chunks that are not done yet; records them even if it is stopped early."""
    root, bad_files = preparation.source.root, preparation.bad_files
    done = list(earlier)
    bad = [pair for chunk in done for pair in chunk.bad]
    bad_files.check(root, bad)
    decode = functools.partial(decode_chunk, preparation.job, preparation.partial / DECODED)
    tasks = [(i * CHUNK_FILES, chunks[i]) for i in range(len(done), len(chunks))]
    results = in_processes(decode, tasks, preparation.workers)
    total, begun = sum(map(len, chunks)), sum(map(len, chunks[: len(done)]))
    committed = time.monotonic()
    with closing(results), progress(total, "Preparing", "images", begun) as advance:
        try:
            for (_, files), (found, digest) in zip(tasks, results, strict=True):
                named = [(files[index].name, reason) for index, reason in found]
                done.append(Finished(_stamp(files), named, digest))
                bad += named
                if named:
                    bad_files.check(root, bad)
                if time.monotonic() - committed >= COMMIT_SECONDS:
                    _commit(preparation, done)
                    committed = time.monotonic()
                advance(len(files))
        finally:
            _commit(preparation, done)
    return done


def _commit(preparation: Preparation, done: Sequence[Finished]) -> None:
    """Makes everything decoded so far survive a kill or a power failure."""
    sync(preparation.partial / DECODED)
    found = {"settings": preparation.settings, "chunks": done}
    replace_synced(preparation.partial / PROGRESS, json.dumps(found).encode())


def _finished(preparation: Preparation, chunks: Sequence[Sequence[Member]]) -> list[Finished]:
    """Returns the chunks that earlier work has done, up to the first whose files have changed."""
    partial = preparation.partial
    path = partial / PROGRESS
    if not path.exists():
        return []
    try:
        found = json.loads(path.read_bytes())
        done = [Finished(*chunk) for chunk in found["chunks"]]
        before = dict(found["settings"])
    except (ValueError, TypeError, LookupError) as error:
        raise UserError(f"{path} is damaged ({error!r}): delete {partial}") from error
    if differences := _differences(before, preparation.settings):
        raise UserError(
            f"{partial} holds unfinished work with other settings ({differences}): "
            "use the same ones, or delete that directory"
        )
    same = (chunk.stamp == _stamp(files) for chunk, files in zip(done, chunks, strict=False))
    return done[: sum(itertools.takewhile(bool, same))]


def _kept(members: Sequence[Member], bad: Sequence[Sequence[str]]) -> np.ndarray:
    """Returns `[N]` bool: which of the members are not among the bad files."""
    skipped = {name for name, _ in bad}
    return np.array([member.name not in skipped for member in members])


def _stamp(members: Sequence[Member]) -> str:
    """Returns a digest that changes with names, sizes and times of the files."""
    return hashlib.sha256(repr(members).encode()).hexdigest()


def _listing_digest(source: Source, tables: Sequence[Path]) -> str:
    """Returns a digest that changes with names, sizes and times of files and tables."""
    rows = [(member.name, member.size, member.stamp) for member in source.members]
    about = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in tables]
    return hashlib.sha256(repr((rows, about)).encode()).hexdigest()
