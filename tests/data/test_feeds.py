"""Both feeds give the same batches, from any position on."""

import threading

import numpy as np
import pytest

from vae_jax.data.batches import Batches, epoch_order
from vae_jax.data.feeds import ResidentFeed, StreamingFeed, make_feed
from vae_jax.data.store.reading import open_store


def collect(feed, epoch, start=0):
    """Images, labels and weights of all batches from `start` on, in order."""
    batches = []
    for segment in feed.segments(epoch, start):
        for i in range(segment.first, segment.end):
            rows = np.asarray(segment.rows[i])
            labels = None if segment.labels is None else np.asarray(segment.labels)[rows]
            batches.append((np.asarray(segment.images)[rows], labels, segment.weights[i]))
    return batches


@pytest.fixture(scope="module")
def split(tiny_store):
    return open_store(tiny_store).split("train")


@pytest.mark.parametrize("start", [0, 3])
def test_streaming_equals_resident_bit_for_bit(split, start, monkeypatch):
    monkeypatch.setattr("vae_jax.data.feeds.STREAM_BYTES", 2 * 8 * 16 * 16 * 3)  # two batches
    batches = Batches(split, split.labels.astype(np.float32), 8, seed=5)
    resident, streaming = ResidentFeed(batches), StreamingFeed(batches)
    assert resident.steps_per_epoch == streaming.steps_per_epoch == 5
    for epoch in (0, 1):
        pairs = zip(collect(resident, epoch, start), collect(streaming, epoch, start), strict=True)
        steps = 0
        for one, other in pairs:
            for a, b in zip(one, other, strict=True):
                np.testing.assert_array_equal(a, b)
            steps += 1
        assert steps == 5 - start


def test_an_epoch_visits_every_image_once_with_its_label(split):
    images, labels = [], []
    feed = ResidentFeed(Batches(split, split.labels, 8, seed=1))
    for pixels, label, weights in collect(feed, 0):
        kept = np.asarray(weights) > 0
        images.append(pixels[kept])
        labels.append(label[kept])
    order = epoch_order(1, 0, len(split))
    np.testing.assert_array_equal(np.concatenate(images), split.take(order))
    np.testing.assert_array_equal(np.concatenate(labels), split.labels[order])


@pytest.mark.parametrize("kind", [ResidentFeed, StreamingFeed])
def test_every_position_of_two_epochs_continues_the_sequence(split, kind, monkeypatch):
    monkeypatch.setattr("vae_jax.data.feeds.STREAM_BYTES", 2 * 8 * 16 * 16 * 3)  # two batches
    labels = split.labels.astype(np.float32)

    def batches(step):
        feed, per_epoch = kind(Batches(split, labels, 8, seed=2)), 5  # New, as after a restart.
        position = step % per_epoch
        for epoch in range(step // per_epoch, 2):
            yield from collect(feed, epoch, position)
            position = 0

    whole = list(batches(0))
    assert len(whole) == 10
    for step in range(10):
        for one, other in zip(batches(step), whole[step:], strict=True):
            for a, b in zip(one, other, strict=True):
                np.testing.assert_array_equal(a, b)


def test_segments_of_a_stream_have_one_shape(split, monkeypatch):
    monkeypatch.setattr("vae_jax.data.feeds.STREAM_BYTES", 2 * 8 * 16 * 16 * 3)
    feed = StreamingFeed(Batches(split, None, 8, seed=5))
    shapes = {segment.images.shape for segment in feed.segments(0)}
    assert shapes == {(16, 16, 16, 3)}


def test_leaving_a_stream_early_ends_its_thread(split, monkeypatch):
    monkeypatch.setattr("vae_jax.data.feeds.STREAM_BYTES", 1)
    before = threading.active_count()
    for _ in StreamingFeed(Batches(split, None, 2, seed=0)).segments(0):
        break
    assert threading.active_count() == before


def test_a_read_error_reaches_the_consumer(split, monkeypatch):
    def fail(*_):
        raise OSError("disk on fire")

    monkeypatch.setattr(Batches, "plan", fail)
    feed = StreamingFeed(Batches(split, None, 8, seed=0))
    with pytest.raises(OSError, match="disk on fire"):
        list(feed.segments(0))


def test_resident_by_size_or_by_order(split):
    batches = Batches(split, None, 8, 0)
    assert isinstance(make_feed(batches, "auto", 1.0, None), ResidentFeed)
    assert isinstance(make_feed(batches, "auto", 0.0, None), StreamingFeed)
    assert isinstance(make_feed(batches, "always", 0.0, None), ResidentFeed)
    assert isinstance(make_feed(batches, "never", 1.0, None), StreamingFeed)
