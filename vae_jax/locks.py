"""A lock that one process holds: a file that names its holder, and frees itself if it is killed."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from vae_jax.types import UserError

# How long a holder that is just starting has to write its name.
PATIENCE_SECONDS = 1.0

_held: set[int] = set()  # descriptors; a forked child drops them, or it would keep the lock alive


def _drop_in_child() -> None:
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_drop_in_child)


@contextmanager
def file_lock(path: Path, busy: str, remedy: str) -> Iterator[None]:
    """Holds the lock file `path` (flock), and removes it afterwards.

    Args:
        path: The file. It holds pid, host and start time of its holder.
        busy: How the error begins where another process holds the lock, such as "RUN is in use by".
        remedy: How it ends: what the user can do.

    Raises:
        UserError: Another process holds the lock; names that process.
        OSError: The file cannot be made.
    """
    descriptor = _locked(path, busy, remedy)
    _held.add(descriptor)
    try:
        since = datetime.now().astimezone().isoformat(timespec="seconds")
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holder).encode(), 0)
        yield
    finally:
        if descriptor in _held:  # not in a forked child that unwinds the same stack
            path.unlink(missing_ok=True)
            _held.remove(descriptor)
            os.close(descriptor)


def _locked(path: Path, busy: str, remedy: str) -> int:
    """Returns a descriptor of the file at `path` that holds its lock."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise UserError(f"{busy} {_holder(path)}; {remedy}") from None
        except OSError as error:  # Some network and FUSE file systems have no locks.
            logging.warning("No lock at %s (%s): start no second process there.", path, error)
        # The previous holder may have removed the file between our open and our lock.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        os.close(descriptor)


def _holder(path: Path) -> str:
    """Returns who holds the lock at `path`, in words."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            holder = json.loads(path.read_bytes())
            return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
        except (OSError, ValueError, LookupError, TypeError):
            if time.monotonic() > deadline:
                return "a process that left no name"
        time.sleep(0.05)
