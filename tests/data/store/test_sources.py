"""Folders and zip archives: layouts, and archives that mean harm."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import warnings
import zipfile

import numpy as np
import pytest

from vae_jax.data.store.sources import JPEG_NAMES, list_source, opened_archive, read_member
from vae_jax.types import UserError

DATA = {f"{i:06d}.jpg": bytes([i]) * (50 + i) for i in range(1, 6)}


def write_zip(path, members, **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def read_all(source):
    with opened_archive(str(source.root), source.is_zip) as archive:
        return {m.name: read_member(str(source.root), archive, m) for m in source.members}


@pytest.mark.parametrize("below", ["", "img_align_celeba", "img_align_celeba/img_align_celeba"])
def test_folder_layouts(tmp_path, below):
    folder = tmp_path / below
    folder.mkdir(parents=True, exist_ok=True)
    (tmp_path / "list_attr_celeba.csv").write_text("")
    (tmp_path / "other").mkdir()
    for name, data in DATA.items():
        (folder / name).write_bytes(data)
    source = list_source(tmp_path, JPEG_NAMES, nested=False)
    assert source.root == folder and [m.name for m in source.members] == sorted(DATA)
    assert read_all(source) == DATA


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("prefix", ["", "img_align_celeba/", "a/img_align_celeba/"])
def test_zip_layouts(tmp_path, method, prefix):
    members = {prefix + name: data for name, data in DATA.items()}
    extra = {"empty/": b"", "list_attr_celeba.csv": b"x", f"__MACOSX/{prefix}._1.jpg": b"x"}
    path = write_zip(tmp_path / "a.zip", {**extra, **members}, compression=method)
    assert read_all(list_source(path, JPEG_NAMES, nested=False)) == DATA


def test_nested_folder_and_links(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "1.jpg").write_bytes(b"1")
    (tmp_path / "2.JPG").write_bytes(b"2")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    assert read_all(list_source(tmp_path, JPEG_NAMES, True)) == {"a/b/1.jpg": b"1", "2.JPG": b"2"}


@pytest.mark.parametrize("data", [b"", b"longer than it was"])
def test_a_file_that_has_changed_since_it_was_listed_is_refused(tmp_path, data):
    (tmp_path / "1.jpg").write_bytes(b"as it was")
    source = list_source(tmp_path, JPEG_NAMES, nested=False)
    (tmp_path / "1.jpg").write_bytes(data)
    with pytest.raises(UserError, match="changed while the images were being prepared"):
        read_all(source)


def test_missing_and_empty(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        list_source(tmp_path / "x", JPEG_NAMES, nested=False)
    with pytest.raises(UserError, match="holds no image files"):
        list_source(tmp_path, JPEG_NAMES, nested=False)


def test_circles_and_pipes_are_one_sentence(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.jpg").symlink_to(tmp_path / "a" / "1.jpg")
    with pytest.raises(UserError, match="1.jpg cannot be read: .*links lead in a circle"):
        list_source(tmp_path / "a", JPEG_NAMES, nested=True)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="pipe is not a file or folder"):
        list_source(tmp_path / "pipe", JPEG_NAMES, nested=True)


def test_a_sparse_giant_is_refused_unread(tmp_path, little_memory):
    with (tmp_path / "1.jpg").open("wb") as file:
        file.truncate(2**40)
    source = list_source(tmp_path, JPEG_NAMES, nested=True)
    with pytest.raises(UserError, match="is larger than"):
        read_all(source)


@pytest.mark.parametrize("name", ["../1.jpg", "/1.jpg", "a/../../1.jpg", "a\\1.jpg", "c:1.jpg"])
def test_escaping_names_are_refused(tmp_path, name):
    path = write_zip(tmp_path / "a.zip", {"000001.jpg": b"1", name: b"2"})
    with pytest.raises(UserError, match="member .*1.jpg.*refused"):
        list_source(path, JPEG_NAMES, nested=False)


@pytest.mark.parametrize("name", ["-rf.jpg", ".1.jpg", "a\n.jpg", "\u202egpj.jpg", "~/1.jpg"])
def test_unexpected_names_are_refused(tmp_path, name):
    path = write_zip(tmp_path / "a.zip", {name: b"2"})
    with pytest.raises(UserError, match="unexpected name: refused"):
        list_source(path, JPEG_NAMES, nested=False)


def test_duplicates_are_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"a/1.jpg": b"1", "b/1.jpg": b"2"})
    with pytest.raises(UserError, match="1.jpg twice: a/1.jpg and b/1.jpg"):
        list_source(path, JPEG_NAMES, nested=False)
    with warnings.catch_warnings(), zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        warnings.simplefilter("ignore")
        for data in ("1", "2"):
            archive.writestr("1.jpg", data)
    with pytest.raises(UserError, match="1.jpg twice"):
        list_source(tmp_path / "b.zip", JPEG_NAMES, nested=True)


def test_empty_name_is_no_image(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"x": b"1", "1.jpg": b"2"})
    data = path.read_bytes()
    entry = data.index(b"PK\1\2")
    size = data[entry + 28]
    entries = bytearray(data[entry:])
    entries[28] = 0
    del entries[46 : 46 + size]
    end = entries.index(b"PK\5\6")
    entries[end + 12] -= size
    path.write_bytes(data[:entry] + entries)
    assert [m.name for m in list_source(path, JPEG_NAMES, nested=False).members] == ["1.jpg"]


def test_link_is_refused(tmp_path):
    info = zipfile.ZipInfo("000001.jpg")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(UserError, match="'000001.jpg' is a link"):
        list_source(tmp_path / "a.zip", JPEG_NAMES, nested=False)


def test_encrypted_member_is_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"000001.jpg": b"1"})
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        data[data.index(signature) + offset] |= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="'000001.jpg' is encrypted"):
        list_source(path, JPEG_NAMES, nested=False)


def test_bomb_is_refused_before_reading(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"1.jpg": bytes(10**7)}, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(UserError, match="'1.jpg' would unpack from .* to 10000000 bytes"):
        list_source(path, JPEG_NAMES, nested=False)


def test_lying_size_stops_at_what_was_announced(tmp_path):
    rng = np.random.default_rng(0)
    content = rng.integers(0, 4, 400_000, np.uint8).tobytes()
    path = write_zip(tmp_path / "a.zip", {"1.jpg": content}, compression=zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\1\2")
    data[entry + 24 : entry + 28] = struct.pack("<I", 1000)
    path.write_bytes(data)
    with pytest.raises(UserError, match="size or CRC-32 differs"):
        read_all(list_source(path, JPEG_NAMES, nested=False))


def test_overlapping_members_are_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"1.jpg": bytes(3000), "2.jpg": bytes(3000)})
    data = path.read_bytes()
    second, directory = data.index(b"PK\3\4", 4), data.index(b"PK\1\2")
    entries = bytearray(data[directory:])
    offset = entries.index(b"PK\1\2", 4) + 42
    entries[offset : offset + 4] = struct.pack("<I", 0)
    end = entries.index(b"PK\5\6")
    entries[end + 16 : end + 20] = struct.pack("<I", second)
    path.write_bytes(data[:second] + entries)
    with pytest.raises(UserError, match="members overlap"):
        list_source(path, JPEG_NAMES, nested=False)


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><html>", b"\n <HTML><head>Quota exceeded"])
def test_quota_page_is_named(tmp_path, page):
    (tmp_path / "img_align_celeba.zip").write_bytes(page)
    with pytest.raises(UserError, match="img_align_celeba.zip is an HTML page.*download-quota"):
        list_source(tmp_path / "img_align_celeba.zip", JPEG_NAMES, nested=False)


def mutations(tmp_path, count):
    rng = np.random.default_rng(5)
    write_zip(tmp_path / "a.zip", DATA, compression=zipfile.ZIP_DEFLATED)
    original = (tmp_path / "a.zip").read_bytes()
    for _ in range(count):
        data = io.BytesIO(original).getbuffer()
        for _ in range(rng.integers(1, 5)):
            data[rng.integers(len(data))] = rng.integers(256)
        cut = len(data) if rng.random() < 0.8 else rng.integers(len(data))
        (tmp_path / "m.zip").write_bytes(data[:cut])
        try:
            source = list_source(tmp_path / "m.zip", JPEG_NAMES, nested=False)
        except UserError as error:
            assert "m.zip" in str(error)
            continue
        with contextlib.suppress(UserError):  # of a member, which the caller names
            read_all(source)


def test_mutated_archives_raise_only_user_errors(tmp_path, little_memory):
    mutations(tmp_path, 40)


@pytest.mark.slow
def test_mutated_archives_raise_only_user_errors_in_full(tmp_path, little_memory):
    mutations(tmp_path, 1000)
