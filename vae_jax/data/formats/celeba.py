"""Prepares CelebA into a store of cropped and resized uint8 images.

Layouts that are understood: a flat folder of JPEGs, the same inside `img_align_celeba/`
(once or twice), and the official `img_align_celeba.zip`, which is never extracted. The tables
of `attributes.py` are looked for beside the images or the archive, and above, up to the parent of
the source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from vae_jax.data.formats.attributes import (
    ATTRIBUTES,
    PARTITION,
    find_table,
    read_attributes,
    read_partition,
)
from vae_jax.data.formats.folder import by_fraction
from vae_jax.data.store.decoding import CROPS, Job
from vae_jax.data.store.preparation import Annotations, BadFiles, build_store
from vae_jax.data.store.reading import TEST, TRAIN, VALIDATION, Store
from vae_jax.data.store.sources import JPEG_NAMES, Source, list_source
from vae_jax.types import UserError

PARTITIONS = ("auto", "official", "reference", "fraction")


def prepare(
    source: str | Path,
    out: str | Path,
    size: int,
    *,
    crop: str = "auto",
    partition: str = "auto",
    train_count: int = 170_000,
    test_count: int = 10_000,
    on_bad_file: str = "stop",
    max_bad: int = 100,
    workers: int | None = None,
) -> Store:
    """Prepares CelebA into a store at `out`; a repeated call resumes, or opens the finished store.

    Args:
        source: A folder or zip archive of JPEGs of any size.
        out: The directory of the store.
        size: The height and width of the images in pixels.
        crop: "auto" (box (0, 40, 178, 218) of 178x218 images, the centred square of others), or
            "square".
        partition: "official" (list_eval_partition), "reference" (by number: 1..train_count train,
            then test_count test, the others validation), "fraction" (a tenth of the files, by
            hash of the name, is test), or "auto": the first of these that is possible.
        train_count: The number of training images of "reference".
        test_count: The number of test images of "reference".
        on_bad_file: "stop", or "skip": leave bad files out and name them in the manifest; then
            lines of the tables about images that are not there are accepted too.
        max_bad: The most bad files that "skip" accepts.
        workers: The number of processes; None for one per core.

    Raises:
        UserError: An argument, a file or a line of a table cannot be used; names it.
    """
    if partition not in PARTITIONS:
        raise UserError(f"partition is '{partition}', expected one of {', '.join(PARTITIONS)}")
    if crop not in CROPS:
        raise UserError(f"crop is {crop!r}, expected one of {', '.join(CROPS)}")
    if train_count < 1 or test_count < 0:
        raise UserError(f"train_count is {train_count} and test_count {test_count}: too small")
    files = list_source(source, JPEG_NAMES, nested=False)
    folders = _folders_of_tables(files, Path(source))
    tables = {stem: find_table(folders, stem) for stem in (PARTITION, ATTRIBUTES)}
    rule = (partition, train_count, test_count)
    return build_store(
        files,
        Path(out),
        Job(str(files.root), files.is_zip, size, crop, ("JPEG",)),
        lambda: _annotate(files, tables, rule, allow_absent=on_bad_file == "skip"),
        BadFiles(on_bad_file, max_bad),
        workers,
        tables=[table for table in tables.values() if table is not None],
        partition=rule,
    )


def _folders_of_tables(files: Source, source: Path) -> list[Path]:
    """Returns the folders from that of the images upwards, to the parent of the source."""
    top = source.absolute().parent
    folders = [files.folder.absolute()]
    while folders[-1] != top and top in folders[-1].parents:
        folders.append(folders[-1].parent)
    return folders


def _annotate(
    files: Source,
    tables: Mapping[str, Path | None],
    rule: tuple[str, int, int],
    allow_absent: bool,
) -> Annotations:
    """Returns splits and labels; `rule` is partition, train_count and test_count of `prepare`."""
    names = [member.name for member in files.members]
    partition, train_count, test_count = rule
    table = tables[PARTITION]
    if partition == "official" and table is None:
        raise UserError(f"there is no {PARTITION}.txt or .csv in {files.folder} or above")
    enough = len(names) >= train_count + test_count
    numbered = all(name.split(".")[0].isdecimal() for name in names)
    if partition == "reference" and not (enough and numbered):
        raise UserError(
            f"the reference partition needs {train_count + test_count} files named by numbers, "
            f"found {len(names)} files in {files.folder}"
        )
    if table is not None and partition in ("auto", "official"):
        splits = read_partition(table, names, allow_absent)
        found = Annotations(splits, f"official, {table.name}")
    elif partition != "fraction" and enough and numbered:
        found = _by_number(names, train_count, test_count)
    else:
        found = by_fraction(names)
    if (table := tables[ATTRIBUTES]) is not None:
        labels, label_names = read_attributes(table, names, allow_absent)
        found = replace(found, labels=labels, label_names=label_names)
    return found


def _by_number(names: list[str], train_count: int, test_count: int) -> Annotations:
    numbers = np.array([int(name.split(".")[0]) for name in names])
    last = train_count + test_count
    train = (numbers >= 1) & (numbers <= train_count)
    test = (numbers > train_count) & (numbers <= last)
    splits = np.where(train, TRAIN, np.where(test, TEST, VALIDATION)).astype(np.uint8)
    rule = f"reference: numbers 1 to {train_count} train, to {last} test, others validation"
    return Annotations(splits, rule)
