"""Metrics of a run as JSON lines, and as TensorBoard events when asked."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from vae_jax.data.durable import sync_directory
from vae_jax.processes import is_first
from vae_jax.types import UserError

FILE_NAME = "metrics.jsonl"


def read_rows(workdir: str | Path) -> list[dict[str, Any]]:
    """All complete rows of WORKDIR/metrics.jsonl, oldest first; none if there is no file."""
    path = Path(workdir) / FILE_NAME
    if not path.exists():
        return []
    # A row cut short by a crash was never acknowledged: its step is trained again.
    complete = [line for line in path.read_text().split("\n")[:-1] if line]
    rows = []
    for number, line in enumerate(complete, start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise UserError(f"{path}:{number} is not JSON ({error}); repair or remove it") from None
    return rows


class MetricsLog:
    """Appends rows to WORKDIR/metrics.jsonl, each on disk before `write` returns.

    Args:
        workdir: of the run.
        step: rows of later steps are dropped, since a resumed run writes them again.
        tensorboard: also write TensorBoard events.

    Raises:
        UserError: tensorboard is asked for and tensorboardX is not installed.
    """

    def __init__(self, workdir: str | Path, step: int, tensorboard: bool = False) -> None:
        self._path = Path(workdir) / FILE_NAME
        kept = [row for row in read_rows(workdir) if row["step"] <= step]
        temporary = self._path.with_suffix(".tmp")
        with temporary.open("w") as file:
            file.writelines(_line(row) for row in kept)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)
        sync_directory(self._path.parent)
        self._file = self._path.open("a")
        self._events = _event_writer(Path(workdir), step) if tensorboard else None

    def write(self, row: dict[str, Any]) -> None:
        """Append a row; it has `split`, `epoch`, `step` and the metrics."""
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
        """Close the files."""
        self._file.close()
        if self._events is not None:
            self._events.close()


class _NoLog(MetricsLog):
    """The log of a process that leaves writing to the first one."""

    def __init__(self) -> None:
        pass

    def write(self, row: dict[str, Any]) -> None:
        pass

    def close(self) -> None:
        pass


def open_log(workdir: str | Path, step: int, tensorboard: bool = False) -> MetricsLog:
    """The log of a run, which process 0 writes; see `MetricsLog`."""
    return MetricsLog(workdir, step, tensorboard) if is_first() else _NoLog()


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
