"""From config.data to splits and conditions, with errors that list what is valid."""

import numpy as np
import pytest
from idx_files import write_idx
from jpeg_folders import write_images
from stores import write_store

from vae_jax.data.splits import condition_labels, condition_names, first_images, open_splits
from vae_jax.types import UserError


def test_a_store_opens_with_both_splits(tiny_config):
    splits = open_splits(tiny_config.data)
    assert splits.validation is None
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


def test_a_reader_prepares_nothing(tiny_config, tmp_path):
    """A run that came from elsewhere names places that are not there, or are somebody else's."""
    data, setting = tiny_config.data, "--data=PATH"
    write_images(tmp_path / "set", 3, first=1)
    for name in ("faces", "folder", "mnist"):
        data.name, data.path = name, str(tmp_path / "nowhere")
        with pytest.raises(UserError, match="nowhere', which does not exist: set --data=PATH to"):
            open_splits(data, prepare=False, setting=setting)
    for name in ("faces", "folder"):
        data.name, data.path = name, str(tmp_path / "set")
        with pytest.raises(UserError, match="are not prepared: set --data=PATH to"):
            open_splits(data, prepare=False, setting=setting)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    data.digest = open_splits(dict(data) | {"name": "folder"}).digest
    for name, place in (("folder", "set"), ("faces", "set-16")):  # beside it, and the store itself
        data.name, data.path = name, str(tmp_path / place)
        assert open_splits(data, prepare=False, setting=setting).digest == data.digest
    data.digest = "0" * 64
    with pytest.raises(UserError, match="trained on .* set --data=PATH to where those lie"):
        open_splits(data, prepare=False, setting=setting)


def test_folders_whose_names_differ_after_a_dot_have_stores_of_their_own(tmp_path, tiny_config):
    data = tiny_config.data
    data.name = "folder"
    digests = set()
    for number in (1, 2):
        write_images(tmp_path / f"set.v{number}", 3, first=number)
        data.path = str(tmp_path / f"set.v{number}")
        splits = open_splits(data)
        assert set(splits.train.file_names) < {f"{number + i:06d}.jpg" for i in range(3)}
        digests.add(splits.digest)
    assert len(digests) == 2
    assert {path.name for path in tmp_path.glob("*-16")} == {"set.v1-16", "set.v2-16"}
    write_images(tmp_path / "set.v2", 1, first=9)
    with pytest.raises(UserError, match="set.v2-16 holds a store of other files"):
        open_splits(data)


def test_other_data_than_a_run_was_trained_on_are_refused(tiny_config):
    tiny_config.data.digest = open_splits(tiny_config.data).digest
    open_splits(tiny_config.data)
    tiny_config.data.digest = "0" * 64
    with pytest.raises(UserError, match="not those that this run was trained on.*not 000000"):
        open_splits(tiny_config.data)


def test_a_path_in_a_circle_is_one_sentence(tmp_path, tiny_config):
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    tiny_config.data.path = str(tmp_path / "circle")
    for name in ("celeba", "mnist", "cifar10"):
        tiny_config.data.name = name
        with pytest.raises(UserError, match="circle"):
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


@pytest.fixture
def digits(tmp_path, tiny_config):
    """config.data of 20 training and 20 test images like MNIST's, of the labels 0 to 9 in turn."""
    rng = np.random.default_rng(0)
    for stem in ("train", "t10k"):
        images = rng.integers(0, 256, (20, 28, 28)).astype(np.uint8)
        write_idx(tmp_path / f"{stem}-images-idx3-ubyte.gz", images)
        write_idx(tmp_path / f"{stem}-labels-idx1-ubyte.gz", (np.arange(20) % 10).astype(np.uint8))
    data = tiny_config.data
    data.name, data.path, data.image_shape = "mnist", str(tmp_path), (28, 28, 1)
    return data


def test_validation_images_are_held_out_of_training_and_the_same_for_every_run(digits):
    assert open_splits(digits).validation is None
    digits.validation_count = 6
    splits = open_splits(digits)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (14, 6, 20)
    assert set(splits.train.rows) | set(splits.validation.rows) == set(range(20))
    np.testing.assert_array_equal(splits.validation.labels, splits.validation.rows % 10)
    digits.train_count = 5
    fewer = open_splits(digits)
    np.testing.assert_array_equal(fewer.validation.rows, splits.validation.rows)
    np.testing.assert_array_equal(fewer.train.rows, splits.train.rows[:5])
    digits.train_count, digits.binarize = 0, "fixed"
    assert set(np.unique(open_splits(digits).validation.images)) == {0, 255}
    digits.validation_count = 20
    with pytest.raises(UserError, match="validation_count is 20.*the 20 training images"):
        open_splits(digits)


def test_a_store_gives_its_own_validation_images(tmp_path, tiny_config):
    images = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 16, 16, 3), np.uint8)
    write_store(tmp_path / "set", images, np.array([0, 0, 0, 1, 1, 2], np.uint8))
    tiny_config.data.path = str(tmp_path / "set")
    for count, rows in ((0, [3, 4]), (1, [3])):
        tiny_config.data.validation_count = count
        splits = open_splits(tiny_config.data)
        np.testing.assert_array_equal(splits.validation.rows, rows)
        np.testing.assert_array_equal(splits.train.rows, [0, 1, 2])
    tiny_config.data.validation_count = 3
    with pytest.raises(UserError, match="validation_count is 3, but there are only 2"):
        open_splits(tiny_config.data)


def test_classes_as_condition(digits):
    data = digits
    data.condition = "class"
    train = open_splits(data).train
    labels = condition_labels(data, train)
    assert labels.shape == (20, 10)
    np.testing.assert_array_equal(labels.argmax(1), np.arange(20) % 10)
    data.condition, data.attributes = "attributes", ("Smiling",)
    with pytest.raises(UserError, match="has no such labels"):
        condition_labels(data, train)


def test_no_condition_is_none(tiny_config):
    train = open_splits(tiny_config.data).train
    assert condition_labels(tiny_config.data, train) is None
    assert condition_names(tiny_config.data, train) == ()
    assert first_images(train, 0, "") is train
