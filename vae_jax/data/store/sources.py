"""Lists image files in a folder or in a zip archive, and reads them one at a time.

Archives are untrusted: members are streamed, never extracted, and anything but plainly named,
unencrypted, reasonably sized files is refused by name. The central directory is read once; worker
processes get offsets and read members themselves.
"""

from __future__ import annotations

import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from vae_jax.files import reason_of
from vae_jax.types import UserError

MAX_FILE_BYTES = 64 * 2**20
MAX_COMPRESSION = 100  # JPEG and PNG data hardly compress; a higher ratio is a bomb.
MAX_PATH_LENGTH = 1000
JPEG_NAMES = (".jpg", ".jpeg")
IMAGE_NAMES = (*JPEG_NAMES, ".png")
PLAIN_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_. -]*")
CELEBA_FOLDER = "img_align_celeba"


class Member(NamedTuple):
    """An image file; `stamp` is its modification time in ns, or its CRC-32 in an archive."""

    name: str
    path: str
    size: int
    stamp: int
    offset: int = 0
    packed: int = 0
    method: int = zipfile.ZIP_STORED


@dataclass(frozen=True)
class Source:
    """A folder or a zip archive of images, and its image files in order of name."""

    root: Path
    is_zip: bool
    members: list[Member]

    @property
    def folder(self) -> Path:
        """Returns the folder that holds the images, or the archive."""
        return self.root.parent if self.is_zip else self.root


def list_source(source: str | Path, suffixes: tuple[str, ...], nested: bool) -> Source:
    """Lists the image files of a folder or zip archive.

    Args:
        source: A folder or a .zip file.
        suffixes: The endings of image names, lower case.
        nested: True: every file below a folder counts and is named by its relative path. False:
            CelebA's layout: one flat folder, perhaps inside `img_align_celeba/...`, base names.

    Raises:
        UserError: There is nothing, no image, no zip archive, or an unsafe member.
    """
    root = Path(source)
    is_zip = root.is_file()
    try:
        if is_zip:
            members = _list_zip(root, suffixes, nested)
        elif root.is_dir():
            root = root if nested else _image_folder(root, suffixes)
            members = list(_list_folder(root, suffixes, nested))
        else:
            what = "is not a file or folder" if root.exists() else "does not exist"
            raise UserError(f"{root} {what}: expected a folder of images or a zip archive")
    except OSError as error:
        raise UserError(f"{error.filename or root} cannot be read: {reason_of(error)}") from error
    if not members:
        raise UserError(f"{root} holds no image files (names ending in {', '.join(suffixes)})")
    members.sort()
    for before, after in zip(members, members[1:], strict=False):
        if before.name == after.name:
            raise UserError(f"{root} holds {before.name} twice: {before.path} and {after.path}")
    return Source(root, is_zip, members)


def opened_archive(root: str, is_zip: bool) -> AbstractContextManager[BinaryIO | None]:
    """Returns the archive's file for `read_member`, or None for a folder, to be used in `with`."""
    return open(root, "rb") if is_zip else nullcontext()


def read_member(root: str, archive: BinaryIO | None, member: Member) -> bytes:
    """Returns the bytes of one file.

    Raises:
        UserError: It cannot be read, is too large, is damaged in the archive, or has become longer
            or shorter since it was listed.
    """
    if member.size > MAX_FILE_BYTES:
        raise UserError(f"is larger than {MAX_FILE_BYTES} bytes")
    try:
        if archive is not None:
            return _read_zip_member(archive, member)
        with open(os.path.join(root, member.path), "rb", buffering=0) as file:
            data = file.read(member.size + 1)  # memory for so much is reserved first
    except (OSError, zlib.error) as error:
        raise UserError(f"cannot be read ({error})") from error
    if len(data) != member.size:
        raise UserError("has changed while the images were being prepared: run again")
    return data


def _image_folder(root: Path, suffixes: tuple[str, ...]) -> Path:
    """Descends to where the images lie: `img_align_celeba`, or the only folder there is."""
    for _ in range(4):
        folders = []
        with os.scandir(root) as entries:
            for entry in entries:
                if entry.name.lower().endswith(suffixes) and entry.is_file():
                    return root
                if entry.is_dir():
                    folders.append(entry.name)
        if CELEBA_FOLDER in folders:
            root = root / CELEBA_FOLDER
        elif len(folders) == 1:
            root = root / folders[0]
        else:
            break
    return root


def _list_folder(root: Path, suffixes: tuple[str, ...], nested: bool) -> Iterable[Member]:
    pending = [""]
    while pending:
        below = pending.pop()
        with os.scandir(root / below) as entries:
            for entry in entries:
                path = os.path.join(below, entry.name)
                if entry.name.lower().endswith(suffixes) and entry.is_file():
                    if len(path) > MAX_PATH_LENGTH:
                        raise UserError(f"{path} in {root} is a longer path than is supported")
                    about = entry.stat()
                    yield Member(path, path, about.st_size, about.st_mtime_ns)
                elif nested and entry.is_dir(follow_symlinks=False):
                    pending.append(path)


def _list_zip(path: Path, suffixes: tuple[str, ...], nested: bool) -> list[Member]:
    try:
        with path.open("rb") as file:
            start = file.read(512).lstrip().lower()
            size = file.seek(0, os.SEEK_END)
        if start.startswith((b"<!doctype html", b"<html")):
            raise UserError(
                f"{path} is an HTML page, not a zip archive: probably the download-quota page "
                "saved under this name; download the archive again"
            )
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except UserError:
        raise
    except Exception as error:  # zipfile raises a dozen kinds on a damaged directory.
        raise UserError(f"{path} is not a readable zip archive ({error})") from error
    if sum(info.compress_size for info in infos) > size:
        raise UserError(f"{path}: its members overlap, as in a zip bomb: refused")
    members = []
    for info in infos:
        if info.filename.endswith("/"):
            continue
        _refuse_unsafe(path, info)
        parts = info.filename.split("/")
        if not parts[-1].lower().endswith(suffixes) or parts[0] == "__MACOSX":
            continue
        if not all(PLAIN_PART.fullmatch(part) for part in parts):
            raise UserError(f"{path}: member {info.filename!r} has an unexpected name: refused")
        members.append(
            Member(
                info.filename if nested else parts[-1], info.filename, info.file_size, info.CRC,
                info.header_offset, info.compress_size, info.compress_type,
            )
        )  # fmt: skip
    return members


def _refuse_unsafe(path: Path, info: zipfile.ZipInfo) -> None:
    name = info.orig_filename
    reason = None
    if name.startswith("/") or "\\" in name or "\0" in name or ".." in name.split("/"):
        reason = "points outside the archive"
    elif ":" in name or len(name) > MAX_PATH_LENGTH:
        reason = "has an unexpected name"
    elif stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
        reason = "is a link or special file"
    elif info.flag_bits & 0x1:
        reason = "is encrypted"
    elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        reason = f"uses compression method {info.compress_type} (expected stored or deflated)"
    elif not name.lower().endswith(IMAGE_NAMES):
        return
    elif info.file_size > MAX_FILE_BYTES or info.file_size > MAX_COMPRESSION * info.compress_size:
        reason = f"would unpack from {info.compress_size} to {info.file_size} bytes (a zip bomb?)"
    if reason is not None:
        raise UserError(f"{path}: member {name!r} {reason}: refused")


def _read_zip_member(archive: BinaryIO, member: Member) -> bytes:
    archive.seek(member.offset)
    header = archive.read(30)
    if len(header) < 30 or header[:4] != b"PK\3\4":
        raise UserError("is damaged in the archive (no local header)")
    name_length, extra_length = struct.unpack("<HH", header[26:30])
    if archive.read(name_length) != member.path.encode():
        raise UserError("is damaged in the archive (two different names)")
    archive.seek(extra_length, os.SEEK_CUR)
    data = archive.read(member.packed)
    if member.method == zipfile.ZIP_DEFLATED:
        data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, member.size + 1)
    if len(data) != member.size or zlib.crc32(data) != member.stamp:
        raise UserError("is damaged in the archive (size or CRC-32 differs)")
    return data
