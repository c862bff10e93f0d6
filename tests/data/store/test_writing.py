"""Stores on disk: round trips, damage, locks, and kills at every step of writing one."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from jpeg_folders import contents, write_images
from stores import write_store

from vae_jax.data.store.reading import manifest_digest, npy_header, open_store
from vae_jax.data.store.writing import exclusive
from vae_jax.types import UserError

FILES = ("images.npy", "splits.npy", "labels.npy", "files.json", "manifest.json")


@pytest.fixture
def arrays():
    rng = np.random.default_rng(3)
    return {
        "images": rng.integers(0, 256, (10, 5, 4, 3), np.uint8),
        "splits": np.array([0, 0, 2, 1, 0, 2, 0, 0, 1, 0], np.uint8),
        "labels": rng.integers(0, 2, (10, 2)).astype(np.uint8),
        "label_names": ("Smiling", "Young"),
        "file_names": [f"{i}.jpg" for i in range(10)],
    }


@pytest.fixture
def directory(tmp_path, arrays):
    write_store(tmp_path / "store", **arrays)
    return tmp_path / "store"


def test_round_trip(directory, arrays):
    store = open_store(directory, verify=True)
    np.testing.assert_array_equal(store.images, arrays["images"])
    np.testing.assert_array_equal(np.load(directory / "images.npy"), arrays["images"])
    assert isinstance(store.images, np.memmap) and not store.images.flags.writeable
    test = store.split("test")
    np.testing.assert_array_equal(test.rows, [2, 5])
    np.testing.assert_array_equal(test.take(np.array([1, 0])), arrays["images"][[5, 2]])
    np.testing.assert_array_equal(test.labels, arrays["labels"][[2, 5]])
    assert test.file_names == ("2.jpg", "5.jpg") and test.label_names == ("Smiling", "Young")
    assert store.split_sizes == {"train": 6, "validation": 2, "test": 2}
    assert set(contents(directory)) == set(FILES)
    assert not list(directory.parent.glob("*.lock")) and not list(directory.parent.glob("*.part*"))


def test_class_labels_and_empty_split(tmp_path, arrays):
    classes = np.arange(10, dtype=np.int32)
    store = write_store(tmp_path / "s", arrays["images"], np.zeros(10), labels=classes)
    np.testing.assert_array_equal(store.split("train").labels, classes)
    assert store.split("train").labels.dtype == np.int32
    with pytest.raises(UserError, match="no test images"):
        store.split("test")
    with pytest.raises(UserError, match="'tset', expected one of train"):
        store.split("tset")


@pytest.mark.parametrize("name", FILES)
def test_missing_or_truncated_file_is_named(directory, name):
    data = (directory / name).read_bytes()
    (directory / name).write_bytes(data[:-1])
    with pytest.raises(UserError, match=name):
        open_store(directory)
    (directory / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing"):
        open_store(directory)


def test_a_file_that_cannot_be_read_is_named(directory):
    path = directory / "files.json"
    path.unlink()
    path.symlink_to(path)
    with pytest.raises(UserError, match="files.json"):
        open_store(directory)
    (directory / "manifest.json").unlink()
    (directory / "manifest.json").mkdir()
    with pytest.raises(UserError, match="manifest.json"):
        open_store(directory)


def test_sizes_are_named(directory):
    data = (directory / "images.npy").read_bytes()
    (directory / "images.npy").write_bytes(data + b"x")
    with pytest.raises(UserError, match=f"has {len(data) + 1} bytes, expected {len(data)}"):
        open_store(directory)


def flips(directory, count):
    """Flip one bit at a time: verification finds each, plain opening never crashes."""
    saved = contents(directory)
    rng = np.random.default_rng(0)
    for number in range(count):
        name = FILES[number % len(FILES)]
        data = bytearray(saved[name])
        data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        (directory / name).write_bytes(data)
        with pytest.raises(UserError):
            open_store(directory, verify=True)
        try:
            store = open_store(directory)
            assert store.images[:].shape == (10, 5, 4, 3)
        except UserError:
            pass
        (directory / name).write_bytes(saved[name])
    open_store(directory, verify=True)


def test_flipped_bits_are_found(directory):
    flips(directory, 40)


@pytest.mark.slow
def test_flipped_bits_are_found_in_full(directory, little_memory):
    flips(directory, 1800)  # 1,080 of them in .npy files


@pytest.mark.parametrize(
    "change",
    [
        {"files": {}},
        {"files": None},
        {"splits": {"train": 10}},
        {"label_names": 3},
        {"label_names": ["one"]},
        {"version": 2},
        {"format": "other"},
    ],
)
def test_forged_manifest(directory, change):
    path = directory / "manifest.json"
    manifest = {**json.loads(path.read_text()), **change}
    path.write_text(json.dumps({**manifest, "sha256": manifest_digest(manifest)}))
    with pytest.raises(UserError, match=r"manifest\.json|splits\.npy|labels\.npy"):
        open_store(directory)


def test_forged_shape_allocates_nothing(directory):
    path = directory / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"]["images.npy"]["shape"] = [10**12, 96, 96, 3]
    path.write_text(json.dumps({**manifest, "sha256": manifest_digest(manifest)}))
    with pytest.raises(UserError, match=r"images\.npy does not hold"):
        open_store(directory)


def test_deeply_nested_manifest(directory):
    (directory / "manifest.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match="not readable JSON"):
        open_store(directory)


def test_unfinished_store_says_so(tmp_path):
    (tmp_path / "s.partial").mkdir()
    with pytest.raises(UserError, match="not finished: run its preparation again"):
        open_store(tmp_path / "s")


def test_header_is_what_numpy_reads(tmp_path):
    for shape in ((3,), (202599, 96, 96, 3)):
        path = tmp_path / "a.npy"
        path.write_bytes(npy_header("uint8", shape))
        with path.open("rb") as file:
            np.lib.format.read_magic(file)
            assert np.lib.format.read_array_header_1_0(file) == (shape, False, np.dtype(np.uint8))
        assert path.stat().st_size == 128


def test_second_writer_is_told_who_holds_it(tmp_path):
    with (
        exclusive(tmp_path / "s"),
        pytest.raises(UserError, match=f"prepared by process {os.getpid()} on .*; wait for it"),
        exclusive(tmp_path / "s"),
    ):
        pass
    with exclusive(tmp_path / "s"):  # Free again.
        pass
    assert not list(tmp_path.iterdir())


# Prepares five JPEGs, commits after each of three chunks, and dies just before, or just after, the
# n-th call that changes something on disk for good.
VICTIM = """
import os, signal, sys
from vae_jax.data.formats import celeba
from vae_jax.data.store import preparation
source, out, deadline, after = *sys.argv[1:3], int(sys.argv[3]), sys.argv[4] == "after"
calls = 0
def deadly(function):
    def wrapped(*args, **kwargs):
        global calls
        calls += 1
        if calls == deadline and after:
            function(*args, **kwargs)
        if calls == deadline:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return wrapped
for name in ("fsync", "pwrite", "ftruncate", "rename", "replace", "unlink", "posix_fallocate"):
    setattr(os, name, deadly(getattr(os, name)))
preparation.CHUNK_FILES, preparation.COMMIT_SECONDS = 2, 0.0
celeba.prepare(source, out, 2, workers=1, on_bad_file="skip")
print(calls)
"""


def run_victim(out, deadline, when):
    source = out.parent / "raw"
    command = [sys.executable, "-c", VICTIM, str(source), str(out), str(deadline), when]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def kill_everywhere(tmp_path, deadlines, when, bad):
    write_images(tmp_path / "raw", 5)
    if bad:
        (tmp_path / "raw" / "000002.jpg").write_bytes(b"spoiled")
    clean = run_victim(tmp_path / "clean", 0, when)
    assert clean.returncode == 0, clean.stderr
    expected = contents(tmp_path / "clean")
    killed = 0
    for deadline in deadlines:
        out = tmp_path / f"{when}-{deadline}"
        first = run_victim(out, deadline, when)
        assert first.returncode in (0, -9), first.stderr
        killed += first.returncode == -9
        if first.returncode == -9 and out.exists():
            open_store(out, verify=True)  # In place means complete.
        second = run_victim(out, 0, when)
        assert second.returncode == 0, second.stderr
        assert contents(out) == expected, deadline
        assert not out.with_name(out.name + ".partial").exists()
    return killed


def test_kill_while_writing(tmp_path):
    assert kill_everywhere(tmp_path, (6, 14, 25), "before", bad=True) == 3


@pytest.mark.slow
@pytest.mark.parametrize("bad", [False, True])
@pytest.mark.parametrize("when", ["before", "after"])
def test_kill_at_every_call(tmp_path, when, bad):
    assert kill_everywhere(tmp_path, range(1, 40), when, bad) >= 25
