"""CelebA's tables: both kinds of both, and errors with line numbers."""

from __future__ import annotations

import numpy as np
import pytest

from vae_jax.data.formats.attributes import find_table, read_attributes, read_partition
from vae_jax.types import UserError

NAMES = ["000001.jpg", "000002.jpg", "000003.jpg"]
ATTRIBUTES = {
    "list_attr_celeba.txt": "3\nBald Smiling\n{0} -1  1\n{1}  1 1\n{2} -1 -1\n",
    "list_attr_celeba.csv": "image_id,Bald,Smiling\n{0},-1,1\n{1},1,1\n{2},-1,-1\n",
    "zero_one.csv": "image_id,Bald,Smiling\n{0},0,1\n{1},1,1\n{2},0,0\n",
}
PARTITIONS = {
    "list_eval_partition.txt": "{0} 0\n{1} 2\n{2} 1\n",
    "list_eval_partition.csv": "image_id,partition\n{0},0\n{1},2\n{2},1\n",
}
TXT, CSV = "list_attr_celeba.txt", "list_attr_celeba.csv"


def write(tmp_path, name, text, newline="\n"):
    path = tmp_path / name
    path.write_bytes(text.format(*NAMES).replace("\n", newline).encode())
    return path


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("name", ATTRIBUTES)
def test_attributes(tmp_path, name, newline):
    path = write(tmp_path, name, ATTRIBUTES[name], newline)
    labels, label_names = read_attributes(path, NAMES)
    assert labels.dtype == np.uint8 and label_names == ("Bald", "Smiling")
    np.testing.assert_array_equal(labels, [[0, 1], [1, 1], [0, 0]])
    np.testing.assert_array_equal(read_attributes(path, NAMES[::-1])[0], labels[::-1])


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("name", PARTITIONS)
def test_partition(tmp_path, name, newline):
    path = write(tmp_path, name, PARTITIONS[name], newline)
    splits = read_partition(path, NAMES)
    assert splits.dtype == np.uint8 and splits.tolist() == [0, 2, 1]


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        (TXT, "3\n", "4\n", "line 1 says 4 images, but 3 lines follow"),
        (TXT, "3\n", "three\n", "line 1: 'three', expected the number"),
        (TXT, "  1 1\n", "  1\n", "line 4: 1 values, expected 2"),
        (TXT, "-1 -1", "-1 2", "line 5: values -1, 2, expected only"),
        (TXT, "-1 -1", "-1 0", "line 5: values -1, 0, expected only"),
        (TXT, "-1 -1", "-1 nan", "line 5: values -1, nan"),
        (TXT, "{1}", "{0}", "line 4: 000001.jpg is on line 3 already"),
        (TXT, "{1}", "000009.jpg", "no line about 000002.jpg"),
        (TXT, "Smiling", "Bald", "line 2: column names"),
        (CSV, "{1},1,1", "", "line 3 is empty"),
        (CSV, "{1},1,1", "{1},1", "line 3: 1 values, expected 2"),
        (CSV, "{1},1,1", "{1},1,", "line 3: values , 1, expected"),
        (CSV, "image_id,Bald,Smiling", "image_id", "line 1: column names are missing"),
    ],
)
def test_attribute_errors(tmp_path, name, old, new, message):
    path = write(tmp_path, name, ATTRIBUTES[name].replace(old, new, 1))
    with pytest.raises(UserError, match=f"{name} .*{message}|{name} {message}"):
        read_attributes(path, NAMES)


@pytest.mark.parametrize("value", ["3", "-1", "", "0 0", "x"])
def test_partition_errors(tmp_path, value):
    text = PARTITIONS["list_eval_partition.txt"].replace("{1} 2", f"{{1}} {value}")
    with pytest.raises(UserError, match="line 2: .*expected a file name and 0"):
        read_partition(write(tmp_path, "list_eval_partition.txt", text), NAMES)


def test_absent_images(tmp_path):
    path = write(tmp_path, CSV, ATTRIBUTES[CSV])
    with pytest.raises(UserError, match=r"line 3: there is no image 000002.jpg \(and 1 more\)"):
        read_attributes(path, NAMES[:1])
    assert read_attributes(path, NAMES[:1], allow_absent=True)[0].tolist() == [[0, 1]]


def test_files_that_are_no_tables(tmp_path):
    for data in (b"", b"\n\n", b"\xff\xfe\x00", b"\x89PNG\r\n", b"1"):
        (tmp_path / TXT).write_bytes(data)
        with pytest.raises(UserError, match=TXT):
            read_attributes(tmp_path / TXT, NAMES)


def test_find_table_prefers_the_nearest(tmp_path):
    inner = tmp_path / "img_align_celeba"
    (inner / "Anno").mkdir(parents=True)
    assert find_table([inner, tmp_path], "list_attr_celeba") is None
    above = write(tmp_path, CSV, ATTRIBUTES[CSV])
    assert find_table([inner, tmp_path], "list_attr_celeba") == above
    nearer = write(inner / "Anno", TXT, ATTRIBUTES[TXT])
    assert find_table([inner, tmp_path], "list_attr_celeba") == nearer


def mutations(tmp_path, count):
    """As many tables of attributes and, besides, as many of partitions."""
    rng = np.random.default_rng(4)
    for number in range(2 * count):
        texts = (ATTRIBUTES, PARTITIONS)[number % 2]
        name = sorted(texts)[rng.integers(len(texts))]
        data = bytearray(texts[name].format(*NAMES).encode())
        for _ in range(rng.integers(1, 4)):
            data[rng.integers(len(data))] = rng.choice(list(b"\n\r ,-0129a\xff\0"))
        (tmp_path / name).write_bytes(data)
        for read in (read_attributes, read_partition):
            try:
                read(tmp_path / name, NAMES)
            except UserError as error:
                assert name in str(error)


def test_mutated_tables_raise_only_user_errors(tmp_path, little_memory):
    mutations(tmp_path, 40)


@pytest.mark.slow
def test_mutated_tables_raise_only_user_errors_in_full(tmp_path, little_memory):
    mutations(tmp_path, 1000)
