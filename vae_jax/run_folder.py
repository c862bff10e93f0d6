"""The files of a run folder: config.json, the rows of metrics.jsonl, and the lock of its writer."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from vae_jax import config as configs
from vae_jax.files import explained, reason_of, replace_synced
from vae_jax.locks import file_lock
from vae_jax.types import UserError

CONFIG_FILE = "config.json"
METRICS_FILE = "metrics.jsonl"
CHECKPOINTS = "checkpoints"
MEMBERS = "members"  # of a sweep: one run folder for each
ROW_HEAD = {"split": str, "epoch": int, "step": int}  # what every row begins with


def read_config(workdir: str | Path, kind: str | None = None) -> ConfigDict:
    """Returns the validated config of the run, sweep or classifier in a folder.

    Args:
        workdir: The folder.
        kind: The kind that the folder has to hold, one of `config.KINDS`; None for any.

    Raises:
        UserError: No config.json, one that is not valid (names file and field), or one of another
            kind.
    """
    path = Path(workdir) / CONFIG_FILE
    if not path.exists():
        raise UserError(f"{str(workdir)!r} is not a run folder: it has no {CONFIG_FILE}")
    try:
        config = configs.from_json(_read_text(path))
        configs.validate(config)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); restore it from a copy") from None
    found = configs.kind_of(config)
    if kind not in (None, found):
        members = f"{Path(workdir) / MEMBERS}/NAME"
        remedy = f"name one of its runs, {members}" if found == "sweep" else "name another folder"
        raise UserError(f"{str(workdir)!r} holds a {found}, but a {kind} is needed here: {remedy}")
    return config


def saved_config(workdir: str | Path, kind: str) -> ConfigDict | None:
    """Returns the config that a folder was trained with so far, or None if nothing is there.

    Raises:
        UserError: See `read_config`; nothing is trained in a folder of another kind.
    """
    return read_config(workdir, kind) if (Path(workdir) / CONFIG_FILE).exists() else None


def write_config(workdir: str | Path, config: ConfigDict) -> None:
    """Writes WORKDIR/config.json, all or nothing."""
    path = Path(workdir) / CONFIG_FILE
    with explained(path):
        replace_synced(path, configs.to_json(config).encode())


def read_rows(workdir: str | Path) -> list[dict[str, Any]]:
    """Returns all complete rows of WORKDIR/metrics.jsonl, oldest first; none if there is no file.

    Raises:
        UserError: The file cannot be read, or has a line that is no row; names the line.
    """
    path = Path(workdir) / METRICS_FILE
    if not path.exists():
        return []
    # A row cut short by a crash was never acknowledged: its step is trained again.
    lines = _read_text(path).split("\n")[:-1]
    return [_row(f"{path}:{number}", line) for number, line in enumerate(lines, 1) if line]


def _row(place: str, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place} is not JSON ({error}); repair or remove it") from None
    for name, kind in ROW_HEAD.items():
        if not isinstance(row, dict) or type(row.get(name)) is not kind:
            raise UserError(f"{place} is not a row with {name!r}; repair or remove it")
    return row


def _read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise UserError(f"cannot read {path}: {reason_of(error)}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text; restore it from a copy") from None


class MetricsLog:
    """Appends rows to WORKDIR/metrics.jsonl, each on disk before `write` returns.

    Args:
        workdir: The run folder.
        step: Rows of later steps are dropped, since a resumed run writes them again.
        tensorboard: Whether to write TensorBoard events too.

    Raises:
        UserError: There are rows, but the folder of checkpoints is gone; or tensorboard is asked
            for and tensorboardX is not installed.
    """

    def __init__(self, workdir: str | Path, step: int, tensorboard: bool = False) -> None:
        self._path, rows = Path(workdir) / METRICS_FILE, read_rows(workdir)
        checkpoints = Path(workdir) / CHECKPOINTS
        if rows and not checkpoints.exists():
            raise UserError(
                f"{self._path} has rows up to step {rows[-1]['step']}, but {checkpoints} is gone: "
                f"restore it from a copy, or remove {METRICS_FILE} to start again at step 0"
            )
        checkpoints.mkdir(parents=True, exist_ok=True)  # before the first row
        kept = "".join(_line(row) for row in rows if row["step"] <= step)
        replace_synced(self._path, kept.encode())
        self._file = self._path.open("a", encoding="utf-8")
        self._events = _event_writer(Path(workdir), step) if tensorboard else None

    def write(self, row: dict[str, Any]) -> None:
        """Appends a row: `split`, `epoch`, `step` and the metrics."""
        self._file.write(_line(row))
        self._file.flush()
        os.fsync(self._file.fileno())
        if self._events is None:
            return
        for name, value in row.items():
            if isinstance(value, float):
                self._events.add_scalar(f"{row['split']}/{name}", value, row["step"])
        self._events.flush()

    def close(self) -> None:
        """Closes the files."""
        self._file.close()
        if self._events is not None:
            self._events.close()


def _line(row: dict[str, Any]) -> str:
    # NaN is not JSON: a diverged figure is written as null.
    finite = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }
    return json.dumps(finite, allow_nan=False) + "\n"


def _event_writer(workdir: Path, step: int) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise UserError(
            "config.log.tensorboard is on, but tensorboardX is not installed; "
            "install the extra `tensorboard`"
        ) from None
    return SummaryWriter(str(workdir / "tensorboard"), purge_step=step + 1)


@contextmanager
def run_lock(workdir: str | os.PathLike[str]) -> Iterator[None]:
    """Holds `WORKDIR/.lock`, so that no second process writes the same run folder.

    Args:
        workdir: The run folder; made if it is missing.

    Raises:
        UserError: The folder cannot be written, or another process holds the lock; names it.
    """
    path = Path(workdir) / ".lock"
    with explained(workdir, "name another --workdir"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    remedy = "wait for it, stop it, or choose another folder"
    with file_lock(path, f"Run folder {workdir} is in use by", remedy):
        yield
