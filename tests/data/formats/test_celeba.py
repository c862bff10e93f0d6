"""Layouts of CelebA and other folders: images, attributes, splits, and the command line."""

from __future__ import annotations

import subprocess
import sys
import zipfile

import numpy as np
import pytest
from jpeg_folders import by_pillow, contents, spoil, write_images, write_tables
from PIL import Image

from vae_jax.data.formats import celeba
from vae_jax.data.formats import folder as folder_format
from vae_jax.data.store.reading import open_store
from vae_jax.types import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("celeba") / "raw", 70)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_images_equal_pillow_whatever_the_workers(folder, tmp_path, workers):
    store = celeba.prepare(folder, tmp_path / "s", 24, workers=workers)
    assert store.file_names == tuple(f"{i:06d}.jpg" for i in range(1, 71))
    for row in range(0, 70, 7):
        expected = by_pillow(folder / store.file_names[row], 24)
        np.testing.assert_array_equal(store.images[row], expected)
    open_store(tmp_path / "s", verify=True)
    if workers == 1:
        return
    celeba.prepare(folder, tmp_path / "alone", 24, workers=1)
    assert contents(tmp_path / "s") == contents(tmp_path / "alone")


def test_zip_gives_the_same_images(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "img_align_celeba.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, f"img_align_celeba/{path.name}", zipfile.ZIP_DEFLATED)
    zipped = celeba.prepare(tmp_path / "img_align_celeba.zip", tmp_path / "z", 16, workers=2)
    plain = celeba.prepare(folder, tmp_path / "p", 16, workers=1)
    np.testing.assert_array_equal(zipped.images, plain.images)
    assert zipped.manifest["source"]["sha256"] == plain.manifest["source"]["sha256"]
    assert {path.name for path in tmp_path.iterdir()} == {"img_align_celeba.zip", "z", "p"}


def test_attributes_and_official_partition(tmp_path):
    root = tmp_path / "kaggle"
    write_images(root / "img_align_celeba" / "img_align_celeba", 9)
    write_tables(root, range(1, 10))
    store = celeba.prepare(root, tmp_path / "s", 8)
    test = store.split("test")
    assert test.file_names == ("000002.jpg", "000005.jpg", "000008.jpg")
    assert test.labels.tolist() == [[0, 0], [1, 0], [0, 0]] and test.label_names[0] == "Odd"
    assert store.manifest["source"]["partition"] == "official, list_eval_partition.csv"
    again = celeba.prepare(root / "img_align_celeba" / "img_align_celeba", tmp_path / "t", 8)
    assert again.labels is None  # Two levels above what was named: not looked for.


def test_reference_partition_goes_by_number(tmp_path):
    write_images(tmp_path / "raw", 12)
    counts = {"train_count": 6, "test_count": 4}
    store = celeba.prepare(tmp_path / "raw", tmp_path / "s", 8, **counts)
    assert store.splits.tolist() == [0] * 6 + [2] * 4 + [1] * 2
    assert "numbers 1 to 6 train, to 10 test" in store.manifest["source"]["partition"]
    with pytest.raises(UserError, match="needs 180000 files named by numbers, found 12"):
        celeba.prepare(tmp_path / "raw", tmp_path / "t", 8, partition="reference")
    with pytest.raises(UserError, match="no list_eval_partition"):
        celeba.prepare(tmp_path / "raw", tmp_path / "t", 8, partition="official")


def test_fraction_does_not_depend_on_order(folder, tmp_path):
    store = celeba.prepare(folder, tmp_path / "s", 8)
    assert store.split_sizes == {"train": 63, "validation": 0, "test": 7}
    assert "lowest SHA-256" in store.manifest["source"]["partition"]
    tested = store.split("test").file_names
    assert max(np.diff([int(name[:6]) for name in tested])) > 1  # Spread, not a block.


def test_folder_of_jpeg_and_png(tmp_path):
    root = tmp_path / "pictures"
    write_images(root / "a", 3)
    Image.open(root / "a" / "000001.jpg").save(root / "b.png")
    store = folder_format.prepare(root, tmp_path / "s", 12)
    assert store.file_names == ("a/000001.jpg", "a/000002.jpg", "a/000003.jpg", "b.png")
    np.testing.assert_array_equal(store.images[0], store.images[3])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 0}, "size is 0"),
        ({"size": 10**6}, "size is 1000000"),
        ({"crop": "middle"}, "crop is 'middle'"),
        ({"partition": "x"}, "partition is 'x'"),
        ({"on_bad_file": "x"}, "on_bad_file is 'x'"),
        ({"max_bad": -1}, "max_bad is -1"),
        ({"workers": 0}, "workers is 0"),
        ({"train_count": 0}, "train_count is 0"),
    ],
)
def test_arguments_are_checked(folder, tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        celeba.prepare(folder, tmp_path / "s", **{"size": 8, **change})
    assert not list(tmp_path.iterdir())


def test_unwritable_place(folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        celeba.prepare(folder, tmp_path / "file" / "s", 8)
    with pytest.raises(UserError, match="exists already"):
        celeba.prepare(folder, tmp_path / "file", 8)


def run_command(*arguments):
    command = [sys.executable, "-m", "experiments.prepare_celeba", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_command_line(tmp_path):
    raw = write_images(tmp_path / "raw", 12)
    spoil(raw)
    arguments = (f"--source={raw}", f"--out={tmp_path / 's'}", "--size=8")
    stray = run_command(*arguments, "skip")
    assert stray.returncode == 2 and "error: argument 'skip' is no flag" in stray.stderr
    failed = run_command(*arguments)
    assert failed.returncode == 2 and failed.stderr.startswith("error: ")
    assert "000004.jpg" in failed.stderr and "Traceback" not in failed.stderr
    done = run_command(*arguments, "--on_bad_file=skip", "--verify")
    assert done.returncode == 0, done.stderr
    assert "10 images of 8x8 pixels" in done.stdout and "skipped: 2" in done.stdout
    capped = run_command(f"--source={raw}", f"--out={tmp_path / 't'}", "--size=8",
                         "--on_bad_file=skip", "--max_bad=1")  # fmt: skip
    assert capped.returncode == 2 and "more than 1 bad files (max_bad)" in capped.stderr
    images = bytearray((tmp_path / "s" / "images.npy").read_bytes())
    images[-5] ^= 1
    (tmp_path / "s" / "images.npy").write_bytes(images)
    assert run_command(*arguments, "--on_bad_file=skip").returncode == 0  # sizes alone
    damaged = run_command(*arguments, "--on_bad_file=skip", "--verify")
    assert damaged.returncode == 2 and "Traceback" not in damaged.stderr
    assert "images.npy was changed after it was written: SHA-256" in damaged.stderr
