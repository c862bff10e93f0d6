"""The folders of steps, `DIRECTORY/<step>/`: lists, reads, syncs and removes them."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from vae_jax.checkpoint import digests
from vae_jax.files import replace_synced, sync
from vae_jax.types import UserError

RECORD = "record"  # the JSON item beside the arrays
RECORD_FILE = "metadata"  # Orbax's name for the file of a JSON item
TRASH = ".deleted"
PATIENCE_SECONDS = 2.0


class Damaged(Exception):
    """A step on disk is not what was saved; the text names the place and the reason."""


class StepFolders:
    """The folders that are named by a step; anything else in the directory is ignored.

    A step is renamed away before it is deleted, so that a killed process leaves no half step.
    """

    def __init__(self, directory: str | os.PathLike[str], unfinished: str):
        """Opens a directory; `unfinished` is the suffix of the folder of a save under way."""
        self.directory = Path(directory).absolute()
        self._unfinished = unfinished

    def numbers(self) -> list[int]:
        """Returns all steps that have a folder, good or not, oldest first."""
        if not self.directory.is_dir():
            return []
        names = (entry.name for entry in self.directory.iterdir() if entry.is_dir())
        return sorted(int(n) for n in names if n.isascii() and n.isdigit() and n == str(int(n)))

    def record(self, step: int) -> dict[str, Any]:
        """Returns the verified JSON record of a step: loss, metadata, and every leaf's digest.

        Raises:
            Damaged: The record is missing or was altered.
            UserError: The record may not be read.
        """
        try:
            record = digests.unseal(self._record_path(step).read_bytes())
        except FileNotFoundError:
            raise Damaged("its record file is missing") from None
        except PermissionError as error:
            raise UserError(f"Checkpoint step {step} may not be read: {error}") from error
        except (OSError, ValueError, RecursionError) as error:
            raise Damaged(f"its record file cannot be used, {error}") from error
        if not _is_record(record, step):
            raise Damaged("its record file is not the record of this step")
        return record

    def replace_record(self, step: int, sealed: dict[str, Any]) -> None:
        """Exchanges the record of a step by one rename."""
        replace_synced(self._record_path(step), json.dumps(sealed).encode())

    def _record_path(self, step: int) -> Path:
        return self.directory / str(step) / RECORD / RECORD_FILE

    def sync(self, step: int) -> None:
        """Makes all files of a step, and its name, survive a power failure (fsync)."""
        folder = self.directory / str(step)
        for path in [*folder.rglob("*"), folder, self.directory, self.directory.parent]:
            sync(path)

    def discard(self, step: int) -> None:
        """Deletes a step if it exists, good or not."""
        folder, trash = self.directory / str(step), self.directory / TRASH
        if folder.exists():
            trash.mkdir(exist_ok=True)
            folder.replace(trash / str(step))
            shutil.rmtree(trash)

    def set_aside(self, step: int) -> None:
        """Renames a damaged step to `<step>.damaged`: parts of it may still be of use."""
        folder, aside = self.directory / str(step), self.directory / f"{step}.damaged"
        if folder.exists():
            shutil.rmtree(aside, ignore_errors=True)
            folder.replace(aside)

    def remove_rests(self) -> None:
        """Removes the rests of saves and deletions that were interrupted.

        After a failed save, threads that still write may put files back: tries again for some time.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while rests := [*self.directory.glob(TRASH), *self.directory.glob(f"*{self._unfinished}*")]:
            for rest in rests:
                shutil.rmtree(rest, ignore_errors=time.monotonic() < deadline)
            time.sleep(0.05)


def _is_record(record: Any, step: int) -> bool:
    """Returns whether a record has all parts: somebody may have sealed another one."""
    try:
        loss = record["validation_loss"]
        leaves = [leaf for item in record["items"].values() for leaf in item.values()]
        return (
            record["step"] == step
            and isinstance(record["metadata"], dict)
            and (loss is None or math.isfinite(loss))
            and all(jnp.dtype(leaf["dtype"]).name and leaf["sha256"] for leaf in leaves)
            and all(type(n) is int and n >= 0 for leaf in leaves for n in leaf["shape"])
        )
    except (AttributeError, LookupError, TypeError, OverflowError):
        return False


def steps_to_keep(
    validation_losses: dict[int, float], *, keep_latest: int, keep_best: int
) -> frozenset[int]:
    """Returns the steps that are kept: the newest ones and the best ones.

    Args:
        validation_losses: Validation loss of every good step; NaN and infinities are never best.
        keep_latest: How many of the newest steps are kept.
        keep_best: How many of the steps with the lowest finite loss are kept; at equal loss
            the earlier step is better, so that a plateau does not rewrite the best one.
    """
    newest = sorted(validation_losses, reverse=True)[:keep_latest]
    finite = [step for step, loss in validation_losses.items() if math.isfinite(loss)]
    best = sorted(finite, key=lambda step: (validation_losses[step], step))[:keep_best]
    return frozenset(newest) | frozenset(best)
