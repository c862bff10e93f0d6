"""Brings batches to the device: the whole split lies there, or pieces of it are streamed."""

from __future__ import annotations

import copy
import itertools
import math
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol, Self

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vae_jax.data.batches import Batches
from vae_jax.devices import BATCHES, DATA, WHOLE, assemble, axis_size, place
from vae_jax.types import UserError

# Host memory that one piece of a streamed epoch may take.
STREAM_BYTES = 64 * 2**20
# How many pieces are read while the device works on another one.
PIECES_AHEAD = 2


class Segment(NamedTuple):
    """Images on the device and the batches to draw from them.

    Attributes:
        images: `[N, H, W, C]` uint8; `[S, B, H, W, C]`, one batch after the other, without rows.
        labels: `[N, L]` float32 condition, or None; `[S, B, L]` without rows.
        rows: `[S, B]` int32, the images of each of S batches, or None.
        weights: `[S, B]` float32, 0 for the padding of the last, smaller batch.
        first: The first batch to take.
        end: One past the last batch to take; later ones only keep all segments of one shape, so
            that one program serves them.
    """

    images: jax.Array
    labels: jax.Array | None
    rows: jax.Array | None
    weights: jax.Array
    first: int
    end: int


class Feed(Protocol):
    """Yields the batches of a split, on the device."""

    steps_per_epoch: int
    seconds_waited: float
    mesh: Mesh | None

    def segments(self, epoch: int, start: int = 0) -> Iterator[Segment]:
        """Yields the batches `start`, `start + 1`, ... of `epoch`, in one or several pieces."""
        ...

    def reordered(self, seed: int | None) -> Self:
        """Returns the same images in the order of another seed."""
        ...


@dataclass(eq=False)
class _BatchFeed:
    """What both feeds share.

    Args:
        batches: What to feed; their size is a multiple of the devices along the axis `data`.
        mesh: The devices that divide every batch among themselves; None for one device.
    """

    batches: Batches
    mesh: Mesh | None = None
    steps_per_epoch: int = field(init=False)
    seconds_waited: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self.steps_per_epoch = self.batches.per_epoch

    def reordered(self, seed: int | None) -> Self:
        """Returns the same images, on the same device memory, in the order of another seed."""
        other = copy.copy(self)
        other.batches = replace(self.batches, seed=seed)
        return other


class ResidentFeed(_BatchFeed):
    """The whole split lies on every device as uint8; only the order travels."""

    def __post_init__(self) -> None:
        super().__post_init__()
        split, labels = self.batches.split, self.batches.labels
        images = split.take(np.arange(len(split)))
        self._images, self._labels = _on_device((images, labels), self.mesh)

    def segments(self, epoch: int, start: int = 0) -> Iterator[Segment]:
        """Yields one segment with the rest of the epoch."""
        rows, weights = _on_device(self.batches.plan(epoch), self.mesh, BATCHES)
        yield Segment(self._images, self._labels, rows, weights, start, self.steps_per_epoch)


class StreamingFeed(_BatchFeed):
    """Batches are read from the memory map by a thread, some pieces ahead of the device.

    Memory stays bounded by a few pieces of `STREAM_BYTES`, whatever the size of the split.
    `seconds_waited` counts the time the device had nothing to do. In a mesh every device gets the
    images of its own part of each batch, and a process reads those of its own devices alone.
    """

    def segments(self, epoch: int, start: int = 0) -> Iterator[Segment]:
        """Yields segments of equally many batches, the last one padded with batches of weight 0."""
        began = time.monotonic()
        rows, weights = self.batches.plan(epoch)
        batch_bytes = self.batches.size * math.prod(self.batches.split.image_shape)
        steps = max(1, min(STREAM_BYTES // batch_bytes, self.steps_per_epoch))
        pieces = (slice(first, first + steps) for first in range(start, len(rows), steps))
        reader = ThreadPoolExecutor(1, "reader")

        def read(count: int) -> list[Future[Segment]]:
            return [
                reader.submit(self._segment, rows[piece], weights[piece], steps)
                for piece in itertools.islice(pieces, count)
            ]

        try:
            ahead = deque(read(PIECES_AHEAD))
            while ahead:
                segment = ahead.popleft().result()
                self.seconds_waited += time.monotonic() - began
                ahead.extend(read(1))
                yield segment
                began = time.monotonic()
        finally:
            reader.shutdown(cancel_futures=True)

    def _segment(self, rows: np.ndarray, weights: np.ndarray, steps: int) -> Segment:
        taken, split, labels = len(rows), self.batches.split, self.batches.labels
        padding = ((0, steps - taken), (0, 0))
        rows, weights = np.pad(rows, padding, mode="edge"), np.pad(weights, padding)
        if self.mesh is not None and axis_size(self.mesh, DATA) > 1:
            return self._divided_segment(self.mesh, rows, weights, taken)
        flat = rows.reshape(-1)
        local = np.arange(flat.size, dtype=np.int32).reshape(steps, -1)
        arrays = (split.take(flat), None if labels is None else labels[flat], local, weights)
        images, own, drawn, kept = _on_device(arrays, self.mesh)
        return Segment(images, own, drawn, kept, 0, taken)

    def _divided_segment(
        self, mesh: Mesh, rows: np.ndarray, weights: np.ndarray, taken: int
    ) -> Segment:
        split, labels = self.batches.split, self.batches.labels

        def images_at(index: tuple[slice, ...]) -> np.ndarray:
            own = rows[index[:2]]
            return split.take(own.reshape(-1)).reshape(*own.shape, *split.image_shape)

        shape, sharding = (*rows.shape, *split.image_shape), NamedSharding(mesh, BATCHES)
        images = assemble(shape, sharding, images_at)
        own, kept = place((None if labels is None else labels[rows], weights), mesh, BATCHES)
        return Segment(images, own, None, kept, 0, taken)


def _on_device(arrays: Any, mesh: Mesh | None, spec: PartitionSpec = WHOLE) -> Any:
    return jax.device_put(arrays) if mesh is None else place(arrays, mesh, spec)


def make_feed(batches: Batches, resident: str, resident_gib: float, mesh: Mesh | None) -> Feed:
    """Makes the feed of a split: resident or streaming, which give the same batches bit for bit.

    Args:
        batches: What to feed.
        resident: 'always', 'never', or 'auto': resident when the split's bytes as uint8 are at
            most `resident_gib`. Processes that divide the batches stream: each reads its share.
        resident_gib: The largest resident split, in GiB.
        mesh: The devices that divide every batch among themselves; None for one device.

    Raises:
        UserError: `resident` is 'always', but several processes divide the batches.
    """
    if mesh is not None and axis_size(mesh, DATA) > 1 and mesh.is_multi_process:
        if resident == "always":
            raise UserError(
                "config.data.resident is 'always', but each of several processes reads only its "
                "share of the images: set it to 'auto'"
            )
        resident = "never"
    size = len(batches.split) * math.prod(batches.split.image_shape)
    keep = resident == "always" or (resident == "auto" and size <= resident_gib * 2**30)
    kind = ResidentFeed if keep else StreamingFeed
    return kind(batches, mesh)
