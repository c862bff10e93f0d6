"""One process a run folder: an advisory lock that the kernel frees when its holder dies."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from vae_jax.types import UserError

_held: set[int] = set()  # descriptors; a forked child drops them, or it would keep the lock alive


def _drop_in_child() -> None:
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_drop_in_child)


def _describe_holder(path: Path, patience: float = 1.0) -> str:
    """Who holds the lock at `path`; waits `patience` seconds for a holder that is just starting."""
    deadline = time.monotonic() + patience
    while True:
        try:
            holder = json.loads(path.read_text())
            return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
        except (OSError, ValueError, LookupError, TypeError):
            if time.monotonic() > deadline:
                return "a process that left no name"
        time.sleep(0.05)


@contextmanager
def run_lock(workdir: str | os.PathLike[str]) -> Iterator[None]:
    """Holds `WORKDIR/.lock` (flock) so that no second process writes the same run folder.

    A killed holder leaves no stale lock. The file names its holder: pid, host, start time.

    Args:
        workdir: the run folder; created if it is missing.

    Raises:
        UserError: another process holds the lock; the sentence names it.
    """
    path = Path(workdir) / ".lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    _held.add(descriptor)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"Run folder {workdir} is in use by {_describe_holder(path)}; "
                "wait for it, stop it, or choose another folder"
            ) from None
        except OSError as error:  # Some network and FUSE file systems have no locks.
            logging.warning("No lock on %s (%s): start no second run there.", path, error)
        since = datetime.now().astimezone().isoformat(timespec="seconds")
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holder).encode(), 0)
        try:
            yield
        finally:
            if descriptor in _held:
                os.ftruncate(descriptor, 0)
    finally:
        if descriptor in _held:  # not in a forked child that unwinds the same stack
            _held.remove(descriptor)
            os.close(descriptor)
