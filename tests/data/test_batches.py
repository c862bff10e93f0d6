"""The order of the images is a pure function of (seed, epoch)."""

import hashlib
import json
from pathlib import Path

import numpy as np

from vae_jax.data.batches import batch_rows, epoch_order, to_unit_range


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


def test_uint8_is_scaled_on_the_device():
    scaled = to_unit_range(np.array([0, 51, 255], np.uint8))
    np.testing.assert_allclose(scaled, [0.0, 0.2, 1.0], rtol=1e-6)
