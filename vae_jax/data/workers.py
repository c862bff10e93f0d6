"""Decodes chunks of files on all cores, in order, with bounded memory.

The workers are plain `python -m vae_jax.data.workers` processes. Nothing is forked from a parent
that may have JAX and its threads loaded, the parent's main script is not imported again as
multiprocessing does, and a worker ends by itself when its parent dies. Requests and replies go
through pipes, pixels through anonymous shared memory that is divided into slots of one chunk.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import queue
import signal
import struct
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future
from typing import IO, Any, BinaryIO, NamedTuple

import numpy as np

from vae_jax.data.decoding import Crop, decode_image
from vae_jax.data.sources import Member, open_archive, read_member
from vae_jax.types import UserError

AHEAD = 2  # Requests in flight to a worker, so that it never waits for the parent.
SLOTS_PER_WORKER = AHEAD + 2


class Job(NamedTuple):
    """What to do with every file: where it is, and `decode_image`'s arguments."""

    root: str
    is_zip: bool
    size: int
    crop: Crop
    formats: tuple[str, ...]


class Chunk(NamedTuple):
    """Decoded files.

    Attributes:
        images: `[N, size, size, 3]` uint8, the files that could be decoded.
        bad: position in the chunk and reason, for each of the others.
        digests: SHA-256 of every file that could be read, joined, in hexadecimal.
    """

    images: np.ndarray
    bad: list[tuple[int, str]]
    digests: str


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
                yield _decode_chunk(job, archive, members, images)
        finally:
            if archive is not None:
                archive.close()
        return
    team = _Team(job, chunks, min(workers, len(chunks)))
    try:
        yield from team.results()
    finally:
        team.close()


def _decode_chunk(
    job: Job, archive: BinaryIO | None, members: Sequence[Member], images: np.ndarray
) -> Chunk:
    """Read and decode some files into `images`; bad ones are reported, not raised."""
    bad: list[tuple[int, str]] = []
    digests = []
    for index, member in enumerate(members):
        try:
            data = read_member(job.root, archive, member)
            digests.append(hashlib.sha256(data).hexdigest())
            images[index - len(bad)] = decode_image(data, job.size, job.crop, job.formats)
        except UserError as error:
            bad.append((index, str(error)))
    return Chunk(images[: len(members) - len(bad)], bad, "".join(digests))


class _Task(NamedTuple):
    members: Sequence[Member]
    result: Future


class _Team:
    def __init__(self, job: Job, chunks: Sequence[Sequence[Member]], workers: int) -> None:
        tasks = [_Task(chunk, Future()) for chunk in chunks]
        self._todo = deque(tasks)
        self._futures = deque(task.result for task in tasks)
        self._closed = False
        slots = SLOTS_PER_WORKER * workers
        shape = (slots, max(map(len, chunks)), job.size, job.size, 3)
        with _anonymous_file() as shared:
            os.ftruncate(shared.fileno(), int(np.prod(shape)))
            self._pixels = _map_pixels(shared.fileno(), shape)
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
            [sys.executable, "-m", "vae_jax.data.workers"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": "1"},
            pass_fds=[shared],
        )
        with contextlib.suppress(BrokenPipeError):  # `_drive` notices and says so.
            _send(_pipe(worker.stdin), (job._asdict(), shared, shape))
        return worker

    def _next(self, wait: bool) -> tuple[int, _Task] | None:
        """A free slot and the next task; None when there is no task, or no slot without waiting."""
        if not self._todo:
            return None
        try:
            slot = self._free.get(block=wait)
        except queue.Empty:
            return None
        if self._closed:
            return None
        try:
            return slot, self._todo.popleft()
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
                    _send(_pipe(worker.stdin), (slot, task.members))
                if not sent:
                    return
                reply = _receive(_pipe(worker.stdout))
                slot, result = sent.popleft()
                result.set_result((slot, *reply))
        except (OSError, EOFError):
            error = UserError(
                f"a decoding process ended unexpectedly (exit status {worker.wait()}): if memory "
                "ran out, take fewer workers; run again to go on from where it stopped"
            )
            # Nobody may be left to do the rest, so that everything still open fails.
            while self._todo:
                with contextlib.suppress(IndexError):  # Another thread was faster.
                    sent.append((-1, self._todo.popleft().result))
            for _, result in sent:
                result.set_exception(error)


def _anonymous_file() -> BinaryIO:
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("pixels"), "r+b")
    return tempfile.TemporaryFile()


def _map_pixels(handle: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.frombuffer(mmap.mmap(handle, int(np.prod(shape))), np.uint8).reshape(shape)


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None  # Every worker is started with both.
    return pipe


def _send(pipe: IO[bytes], item: Any) -> None:
    data = json.dumps(item).encode()  # ASCII: file names may hold bytes that are no UTF-8
    pipe.write(struct.pack("<q", len(data)) + data)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> Any:
    header = pipe.read(8)
    if len(header) < 8:
        raise EOFError
    (size,) = struct.unpack("<q", header)
    data = pipe.read(size)
    if len(data) < size:
        raise EOFError
    return json.loads(data)


def _serve() -> None:
    """Answer requests from stdin on stdout until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business.
    requests, replies = sys.stdin.buffer, sys.stdout.buffer
    try:
        fields, shared, shape = _receive(requests)
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in fields.items()
        }
        job = Job(**values)
        pixels = _map_pixels(shared, shape)
        archive = open_archive(job.root, job.is_zip)
        while True:
            slot, members = _receive(requests)
            chunk = _decode_chunk(job, archive, [Member(*m) for m in members], pixels[slot])
            _send(replies, (len(chunk.images), chunk.bad, chunk.digests))
    except (EOFError, BrokenPipeError):
        os._exit(0)  # Without flushing to a pipe that nobody reads.


if __name__ == "__main__":
    _serve()
