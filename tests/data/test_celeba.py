"""Preparation from end to end: layouts, splits, attributes, bad files, kills, memory."""

from __future__ import annotations

import io
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest
from PIL import Image

from vae_jax.data import celeba, preparation
from vae_jax.data.store import open_store
from vae_jax.types import UserError

SHAPES = ((178, 218), (60, 60), (50, 41))


def jpeg(seed, shape=(178, 218)):
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    data = io.BytesIO()
    Image.fromarray(small).resize(shape, Image.Resampling.BICUBIC).save(data, "JPEG")
    return data.getvalue()


def write_images(folder, count, first=1):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        data = jpeg(number, SHAPES[number % len(SHAPES)])
        (folder / f"{number:06d}.jpg").write_bytes(data)
    return folder


def by_pillow(path, size):
    image = Image.open(path)
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    box = (0, 40, 178, 218) if image.size == (178, 218) else (left, top, left + side, top + side)
    return np.asarray(image.crop(box).resize((size, size), Image.Resampling.LANCZOS))


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


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


def write_tables(folder, numbers):
    rows = "".join(f"{i:06d}.jpg {1 if i % 2 else -1} -1\n" for i in numbers)
    (folder / "list_attr_celeba.txt").write_text(f"{len(numbers)}\nOdd Never\n{rows}")
    rows = "".join(f"{i:06d}.jpg,{i % 3}\n" for i in numbers)
    (folder / "list_eval_partition.csv").write_text(f"image_id,partition\n{rows}")


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
    store = celeba.prepare_folder(root, tmp_path / "s", 12)
    assert store.file_names == ("a/000001.jpg", "a/000002.jpg", "a/000003.jpg", "b.png")
    np.testing.assert_array_equal(store.images[0], store.images[3])


def spoil(folder):
    """Two bad files and one that is only odd."""
    (folder / "000004.jpg").write_bytes(jpeg(4)[:700])
    Image.open(folder / "000009.jpg").save(folder / "000009.jpg", "PNG")
    Image.open(folder / "000005.jpg").convert("L").save(folder / "000005.jpg")


def test_bad_file_stops_and_resumes_when_replaced(tmp_path):
    raw = write_images(tmp_path / "raw", 70)
    good = (raw / "000050.jpg").read_bytes()
    (raw / "000050.jpg").write_bytes(b"spoiled")
    for _ in range(2):
        with pytest.raises(UserError, match="000050.jpg is not a readable JPEG.*replace it"):
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
    with pytest.raises(UserError, match="other files or settings.*'size': 8"):
        celeba.prepare(raw, tmp_path / "s", 16)
    write_images(raw, 1, first=6)
    with pytest.raises(UserError, match="other files or settings"):
        celeba.prepare(raw, tmp_path / "s", 8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 0}, "size is 0"),
        ({"size": 10**6}, "size is 1000000"),
        ({"crop": "middle"}, "crop is 'middle'"),
        ({"crop": (1, 2, 3)}, r"crop is \(1, 2, 3\)"),
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


def test_dead_worker_is_reported(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(UserError, match=r"ended unexpectedly \(exit status"):
        celeba.prepare(folder, tmp_path / "s", 8, workers=2)


def test_workers_do_not_import_jax():
    code = "import sys, vae_jax.data.decoding_worker; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def start_preparing(raw, out):
    code = (
        "import sys; from vae_jax.data import celeba, preparation; preparation.COMMIT_CHUNKS = 1; "
        "celeba.prepare(sys.argv[1], sys.argv[2], 64, workers=2)"
    )
    return subprocess.Popen([sys.executable, "-c", code, str(raw), str(out)])


def lines(journal):
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def kill_beyond(process, journal, count, delay=0.0):
    """kill -9 `delay` seconds after the journal has more lines; True if it came in time."""
    while process.poll() is None:
        if lines(journal) > count:
            time.sleep(delay)
            process.kill()
            return process.wait() == -signal.SIGKILL
        time.sleep(0.002)
    return False


def kills(tmp_path, count, images):
    """Kills processes that have each added to the journal, anywhere up to the next commits."""
    raw, draw = write_images(tmp_path / "raw", images), random.Random(0)
    clean = contents(celeba.prepare(raw, tmp_path / "clean", 64, workers=1).directory)
    killed = tried = 0
    out, journal = tmp_path / "s", tmp_path / "s.partial" / "journal.jsonl"
    while killed < count:
        before = lines(journal)
        process = start_preparing(raw, out)
        killed += kill_beyond(process, journal, before, delay=draw.uniform(0, 0.04))
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
    assert kill_beyond(process, tmp_path / "s.partial" / "journal.jsonl", 2)
    seen = []
    decode = preparation.decode_in_order
    monkeypatch.setattr(
        preparation,
        "decode_in_order",
        lambda job, chunks, workers: seen.append(len(chunks)) or decode(job, chunks, workers),
    )
    celeba.prepare(raw, tmp_path / "s", 64)
    assert seen[0] <= 2  # Four chunks of 32 files, two of them in the journal.


def test_second_process_is_told_who_works(tmp_path):
    raw = write_images(tmp_path / "raw", 320)
    process = start_preparing(raw, tmp_path / "s")
    while not (tmp_path / "s.partial" / "journal.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGSTOP)
    try:
        with pytest.raises(UserError, match=f"another process \\(pid {process.pid}\\)"):
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
        "import sys, resource; from vae_jax.data import celeba; "
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


def run_command(*arguments):
    command = [sys.executable, "-m", "experiments.prepare_celeba", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_command_line(tmp_path):
    raw = write_images(tmp_path / "raw", 12)
    spoil(raw)
    arguments = (f"--source={raw}", f"--out={tmp_path / 's'}", "--size=8")
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
