"""CIFAR-10's binary files: a written set comes back; every damage is one sentence."""

import numpy as np
import pytest

from vae_jax.data.formats import cifar
from vae_jax.data.splits import condition_labels, open_splits
from vae_jax.types import UserError

RECORDS = 20


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Six files of 20 records; pixel (y, x) of channel c in record r is known."""
    monkeypatch.setattr(cifar, "RECORDS", RECORDS)
    for number, name in enumerate((*cifar.FILES["train"], *cifar.FILES["test"])):
        data = bytearray()
        for record in range(RECORDS):
            data.append((record + number) % 10)
            for channel in range(3):
                for y in range(32):
                    for x in range(32):
                        data.append(pixel(number, record, y, x, channel))
        (tmp_path / name).write_bytes(bytes(data))
    return tmp_path


def pixel(number, record, y, x, channel):
    return (41 * number + 7 * record + 3 * y + x + 85 * channel) % 256


def test_pixels_labels_and_names(folder):
    sets = cifar.open_cifar10(folder)
    assert {name: len(split) for name, split in sets.items()} == {"train": 100, "test": 20}
    train, test = sets["train"], sets["test"]
    assert train.images.dtype == np.uint8 and train.image_shape == (32, 32, 3)
    for number, record, y, x, channel in [(0, 0, 0, 0, 0), (3, 19, 31, 2, 1), (4, 5, 6, 31, 2)]:
        image = train.images[number * RECORDS + record]
        assert image[y, x, channel] == pixel(number, record, y, x, channel)
    assert test.images[4, 9, 10, 2] == pixel(5, 4, 9, 10, 2)
    np.testing.assert_array_equal(test.labels, (np.arange(20) + 5) % 10)
    assert train.label_names[0] == "airplane" and train.label_names[9] == "truck"


def test_it_is_a_data_set_of_the_configs(folder, tiny_config):
    inner = folder / cifar.FOLDER
    inner.mkdir()
    for path in folder.glob("*.bin"):
        path.rename(inner / path.name)
    data = tiny_config.data
    data.name, data.path, data.image_shape = "cifar10", str(folder), (32, 32, 3)
    data.condition, data.train_count = "class", 30
    train = open_splits(data).train
    assert len(train) == 30
    labels = condition_labels(data, train)
    np.testing.assert_array_equal(labels.argmax(1), train.labels)
    data.image_shape = (28, 28, 3)
    with pytest.raises(UserError, match=r"\(28, 28, 3\).*\(32, 32, 3\)"):
        open_splits(data)


def test_missing_short_and_mislabelled_files_are_named(folder):
    path = folder / "data_batch_2.bin"
    data = path.read_bytes()
    for damaged in (data[:-1], data + b"\0", data[: cifar.RECORD_BYTES], b""):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=f"data_batch_2.bin has {len(damaged)} bytes.*61460"):
            cifar.open_cifar10(folder)
    path.write_bytes(data[: 3 * 3073] + b"\x0b" + data[3 * 3073 + 1 :])
    with pytest.raises(UserError, match="data_batch_2.bin has the label 11 in record 3"):
        cifar.open_cifar10(folder)
    path.unlink()
    with pytest.raises(UserError, match="data_batch_2.bin does not exist: unpack"):
        cifar.open_cifar10(folder)
