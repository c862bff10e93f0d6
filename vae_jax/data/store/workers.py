"""Decodes chunks of files on all cores, in order, with bounded memory.

The workers are plain `python -m ...decoding_worker` processes. Nothing is forked from a
parent that may have JAX and its threads loaded, the parent's main script is not imported again as
multiprocessing does, and a worker ends by itself when its parent dies. Requests and replies go
through pipes, pixels through anonymous shared memory that is divided into slots of one chunk.
"""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future
from typing import IO, BinaryIO, NamedTuple

import numpy as np

from vae_jax.data.store.decoding_worker import Chunk, Job, decode_chunk, map_pixels, receive, send
from vae_jax.data.store.sources import Member, open_archive
from vae_jax.types import UserError

AHEAD = 2  # Requests in flight to a worker, so that it never waits for the parent.
SLOTS_PER_WORKER = AHEAD + 2


def available_cores() -> int:
    """Number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def decode_in_order(job: Job, chunks: Sequence[Sequence[Member]], workers: int) -> Generator[Chunk]:
    """Decode `chunks` on `workers` processes and yield the results in their order.

    With one worker, or one chunk, this process does it itself. The images of a result are only
    valid until the next result is asked for.

    Raises:
        UserError: a worker ended unexpectedly.
    """
    if min(workers, len(chunks)) < 2:
        archive = open_archive(job.root, job.is_zip)
        try:
            for members in chunks:
                images = np.empty((len(members), job.size, job.size, 3), np.uint8)
                yield decode_chunk(job, archive, members, images)
        finally:
            if archive is not None:
                archive.close()
        return
    team = _Team(job, chunks, min(workers, len(chunks)))
    try:
        yield from team.results()
    finally:
        team.close()


class _Task(NamedTuple):
    members: Sequence[Member]
    result: Future


class _Team:
    def __init__(self, job: Job, chunks: Sequence[Sequence[Member]], workers: int) -> None:
        tasks = [_Task(chunk, Future()) for chunk in chunks]
        self._waiting = deque(tasks)
        self._futures = deque(task.result for task in tasks)
        self._closed = False
        slots = SLOTS_PER_WORKER * workers
        shape = (slots, max(map(len, chunks)), job.size, job.size, 3)
        with _anonymous_file() as shared:
            os.ftruncate(shared.fileno(), int(np.prod(shape)))
            self._pixels = map_pixels(shared.fileno(), shape)
            self._workers = [self._start(shared.fileno(), job, shape) for _ in range(workers)]
        # Free slots bound what is decoded but not yet taken, and with it the memory.
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        for slot in range(slots):
            self._free.put(slot)
        self._threads = [
            threading.Thread(target=self._drive, args=(worker,), daemon=True)
            for worker in self._workers
        ]
        for thread in self._threads:
            thread.start()

    def results(self) -> Generator[Chunk]:
        while self._futures:
            slot, count, bad, digests = self._futures.popleft().result()
            yield Chunk(self._pixels[slot, :count], [(i, reason) for i, reason in bad], digests)
            self._free.put(slot)

    def close(self) -> None:
        self._closed = True
        for worker in self._workers:
            worker.kill()
            self._free.put(-1)  # Wakes a thread that waits for a slot.
        for worker, thread in zip(self._workers, self._threads, strict=True):
            thread.join()
            worker.wait()
            for pipe in (worker.stdin, worker.stdout):
                with contextlib.suppress(BrokenPipeError):  # An unsent request to one that is gone.
                    _pipe(pipe).close()

    @staticmethod
    def _start(shared: int, job: Job, shape: tuple[int, ...]) -> subprocess.Popen[bytes]:
        paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
        worker = subprocess.Popen(
            [sys.executable, "-m", "vae_jax.data.store.decoding_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": "1"},
            pass_fds=[shared],
        )
        with contextlib.suppress(BrokenPipeError):  # `_drive` notices and says so.
            send(_pipe(worker.stdin), (job._asdict(), shared, shape))
        return worker

    def _next(self, wait: bool) -> tuple[int, _Task] | None:
        """A free slot and the next task; None when there is no task, or no slot without waiting."""
        if not self._waiting:
            return None
        try:
            slot = self._free.get(block=wait)
        except queue.Empty:
            return None
        if self._closed:
            return None
        try:
            return slot, self._waiting.popleft()
        except IndexError:  # Another thread took the last task while this one waited.
            self._free.put(slot)
            return None

    def _drive(self, worker: subprocess.Popen[bytes]) -> None:
        sent: deque[tuple[int, Future]] = deque()
        try:
            while True:
                while len(sent) < AHEAD and (assigned := self._next(wait=not sent)):
                    slot, task = assigned
                    sent.append((slot, task.result))
                    send(_pipe(worker.stdin), (slot, task.members))
                if not sent:
                    return
                reply = receive(_pipe(worker.stdout))
                slot, result = sent.popleft()
                result.set_result((slot, *reply))
        except (OSError, EOFError):
            error = UserError(
                f"a decoding process ended unexpectedly (exit status {worker.wait()}): if memory "
                "ran out, take fewer workers; run again to go on from where it stopped"
            )
            # Nobody may be left to do the rest, so that everything still open fails.
            while self._waiting:
                with contextlib.suppress(IndexError):  # Another thread was faster.
                    sent.append((-1, self._waiting.popleft().result))
            for _, result in sent:
                result.set_exception(error)


def _anonymous_file() -> BinaryIO:
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("pixels"), "r+b")
    return tempfile.TemporaryFile()


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None  # Every worker is started with both.
    return pipe
