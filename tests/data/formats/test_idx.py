"""IDX files: round trips, damage, and forged headers."""

from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from idx_files import write_idx

from vae_jax.data.formats.idx import open_mnist, read_idx
from vae_jax.types import UserError

MNIST = Path(os.environ.get("MNIST_DIR", "data/mnist"))
TYPES = [np.dtype(name) for name in ("u1", "i1", "i2", "i4", "f4", "f8", ">i4", ">f8")]


def write_mnist(directory, ending="-idx3-ubyte.gz", train=7, test=3):
    rng = np.random.default_rng(0)
    for stem, count in (("train", train), ("t10k", test)):
        images = rng.integers(0, 256, (count, 28, 28), np.uint8)
        write_idx(directory / f"{stem}-images{ending}", images)
        labels = rng.integers(0, 10, count).astype(np.uint8)
        write_idx(directory / f"{stem}-labels{ending.replace('3', '1')}", labels)


@settings(max_examples=60, deadline=None)
@given(
    array=st.sampled_from(TYPES).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_side=0, max_dims=4, max_side=5))
    ),
    zipped=st.booleans(),
)
def test_round_trip(tmp_path_factory, array, zipped):
    path = tmp_path_factory.mktemp("idx") / ("a.gz" if zipped else "a")
    write_idx(path, array)
    found = read_idx(path)
    assert found.shape == array.shape and found.dtype == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(found, array)
    assert (path.read_bytes()[:2] == b"\x1f\x8b") == zipped


def test_bytes_of_the_format(tmp_path):
    data = bytes.fromhex("00000c02 00000001 00000003 00000001 00000002 00000102")
    for name, content in (("plain", data), ("found_by_content", gzip.compress(data))):
        (tmp_path / name).write_bytes(content)
        np.testing.assert_array_equal(read_idx(tmp_path / name), [[1, 2, 258]])


@pytest.mark.parametrize("shape", [(2**32 - 1,) * 3, (60_000, 28, 28), (0, 2**32 - 1, 2**32 - 1)])
@pytest.mark.parametrize("zipped", [False, True])
def test_forged_shape_allocates_nothing(tmp_path, shape, zipped):
    data = struct.pack(">2xBB3I", 8, 3, *shape) + b"x"
    (tmp_path / "a").write_bytes(gzip.compress(data) if zipped else data)
    with pytest.raises(UserError, match=str(tmp_path / "a")):
        read_idx(tmp_path / "a")


def test_gzip_bomb_stops_early(tmp_path):
    header = struct.pack(">2xBBI", 8, 1, 100)
    (tmp_path / "a.gz").write_bytes(gzip.compress(header + bytes(50_000_000)))
    with pytest.raises(UserError, match="more than the 100 bytes"):
        read_idx(tmp_path / "a.gz")


def mutations(tmp_path, count):
    write_mnist(tmp_path, train=2)
    rng = np.random.default_rng(1)
    sources = [(tmp_path / "train-images-idx3-ubyte.gz").read_bytes()]
    sources.append(gzip.decompress(sources[0]))
    for _ in range(count):
        data = bytearray(sources[rng.integers(2)])
        if rng.random() < 0.3:
            del data[rng.integers(len(data)) :]
        for _ in range(rng.integers(1, 4)):
            if data:
                data[int(len(data) * rng.random() ** 4)] = rng.integers(256)
        (tmp_path / "a").write_bytes(data)
        try:
            read_idx(tmp_path / "a")
        except UserError as error:
            assert "\n" not in str(error) and str(tmp_path / "a") in str(error)


def test_mutated_files_raise_only_user_errors(tmp_path, little_memory):
    mutations(tmp_path, 40)


@pytest.mark.slow
def test_mutated_files_raise_only_user_errors_in_full(tmp_path, little_memory):
    mutations(tmp_path, 1000)


@pytest.mark.parametrize("ending", ["-idx3-ubyte", "-idx3-ubyte.gz", ".idx3-ubyte"])
def test_open_mnist(tmp_path, ending):
    write_mnist(tmp_path, ending)
    sets = open_mnist(tmp_path)
    assert {name: len(found) for name, found in sets.items()} == {"train": 7, "test": 3}
    train = sets["train"]
    assert train.image_shape == (28, 28, 1) and train.images.dtype == np.uint8
    assert train.labels.dtype == np.int32 and train.label_names == tuple("0123456789")
    raw = read_idx(tmp_path / f"train-images{ending}")
    np.testing.assert_array_equal(train.take(np.array([4]))[0, :, :, 0], raw[4])


def test_open_mnist_names_what_is_wrong(tmp_path):
    with pytest.raises(UserError, match="none of train-images-idx3-ubyte, .*gz"):
        open_mnist(tmp_path)
    write_mnist(tmp_path)
    write_idx(tmp_path / "t10k-labels-idx1-ubyte.gz", np.zeros(4, np.uint8))
    with pytest.raises(UserError, match=r"t10k-labels.*\[4\].*each of the 3 images"):
        open_mnist(tmp_path)
    write_idx(tmp_path / "t10k-images-idx3-ubyte.gz", np.zeros((3, 4), np.uint8))
    with pytest.raises(UserError, match=r"uint8 \[3, 4\], expected"):
        open_mnist(tmp_path)


@pytest.mark.skipif(not MNIST.is_dir(), reason="MNIST is not on this machine")
def test_real_mnist():
    sets = open_mnist(MNIST)
    assert len(sets["train"]) == 60_000 and len(sets["test"]) == 10_000
    assert sets["train"].labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert round(float(sets["train"].images.mean()), 4) == 33.3184
