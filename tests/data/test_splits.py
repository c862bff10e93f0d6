"""From config.data to splits and conditions, with errors that list what is valid."""

import numpy as np
import pytest

from vae_jax.data.idx import write_idx
from vae_jax.data.splits import condition_labels, condition_names, first_images, open_splits
from vae_jax.types import UserError


def test_a_store_opens_with_both_splits(tiny_config):
    splits = open_splits(tiny_config.data)
    assert (len(splits.train), len(splits.test)) == (37, 11)
    assert splits.train.image_shape == (16, 16, 3)


def test_counts_cut_a_split_and_too_many_are_refused(tiny_config):
    tiny_config.data.train_count = 5
    train = open_splits(tiny_config.data).train
    assert len(train) == len(train.labels) == len(train.file_names) == 5
    tiny_config.data.train_count = 38
    with pytest.raises(UserError, match="config.data.train_count is 38, but there are only 37"):
        open_splits(tiny_config.data)


def test_another_image_shape_shows_both(tiny_config):
    tiny_config.data.image_shape = (32, 32, 3)
    with pytest.raises(UserError, match=r"\(32, 32, 3\).*\(16, 16, 3\)"):
        open_splits(tiny_config.data)
    tiny_config.data.image_shape = (16, 32, 3)
    with pytest.raises(UserError, match="square colour images"):
        open_splits(tiny_config.data)


def test_a_missing_path_is_named(tiny_config):
    tiny_config.data.path = "nowhere/at/all"
    with pytest.raises(UserError, match="config.data.path is 'nowhere/at/all'"):
        open_splits(tiny_config.data)


def test_attributes_as_condition(tiny_config):
    tiny_config.data.condition = "attributes"
    tiny_config.data.attributes = ("Blue", "Red")
    train = open_splits(tiny_config.data).train
    assert condition_names(tiny_config.data, train) == ("Blue", "Red")
    labels = condition_labels(tiny_config.data, train)
    np.testing.assert_array_equal(labels, train.labels[:, [2, 0]].astype(np.float32))
    tiny_config.data.attributes = ("Smiling",)
    with pytest.raises(UserError, match="'Smiling' is not an attribute.*Red, Green, Blue"):
        condition_labels(tiny_config.data, train)


def test_classes_as_condition(tmp_path, tiny_config):
    rng = np.random.default_rng(0)
    digits = np.arange(20) % 10
    for stem in ("train", "t10k"):
        write_idx(
            tmp_path / f"{stem}-images-idx3-ubyte.gz",
            rng.integers(0, 256, (20, 28, 28)).astype(np.uint8),
        )
        write_idx(tmp_path / f"{stem}-labels-idx1-ubyte.gz", digits.astype(np.uint8))
    data = tiny_config.data
    data.name, data.path, data.image_shape = "mnist", str(tmp_path), (28, 28, 1)
    data.condition = "class"
    train = open_splits(data).train
    labels = condition_labels(data, train)
    assert labels.shape == (20, 10)
    np.testing.assert_array_equal(labels.argmax(1), digits)
    data.condition, data.attributes = "attributes", ("Smiling",)
    with pytest.raises(UserError, match="has no such labels"):
        condition_labels(data, train)


def test_no_condition_is_none(tiny_config):
    train = open_splits(tiny_config.data).train
    assert condition_labels(tiny_config.data, train) is None
    assert condition_names(tiny_config.data, train) == ()
    assert first_images(train, 0, "") is train
