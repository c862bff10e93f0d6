"""Stateless order of the images, batches, and their way to the device.

The batch at step n is a pure function of (seed, n): no iterator has a state that would have to be
saved, and resuming needs the step alone.
"""

from __future__ import annotations

import copy
import queue
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vae_jax.mesh import BATCHES, DATA, WHOLE, assemble, axis_size, place
from vae_jax.streams import stream_key
from vae_jax.types import ImageSet, UserError

# Host memory that one piece of a streamed epoch may take; two are in flight.
STREAM_BYTES = 64 * 2**20


class Segment(NamedTuple):
    """Images on the device and the batches to draw from them.

    Attributes:
        images: `[N, H, W, C]` uint8; `[S, B, H, W, C]`, one batch after the other, without rows.
        labels: `[N, L]` float32 condition, or None; `[S, B, L]` without rows.
        rows: `[S, B]` int32, the images of each of S batches, or None.
        weights: `[S, B]` float32, 0 for the padding of the last, smaller batch.
        first: the first batch to take.
        end: one past the last batch to take; later ones only keep all segments of one shape, so
            that one program serves them.
    """

    images: jax.Array
    labels: jax.Array | None
    rows: jax.Array | None
    weights: jax.Array
    first: int
    end: int


class Feed(Protocol):
    """Where the batches of a split come from."""

    steps_per_epoch: int
    seconds_waited: float
    mesh: Mesh | None

    def segments(self, epoch: int, start: int = 0) -> Iterator[Segment]:
        """The batches `start`, `start + 1`, ... of `epoch`, in one or several pieces."""
        ...

    def reordered(self, seed: int | None) -> Self:
        """The same images in the order of another seed."""
        ...


def to_unit_range(images: jax.Array) -> jax.Array:
    """uint8 `[B, H, W, C]` to float32 in [0, 1]; floats pass through."""
    if images.dtype != jnp.uint8:
        return images
    return images.astype(jnp.float32) / 255.0


def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """The permutation `[count]` int32 in which epoch `epoch` visits the images."""
    key = stream_key(jax.random.key(seed), "order")
    return np.asarray(jax.random.permutation(jax.random.fold_in(key, epoch), count), np.int32)


def batch_rows(order: np.ndarray, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut an order `[N]` into batches; the last one is padded with its first image.

    Args:
        order: `[N]` positions within a split.
        batch_size: B.

    Returns:
        rows `[S, B]` int32 and weights `[S, B]` float32, 0 for padding; S = ceil(N / B).
    """
    steps = -(-len(order) // batch_size)
    rows = np.zeros((steps, batch_size), np.int32)
    weights = np.zeros((steps, batch_size), np.float32)
    rows.reshape(-1)[: len(order)] = order
    weights.reshape(-1)[: len(order)] = 1.0
    rows[weights == 0.0] = rows[-1, 0]
    return rows, weights


class _Batches:
    """What both feeds share.

    Args:
        split: the images.
        labels: `[N, L]` float32 condition, or None.
        batch_size: B, a multiple of the devices along the axis `data`.
        seed: of the order; None keeps the order of the split.
        mesh: the devices that divide every batch among themselves; None for one device.
    """

    def __init__(
        self,
        split: ImageSet,
        labels: np.ndarray | None,
        batch_size: int,
        seed: int | None,
        mesh: Mesh | None = None,
    ) -> None:
        self.split, self.labels, self.mesh = split, labels, mesh
        self.batch_size, self.seed = batch_size, seed
        self.steps_per_epoch = -(-len(split) // batch_size)
        self.seconds_waited = 0.0

    def reordered(self, seed: int | None) -> Self:
        """The same images, on the same device memory, in the order of another seed."""
        other = copy.copy(self)
        other.seed = seed
        return other

    def plan(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """rows and weights `[S, B]` of all batches of an epoch."""
        if self.seed is None:
            order = np.arange(len(self.split), dtype=np.int32)
        else:
            order = epoch_order(self.seed, epoch, len(self.split))
        return batch_rows(order, self.batch_size)


class ResidentFeed(_Batches):
    """The whole split lies on every device as uint8; only the order travels."""

    def __init__(
        self,
        split: ImageSet,
        labels: np.ndarray | None,
        batch_size: int,
        seed: int | None,
        mesh: Mesh | None = None,
    ) -> None:
        super().__init__(split, labels, batch_size, seed, mesh)
        images = split.take(np.arange(len(split)))
        self._images, self._labels = _on_device((images, labels), mesh)

    def segments(self, epoch: int, start: int = 0) -> Iterator[Segment]:
        """One segment with the rest of the epoch."""
        rows, weights = _on_device(self.plan(epoch), self.mesh, BATCHES)
        yield Segment(self._images, self._labels, rows, weights, start, self.steps_per_epoch)


class StreamingFeed(_Batches):
    """Batches are read from the memory map by a thread, a piece ahead of the device.

    Memory stays bounded by a few pieces of `STREAM_BYTES`, whatever the size of the split.
    `seconds_waited` counts the time the device had nothing to do. In a mesh every device gets the
    images of its own part of each batch, and a process reads those of its own devices alone.
    """

    def segments(self, epoch: int, start: int = 0) -> Iterator[Segment]:
        """Segments of equally many batches, the last one padded with batches of weight 0."""
        ready: queue.Queue = queue.Queue(maxsize=1)
        stop = threading.Event()
        reader = threading.Thread(
            target=self._read_ahead, args=(epoch, start, ready, stop), daemon=True
        )
        reader.start()
        try:
            while True:
                began = time.monotonic()
                piece = ready.get()
                self.seconds_waited += time.monotonic() - began
                if piece is None:
                    return
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
        finally:
            stop.set()
            while reader.is_alive():
                _drain(ready)
                reader.join(timeout=0.05)

    def _read_ahead(
        self, epoch: int, start: int, ready: queue.Queue, stop: threading.Event
    ) -> None:
        try:
            rows, weights = self.plan(epoch)
            batch_bytes = self.batch_size * int(np.prod(self.split.image_shape))
            steps = max(1, min(STREAM_BYTES // batch_bytes, self.steps_per_epoch))
            for first in range(start, len(rows), steps):
                if stop.is_set():
                    return
                piece = slice(first, first + steps)
                ready.put(self._segment(rows[piece], weights[piece], steps))
            ready.put(None)
        except BaseException as error:  # Reaches the consumer, which raises it.
            ready.put(error)

    def _segment(self, rows: np.ndarray, weights: np.ndarray, steps: int) -> Segment:
        taken = len(rows)
        padding = ((0, steps - taken), (0, 0))
        rows, weights = np.pad(rows, padding, mode="edge"), np.pad(weights, padding)
        if self.mesh is not None and axis_size(self.mesh, DATA) > 1:
            return self._divided_segment(self.mesh, rows, weights, taken)
        flat = rows.reshape(-1)
        local = np.arange(flat.size, dtype=np.int32).reshape(steps, -1)
        labels = None if self.labels is None else self.labels[flat]
        arrays = (self.split.take(flat), labels, local, weights)
        images, own, drawn, kept = _on_device(arrays, self.mesh)
        return Segment(images, own, drawn, kept, 0, taken)

    def _divided_segment(
        self, mesh: Mesh, rows: np.ndarray, weights: np.ndarray, taken: int
    ) -> Segment:
        sharding = NamedSharding(mesh, BATCHES)

        def images_at(index: tuple[slice, ...]) -> np.ndarray:
            own = rows[index[:2]]
            return self.split.take(own.reshape(-1)).reshape(*own.shape, *self.split.image_shape)

        images = assemble((*rows.shape, *self.split.image_shape), sharding, images_at)
        labels = None if self.labels is None else self.labels[rows]
        own, kept = place((labels, weights), mesh, BATCHES)
        return Segment(images, own, None, kept, 0, taken)


def _on_device(arrays: Any, mesh: Mesh | None, spec: PartitionSpec = WHOLE) -> Any:
    return jax.device_put(arrays) if mesh is None else place(arrays, mesh, spec)


def _drain(ready: queue.Queue) -> None:
    while not ready.empty():
        ready.get_nowait()


def make_feed(
    split: ImageSet,
    labels: np.ndarray | None,
    batch_size: int,
    seed: int | None,
    resident: str,
    resident_gib: float,
    mesh: Mesh | None = None,
) -> Feed:
    """The feed for a split: resident when it fits, by rule, or as asked.

    Args:
        split: the images.
        labels: `[N, L]` float32 condition, or None.
        batch_size: B.
        seed: of the order; None keeps the order of the split.
        resident: 'always', 'never', or 'auto': resident when the split's bytes as uint8 are at
            most `resident_gib`. Processes that divide the batches stream: each reads its share.
        resident_gib: GiB.
        mesh: the devices that divide every batch among themselves; None for one device.

    Returns:
        The feed; both kinds give the same batches, bit for bit.

    Raises:
        UserError: 'always' where processes divide the batches.
    """
    if mesh is not None and axis_size(mesh, DATA) > 1 and mesh.is_multi_process:
        if resident == "always":
            raise UserError(
                "config.data.resident is 'always', but each of several processes reads only its "
                "share of the images: set it to 'auto'"
            )
        resident = "never"
    size = len(split) * int(np.prod(split.image_shape))
    keep = resident == "always" or (resident == "auto" and size <= resident_gib * 2**30)
    kind = ResidentFeed if keep else StreamingFeed
    return kind(split, labels, batch_size, seed, mesh)
