"""A set many times larger than what streaming may hold passes through bounded memory."""

from pathlib import Path

import jax
import numpy as np
import pytest

from vae_jax.data.batches import Batches
from vae_jax.data.feeds import STREAM_BYTES, StreamingFeed
from vae_jax.types import ImageSet

PIECES = 16


def own_memory():
    """Bytes of this process besides mapped files, whose pages the system takes back at will."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


@pytest.mark.slow
def test_streaming_holds_a_few_pieces_whatever_the_size_of_the_set(tmp_path):
    count = PIECES * STREAM_BYTES // (96 * 96 * 3)
    shape = (count, 96, 96, 3)
    images = np.lib.format.open_memmap(tmp_path / "images.npy", "w+", np.uint8, shape)
    images[:, 0, 0, 0] = np.arange(count) % 251
    images.flush()
    images = np.load(tmp_path / "images.npy", mmap_mode="r")
    feed = StreamingFeed(Batches(ImageSet(images, np.arange(count)), None, 128, 0))
    first_pixels = jax.jit(lambda segment: segment.images[:, 0, 0, 0].astype(np.int32).sum())
    total, most, before = 0, 0, own_memory()
    for segment in feed.segments(0):
        total += int(first_pixels(segment))
        most = max(most, own_memory() - before)
    assert total >= (np.arange(count) % 251).sum()  # All of them, and padding.
    print(f"{images.nbytes / 2**20:.0f} MiB streamed through at most {most / 2**20:.0f} MiB")
    assert most < 6 * STREAM_BYTES < images.nbytes / 2
