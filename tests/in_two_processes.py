"""What one of two processes sees, as JSON; `test_devices.py` starts both."""

import json
import sys
from dataclasses import dataclass, field

import jax
import numpy as np

from vae_jax import devices
from vae_jax.data.batches import Batches
from vae_jax.data.feeds import StreamingFeed
from vae_jax.devices import make_mesh
from vae_jax.types import ImageSet, UserError


@dataclass(frozen=True)
class Recorded(ImageSet):
    """Notes which images are read."""

    taken: list = field(default_factory=list)

    def take(self, indices):
        self.taken.extend(np.asarray(indices).tolist())
        return super().take(indices)


def rows_read(epoch):
    """Positions that the feed of this process reads in an epoch of batches of 8."""
    images = np.arange(32 * 12, dtype=np.uint8).reshape(32, 2, 2, 3)
    split = Recorded(images, np.arange(32))
    feed = StreamingFeed(Batches(split, None, 8, 5), make_mesh(jax.devices()))
    sums = [int(jax.jit(jax.numpy.sum)(segment.images)) for segment in feed.segments(epoch)]
    return split.taken, sums


def refusal():
    """What all processes hear of an error of the first."""

    def fail():
        raise UserError("the disk is full")

    try:
        devices.on_first(fail)
    except UserError as error:
        return str(error)


def main(coordinator, number, out):
    number = int(number)
    devices.join(coordinator, 2, number)
    calls = []
    seen = {
        "first": devices.is_first(),
        "least": devices.least(10 + number),
        "greatest": devices.greatest(10 + number),
        "on_first": devices.on_first(lambda: calls.append(1) or 7 + number),
        "calls": len(calls),
        "refusal": refusal(),
        "rows": [rows_read(epoch) for epoch in (0, 1)],
    }
    with open(out, "w") as file:
        json.dump(seen, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
