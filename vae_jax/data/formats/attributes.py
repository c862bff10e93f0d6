"""Reads CelebA's text tables: 40 binary attributes and the official partition, .txt or .csv.

list_attr_celeba.txt      number of images; attribute names; `000001.jpg -1  1 ...`
list_attr_celeba.csv      `image_id,5_o_Clock_Shadow,...`; `000001.jpg,-1,1,...`
list_eval_partition.txt   `000001.jpg 0`
list_eval_partition.csv   `image_id,partition`; `000001.jpg,0`
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vae_jax.types import UserError

ATTRIBUTES = "list_attr_celeba"
PARTITION = "list_eval_partition"
MAX_TABLE_BYTES = 512 * 2**20
BINARY_CODES = ({"-1": 0, "1": 1}, {"0": 0, "1": 1})
PARTITION_CODES = {"0": 0, "1": 1, "2": 2}


class Table(NamedTuple):
    """A table: its column names (perhaps none), and line number and values of each image."""

    path: Path
    columns: tuple[str, ...]
    rows: dict[str, tuple[int, list[str]]]


def find_table(folders: Iterable[Path], stem: str) -> Path | None:
    """Returns the first `stem`.txt or .csv in `folders`, or in their `Anno` and `Eval` folders."""
    for folder in folders:
        for place in (folder, folder / "Anno", folder / "Eval"):
            for suffix in (".txt", ".csv"):
                if (path := place / (stem + suffix)).is_file():
                    return path
    return None


def read_attributes(
    path: Path, names: Sequence[str], allow_absent: bool = False
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Reads the attributes of the images `names`.

    Args:
        path: The file list_attr_celeba.txt or .csv, with values -1/1 or 0/1.
        names: The N names of image files.
        allow_absent: Whether to accept lines about images that are not among `names`.

    Returns:
        `[N, A]` uint8 in {0, 1}, and the A attribute names.

    Raises:
        UserError: The table cannot be used; names the line.
    """
    table = _read_table(path, has_columns=True)
    codes = None
    for line, values in table.rows.values():
        kinds = set(values)
        if codes is None and kinds != {"1"}:
            codes = BINARY_CODES[0] if "-1" in kinds else BINARY_CODES[1]
        if not kinds <= (codes or BINARY_CODES[0]).keys():
            raise UserError(
                f"{path} line {line}: values {', '.join(sorted(kinds))[:80]}, "
                "expected only -1 and 1, or only 0 and 1, in the whole file"
            )
    codes = codes or BINARY_CODES[0]
    rows = _rows_of(table, names, allow_absent)
    labels = np.array([[codes[value] for value in row] for row in rows], np.uint8)
    return labels.reshape(len(names), len(table.columns)), table.columns


def read_partition(path: Path, names: Sequence[str], allow_absent: bool = False) -> np.ndarray:
    """Reads the split of the images `names`: `[N]` uint8, 0 train, 1 validation, 2 test.

    Arguments and errors as in `read_attributes`.
    """
    table = _read_table(path, has_columns=False)
    for line, values in table.rows.values():
        if len(values) != 1 or values[0] not in PARTITION_CODES:
            raise UserError(
                f"{path} line {line}: {' '.join(values)[:80]!r}, expected a file name and 0 "
                "(train), 1 (validation) or 2 (test)"
            )
    rows = _rows_of(table, names, allow_absent)
    return np.array([PARTITION_CODES[row[0]] for row in rows], np.uint8)


def _read_table(path: Path, has_columns: bool) -> Table:
    """Parses either kind; `has_columns`: a .txt starts with a count and a line of names."""
    lines = _read_lines(path)
    is_csv = path.suffix == ".csv"
    first, columns, count = 0, [], None
    if is_csv:
        first, columns = 1, _fields(lines[0], is_csv)[1:]
    elif has_columns:
        if not lines[0].strip().isdecimal() or len(lines) < 2:
            raise UserError(f"{path} line 1: {lines[0][:80]!r}, expected the number of images")
        first, columns, count = 2, _fields(lines[1], is_csv), int(lines[0].strip()[:18])
    if (has_columns or is_csv) and (not columns or len(set(columns)) != len(columns)):
        raise UserError(f"{path} line {first}: column names are missing or there twice")
    rows: dict[str, tuple[int, list[str]]] = {}
    for line, text in enumerate(lines[first:], first + 1):
        name, *values = _fields(text, is_csv) or [""]
        if not name:
            raise UserError(f"{path} line {line} is empty")
        if columns and len(values) != len(columns):
            raise UserError(f"{path} line {line}: {len(values)} values, expected {len(columns)}")
        if name in rows:
            raise UserError(f"{path} line {line}: {name[:80]} is on line {rows[name][0]} already")
        rows[name] = line, values
    if count is not None and count != len(rows):
        raise UserError(f"{path} line 1 says {count} images, but {len(rows)} lines follow")
    return Table(path, tuple(columns), rows)


def _read_lines(path: Path) -> list[str]:
    try:
        if path.stat().st_size > MAX_TABLE_BYTES:
            raise UserError(f"{path} is larger than {MAX_TABLE_BYTES} bytes")
        text = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n").rstrip()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a text file ({error})") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if not text:
        raise UserError(f"{path} is empty")
    return text.split("\n")


def _fields(line: str, is_csv: bool) -> list[str]:
    return [field.strip() for field in line.split(",")] if is_csv else line.split()


def _rows_of(table: Table, names: Sequence[str], allow_absent: bool) -> list[list[str]]:
    unlisted = [name for name in names if name not in table.rows]
    if unlisted:
        raise UserError(
            f"{table.path} has no line about {unlisted[0]}{_and_more(unlisted)}, "
            "which lies among the images: it belongs to another set of images"
        )
    if not allow_absent and len(table.rows) != len(names):
        present = set(names)
        absent = [name for name in table.rows if name not in present]
        raise UserError(
            f"{table.path} line {table.rows[absent[0]][0]}: there is no image "
            f"{absent[0][:80]}{_and_more(absent)}: complete the images, or skip bad files"
        )
    return [table.rows[name][1] for name in names]


def _and_more(items: Sequence[str]) -> str:
    return f" (and {len(items) - 1} more)" if len(items) > 1 else ""
