"""Preparation under bad files, kills, mutations, a second process, and many images."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from jpeg_folders import SHAPES, by_pillow, contents, jpeg, spoil, write_images, write_tables

from vae_jax.data.formats import celeba
from vae_jax.data.formats import folder as folder_format
from vae_jax.data.store import preparation
from vae_jax.data.store.reading import open_store
from vae_jax.data.store.writing import exclusive
from vae_jax.types import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("celeba") / "raw", 70)


def test_bad_file_stops_and_resumes_when_replaced(tmp_path):
    raw = write_images(tmp_path / "raw", 70)
    good = (raw / "000050.jpg").read_bytes()
    (raw / "000050.jpg").write_bytes(b"spoiled")
    for _ in range(2):
        with pytest.raises(UserError, match="000050.jpg is not a readable JPEG.*replace or"):
            celeba.prepare(raw, tmp_path / "s", 8, workers=2)
        assert not (tmp_path / "s").exists()
    (raw / "000050.jpg").write_bytes(good)
    celeba.prepare(raw, tmp_path / "s", 8)
    celeba.prepare(raw, tmp_path / "clean", 8)
    assert contents(tmp_path / "s") == contents(tmp_path / "clean")


def test_skipped_files_are_named_and_left_out(tmp_path):
    raw = write_images(tmp_path / "raw", 40)
    write_tables(raw, range(1, 41))
    spoil(raw)
    store = celeba.prepare(raw, tmp_path / "s", 8, on_bad_file="skip", workers=2)
    skipped = dict(store.manifest["source"]["skipped"])
    assert sorted(skipped) == ["000004.jpg", "000009.jpg"] and len(store.images) == 38
    rows = [int(name[:6]) for name in store.file_names]
    assert rows == [i for i in range(1, 41) if i not in (4, 9)]
    assert store.labels[:, 0].tolist() == [i % 2 for i in rows]
    assert store.splits.tolist() == [i % 3 for i in rows]
    np.testing.assert_array_equal(store.images[3, :, :, 0], store.images[3, :, :, 2])  # Grey.
    np.testing.assert_array_equal(store.images[4], by_pillow(raw / "000006.jpg", 8))
    open_store(tmp_path / "s", verify=True)
    with pytest.raises(UserError, match=r"more than 1 bad files \(max_bad\): 000004.jpg"):
        celeba.prepare(raw, tmp_path / "t", 8, on_bad_file="skip", max_bad=1)


def test_nothing_usable(tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "1.jpg").write_bytes(b"")
    with pytest.raises(UserError, match="not one of its 1 files can be used"):
        celeba.prepare(tmp_path / "raw", tmp_path / "s", 8, on_bad_file="skip")


def test_finished_store_is_opened_or_refused(tmp_path):
    raw = write_images(tmp_path / "raw", 5)
    celeba.prepare(raw, tmp_path / "s", 8)
    before = (tmp_path / "s" / "images.npy").stat().st_mtime_ns
    celeba.prepare(raw, tmp_path / "s", 8)
    assert (tmp_path / "s" / "images.npy").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="other settings .size 8, now 16."):
        celeba.prepare(raw, tmp_path / "s", 16)
    with pytest.raises(UserError, match="other settings .crop auto, now square, formats"):
        folder_format.prepare(raw, tmp_path / "s", 8)


def more_images(raw):
    write_images(raw, 1, first=6)


def another_image_of_the_same_size(raw):
    data = bytearray((raw / "000002.jpg").read_bytes())
    data[-9] ^= 1
    (raw / "000002.jpg").write_bytes(data)


def a_table_that_was_not_there(raw):
    write_tables(raw, range(1, 6))


@pytest.mark.parametrize(
    "change", [more_images, another_image_of_the_same_size, a_table_that_was_not_there]
)
def test_a_store_of_files_that_have_changed_is_refused(tmp_path, change):
    raw = write_images(tmp_path / "raw", 5)
    celeba.prepare(raw, tmp_path / "s", 8)
    change(raw)
    with pytest.raises(UserError, match="other files than .*raw has now.*give .*s itself"):
        celeba.prepare(raw, tmp_path / "s", 8)


def test_a_finished_store_is_opened_while_another_process_does_so(tmp_path):
    raw = write_images(tmp_path / "raw", 5)
    celeba.prepare(raw, tmp_path / "s", 8)
    with exclusive(tmp_path / "s"):
        celeba.prepare(raw, tmp_path / "s", 8)


def start_preparing(raw, out):
    code = (
        "import sys; from vae_jax.data.formats import celeba; "
        "from vae_jax.data.store import preparation; preparation.COMMIT_SECONDS = 0; "
        "celeba.prepare(sys.argv[1], sys.argv[2], 64, workers=2)"
    )
    return subprocess.Popen([sys.executable, "-c", code, str(raw), str(out)])


def chunks_done(out):
    path = out.with_name(f"{out.name}.partial") / "progress.json"
    try:
        return len(json.loads(path.read_bytes())["chunks"])
    except FileNotFoundError:
        return 0


def kill_beyond(process, out, count, delay=0.0):
    """kill -9 `delay` seconds after more chunks are done; True if it came in time."""
    while process.poll() is None:
        if chunks_done(out) > count:
            time.sleep(delay)
            process.kill()
            return process.wait() == -signal.SIGKILL
        time.sleep(0.002)
    return False


def kills(tmp_path, count, images):
    """Kills processes that have each finished some chunks, anywhere up to the next commits."""
    raw, draw = write_images(tmp_path / "raw", images), random.Random(0)
    clean = contents(celeba.prepare(raw, tmp_path / "clean", 64, workers=1).directory)
    killed = tried = 0
    out = tmp_path / "s"
    while killed < count:
        process = start_preparing(raw, out)
        killed += kill_beyond(process, out, chunks_done(out), delay=draw.uniform(0, 0.04))
        tried += 1
        assert tried < 3 * count
        if out.exists():
            assert contents(out) == clean
            shutil.rmtree(out)
    celeba.prepare(raw, out, 64)
    assert contents(out) == clean


def test_killed_runs_resume_to_the_same_bytes(tmp_path):
    kills(tmp_path, 2, 320)


@pytest.mark.slow
def test_fifty_killed_runs_resume_to_the_same_bytes(tmp_path):
    kills(tmp_path, 50, 640)


def mutated_folder(folder, count):
    rng = np.random.default_rng(6)
    folder.mkdir()
    for number in range(count):
        data = bytearray(jpeg(number % 7, SHAPES[number % len(SHAPES)]))
        for _ in range(rng.integers(1, 6)):
            data[int(len(data) * rng.random() ** 3)] = rng.integers(256)
        cut = len(data) if rng.random() < 0.9 else rng.integers(len(data))
        (folder / f"{number:06d}.jpg").write_bytes(data[:cut])


def every_file_is_used_or_named(tmp_path, count):
    """A folder of mutated JPEGs: each is either in the store or listed with its reason."""
    mutated_folder(tmp_path / "raw", count)
    options = {"on_bad_file": "skip", "max_bad": count}
    store = celeba.prepare(tmp_path / "raw", tmp_path / "s", 16, workers=1, **options)
    skipped = dict(store.manifest["source"]["skipped"])
    assert sorted([*skipped, *store.file_names]) == [f"{i:06d}.jpg" for i in range(count)]
    assert all(skipped.values()) and count / 10 < len(skipped) < count
    open_store(tmp_path / "s", verify=True)
    again = celeba.prepare(tmp_path / "raw", tmp_path / "t", 16, workers=2, **options)
    assert contents(again.directory) == contents(store.directory)


def test_mutated_jpegs_are_used_or_named(tmp_path, little_memory):
    every_file_is_used_or_named(tmp_path, 70)


@pytest.mark.slow
def test_a_thousand_mutated_jpegs_are_used_or_named(tmp_path, little_memory):
    every_file_is_used_or_named(tmp_path, 1000)


def test_resuming_decodes_only_what_is_missing(tmp_path, monkeypatch):
    raw = write_images(tmp_path / "raw", 128)
    process = start_preparing(raw, tmp_path / "s")
    assert kill_beyond(process, tmp_path / "s", 1)
    seen = []
    decode = preparation.decode_chunk
    monkeypatch.setattr(
        preparation, "decode_chunk", lambda *task: seen.append(task) or decode(*task)
    )
    celeba.prepare(raw, tmp_path / "s", 64, workers=1)
    assert len(seen) <= 2  # Four chunks of 32 files, two of them done before.


def test_other_settings_do_not_go_on_with_unfinished_work(tmp_path):
    raw = write_images(tmp_path / "raw", 40)
    (raw / "000040.jpg").write_bytes(b"spoiled")
    for size, message in ((8, "replace or remove it"), (9, "other settings .size 8, now 9.")):
        with pytest.raises(UserError, match=message):
            celeba.prepare(raw, tmp_path / "s", size, workers=1)
    (tmp_path / "s.partial" / "progress.json").write_text("[]")
    with pytest.raises(UserError, match="progress.json is damaged"):
        celeba.prepare(raw, tmp_path / "s", 8, workers=1)


def test_second_process_is_told_who_works(tmp_path):
    raw = write_images(tmp_path / "raw", 320)
    process = start_preparing(raw, tmp_path / "s")
    while not chunks_done(tmp_path / "s"):
        assert process.poll() is None
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGSTOP)
    try:
        with pytest.raises(UserError, match=f"being prepared by process {process.pid} on "):
            celeba.prepare(raw, tmp_path / "s", 64)
    finally:
        os.kill(process.pid, signal.SIGCONT)
        assert process.wait() == 0
    open_store(tmp_path / "s", verify=True)


def test_memory_does_not_grow_with_the_images(tmp_path):
    """The parent's peak for 4 and for 40 MB of pixels, in a process of its own."""
    raw = write_images(tmp_path / "raw", 20)
    for copy in range(1, 10):
        for path in sorted(raw.glob("0*.jpg"))[:20]:
            os.link(path, raw / f"{copy}{path.name}")
    code = (
        "import sys, resource; from vae_jax.data.formats import celeba; "
        "celeba.prepare(sys.argv[1], sys.argv[2], 512, workers=2); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    peaks = []
    for name, pattern in (("few", "0*.jpg"), ("all", "*.jpg")):
        folder = tmp_path / name
        folder.mkdir()
        for path in raw.glob(pattern):
            os.link(path, folder / path.name)
        command = [sys.executable, "-c", code, str(folder), str(tmp_path / f"{name}-store")]
        peaks.append(int(subprocess.run(command, capture_output=True, check=True).stdout))
    pixels = (200 - 20) * 512 * 512 * 3 // 1024
    assert peaks[1] - peaks[0] < 0.1 * pixels, (peaks, pixels)
