"""The order of the images is a pure function of (seed, epoch); both feeds give the same batches."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from vae_jax.data.batches import (
    ResidentFeed,
    StreamingFeed,
    batch_rows,
    epoch_order,
    make_feed,
    to_unit_range,
)
from vae_jax.data.store import open_store


def collect(feed, epoch, start=0):
    """Images, labels and weights of all batches from `start` on, in order."""
    batches = []
    for segment in feed.segments(epoch, start):
        for i in range(segment.first, segment.end):
            rows = np.asarray(segment.rows[i])
            labels = None if segment.labels is None else np.asarray(segment.labels)[rows]
            batches.append((np.asarray(segment.images)[rows], labels, segment.weights[i]))
    return batches


def test_order_is_a_permutation_that_depends_on_seed_and_epoch():
    order = epoch_order(3, 0, 1000)
    np.testing.assert_array_equal(np.sort(order), np.arange(1000))
    np.testing.assert_array_equal(order, epoch_order(3, 0, 1000))
    assert not np.array_equal(order, epoch_order(3, 1, 1000))
    assert not np.array_equal(order, epoch_order(4, 0, 1000))


def test_order_is_stable_across_versions():
    """tests/data/golden_order.json: orders of small splits in full, of real ones by SHA-256."""
    golden = json.loads(Path(__file__).with_name("golden_order.json").read_text())
    for entry in golden["orders"]:
        order = epoch_order(entry["seed"], entry["epoch"], entry["count"])
        assert order.dtype == np.int32 and order.tolist()[:12] == entry["first"]
        digest = hashlib.sha256(order.astype("<i4").tobytes()).hexdigest()
        assert digest == entry["sha256"], entry
    for entry in golden["batches"]:  # The batch at step n is a pure function of (seed, n).
        epoch, position = divmod(entry["step"], -(-entry["count"] // entry["batch_size"]))
        order = epoch_order(entry["seed"], epoch, entry["count"])
        rows, weights = batch_rows(order, entry["batch_size"])
        assert rows[position].tolist() == entry["rows"]
        assert weights[position].tolist() == entry["weights"]


def test_the_last_batch_is_padded_with_weight_zero():
    rows, weights = batch_rows(np.array([4, 2, 0, 3, 1], np.int32), 3)
    assert rows.tolist() == [[4, 2, 0], [3, 1, 3]]
    assert weights.tolist() == [[1, 1, 1], [1, 1, 0]]


@pytest.fixture(scope="module")
def split(tiny_store):
    return open_store(tiny_store).split("train")


@pytest.mark.parametrize("start", [0, 3])
def test_streaming_equals_resident_bit_for_bit(split, start, monkeypatch):
    monkeypatch.setattr("vae_jax.data.batches.STREAM_BYTES", 2 * 8 * 16 * 16 * 3)  # two batches
    labels = split.labels.astype(np.float32)
    resident = ResidentFeed(split, labels, 8, seed=5)
    streaming = StreamingFeed(split, labels, 8, seed=5)
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
    for pixels, label, weights in collect(ResidentFeed(split, split.labels, 8, seed=1), 0):
        kept = np.asarray(weights) > 0
        images.append(pixels[kept])
        labels.append(label[kept])
    order = epoch_order(1, 0, len(split))
    np.testing.assert_array_equal(np.concatenate(images), split.take(order))
    np.testing.assert_array_equal(np.concatenate(labels), split.labels[order])


@pytest.mark.parametrize("kind", [ResidentFeed, StreamingFeed])
def test_every_position_of_two_epochs_continues_the_sequence(split, kind, monkeypatch):
    monkeypatch.setattr("vae_jax.data.batches.STREAM_BYTES", 2 * 8 * 16 * 16 * 3)  # two batches
    labels = split.labels.astype(np.float32)

    def batches(step):
        feed, per_epoch = kind(split, labels, 8, seed=2), 5  # New, as after a restart.
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
    monkeypatch.setattr("vae_jax.data.batches.STREAM_BYTES", 2 * 8 * 16 * 16 * 3)
    feed = StreamingFeed(split, None, 8, seed=5)
    shapes = {segment.images.shape for segment in feed.segments(0)}
    assert shapes == {(16, 16, 16, 3)}


def test_leaving_a_stream_early_ends_its_thread(split, monkeypatch):
    import threading

    monkeypatch.setattr("vae_jax.data.batches.STREAM_BYTES", 1)
    before = threading.active_count()
    for _ in StreamingFeed(split, None, 2, seed=0).segments(0):
        break
    assert threading.active_count() == before


def test_a_read_error_reaches_the_consumer(split, monkeypatch):
    feed = StreamingFeed(split, None, 8, seed=0)

    def fail(*_):
        raise OSError("disk on fire")

    monkeypatch.setattr(feed, "plan", fail)
    with pytest.raises(OSError, match="disk on fire"):
        list(feed.segments(0))


def test_resident_by_size_or_by_order(split):
    settings = (split, None, 8, 0)
    assert isinstance(make_feed(*settings, "auto", 1.0), ResidentFeed)
    assert isinstance(make_feed(*settings, "auto", 0.0), StreamingFeed)
    assert isinstance(make_feed(*settings, "always", 0.0), ResidentFeed)
    assert isinstance(make_feed(*settings, "never", 1.0), StreamingFeed)


def test_uint8_is_scaled_on_the_device():
    scaled = to_unit_range(np.array([0, 51, 255], np.uint8))
    np.testing.assert_allclose(scaled, [0.0, 0.2, 1.0], rtol=1e-6)
