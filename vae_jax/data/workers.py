"""Draws or decodes images in several processes."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import types
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from typing import TypeVar

from vae_jax.types import UserError

T = TypeVar("T")
R = TypeVar("R")


def available_cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_processes(
    function: Callable[[T], R], items: Sequence[T], workers: int
) -> Generator[R, None, None]:
    """Yields the results of a function for every item, in order, computed in several processes.

    Close the generator to stop early: work that has not begun is dropped.

    Args:
        function: A function of a module that does not import JAX, or a `partial` of one.
        items: What it is applied to; each should take longer than sending it to a process.
        workers: The number of processes; for one worker or one item this process does the work.

    Raises:
        UserError: A process was killed, most likely for lack of memory.
    """
    workers = min(workers, len(items))
    if workers < 2:
        yield from map(function, items)
        return
    # Forking a process in which JAX runs threads can deadlock, so start fresh ones.
    context = multiprocessing.get_context("spawn")
    reader, writer = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(workers, context, _start, (reader,))
    try:
        with _small_workers():
            results = pool.map(function, items)
        yield from results
    except BrokenProcessPool as error:
        raise UserError(
            "a worker process was ended from outside: if memory ran out, take fewer workers; run "
            "again to go on from where it stopped"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
        writer.close()
        reader.close()


@contextlib.contextmanager
def _small_workers() -> Iterator[None]:
    """Starts workers with one BLAS thread, without the main script, which may import JAX."""
    main, threads = sys.modules["__main__"], os.environ.get("OPENBLAS_NUM_THREADS")
    sys.modules["__main__"] = types.ModuleType("__main__")
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        if threads is None:
            del os.environ["OPENBLAS_NUM_THREADS"]
        else:
            os.environ["OPENBLAS_NUM_THREADS"] = threads


def _start(reader: Connection) -> None:
    """Prepares a worker: Ctrl-C is its parent's business, and it leaves with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def wait() -> None:
        # The parent holds the only writing end, which closes however the parent ends.
        with contextlib.suppress(EOFError):
            reader.recv()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
