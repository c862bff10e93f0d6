"""One process that decodes chunks of files for its parent, and the messages between the two.

`python -m ...decoding_worker` is started by `workers.py`. A message is JSON behind its
length. The first request is the job, the handle and the shape of the shared memory; each later one
is a slot of that memory and the files to decode into it, and its reply what `Chunk` holds besides
the images: their number, the bad files, the digests.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import signal
import struct
import sys
from collections.abc import Sequence
from typing import IO, Any, BinaryIO, NamedTuple

import numpy as np

from vae_jax.data.store.decoding import Crop, decode_image
from vae_jax.data.store.sources import Member, open_archive, read_member
from vae_jax.types import UserError


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


def decode_chunk(
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


def map_pixels(handle: int, shape: tuple[int, ...]) -> np.ndarray:
    """The shared memory behind a file handle as uint8 pixels of `shape`."""
    return np.frombuffer(mmap.mmap(handle, int(np.prod(shape))), np.uint8).reshape(shape)


def send(pipe: IO[bytes], item: Any) -> None:
    """Write one message, anything that JSON can hold."""
    data = json.dumps(item).encode()  # ASCII: file names may hold bytes that are no UTF-8
    pipe.write(struct.pack("<q", len(data)) + data)
    pipe.flush()


def receive(pipe: IO[bytes]) -> Any:
    """Read one message.

    Raises:
        EOFError: the other side is gone.
    """
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
        fields, shared, shape = receive(requests)
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in fields.items()
        }
        job = Job(**values)
        pixels = map_pixels(shared, shape)
        archive = open_archive(job.root, job.is_zip)
        while True:
            slot, members = receive(requests)
            chunk = decode_chunk(job, archive, [Member(*m) for m in members], pixels[slot])
            send(replies, (len(chunk.images), chunk.bad, chunk.digests))
    except (EOFError, BrokenPipeError):
        os._exit(0)  # Without flushing to a pipe that nobody reads.


if __name__ == "__main__":
    _serve()
