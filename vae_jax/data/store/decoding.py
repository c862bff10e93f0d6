"""Decodes untrusted image files, crops and resizes them.

Rules: grey and CMYK become RGB, transparency is laid over white, an EXIF rotation is applied.
Everything else that is unusual makes the file a bad one: another format than its name says,
more than `MAX_PIXELS` in the header, truncated data. Decoding is no integrity check: most
JPEGs with a flipped bit still decode.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from vae_jax.data.store.sources import Member, opened_archive, read_member
from vae_jax.types import UserError

MAX_PIXELS = 20_000_000
CELEBA_SIZE = (178, 218)
CELEBA_BOX = (0, 40, 178, 218)
MODES = ("L", "RGB", "CMYK", "1", "P", "LA", "PA", "RGBA")
EXIF_ORIENTATION = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# auto: CelebA's box for 178x218 pixels, the centred square of others; square: always that.
CROPS = ("auto", "square")


class Job(NamedTuple):
    """Where the files lie, and the arguments of `decode_image` for all of them."""

    root: str
    is_zip: bool
    size: int
    crop: str
    formats: tuple[str, ...]


def decode_chunk(
    job: Job, target: Path, task: tuple[int, Sequence[Member]]
) -> tuple[list[tuple[int, str]], str]:
    """Decodes some files into rows of a .npy file; bad ones are reported, not raised.

    Args:
        job: How to decode the files.
        target: A .npy file of uint8 `[N, size, size, 3]`.
        task: The row of the first file, and the files; the row of a bad one stays as it is.

    Returns:
        The position in the chunk and the reason for each bad file, and the SHA-256 over the
        SHA-256 of every file that could be read.
    """
    first, members = task
    bad, digests = [], b""
    image_bytes = job.size * job.size * 3
    with opened_archive(job.root, job.is_zip) as archive, target.open("r+b") as pixels:
        np.lib.format.read_magic(pixels)
        np.lib.format.read_array_header_1_0(pixels)
        start = pixels.tell()
        for index, member in enumerate(members):
            try:
                data = read_member(job.root, archive, member)
                digests += hashlib.sha256(data).digest()
                image = decode_image(data, job.size, job.crop, job.formats)
            except UserError as error:
                bad.append((index, str(error)))
                continue
            pixels.seek(start + (first + index) * image_bytes)
            pixels.write(image.tobytes())
    return bad, hashlib.sha256(digests).hexdigest()


def decode_image(
    data: bytes, size: int, crop: str = "auto", formats: tuple[str, ...] = ("JPEG",)
) -> np.ndarray:
    """Decodes, crops and resizes an image with a Lanczos filter.

    Args:
        data: The contents of the file.
        size: The height and width of the result.
        crop: One of `CROPS`.
        formats: The formats that are accepted, by content: "JPEG" and "PNG".

    Returns:
        `[size, size, 3]` uint8.

    Raises:
        UserError: It is no image of these formats, damaged, or too large; the caller names it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about odd metadata that is not used.
            image = Image.open(io.BytesIO(data), formats=formats)
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise UserError(f"has {width}x{height} pixels, more than {MAX_PIXELS}")
            image = _upright_rgb(image)
        image = image.crop(_crop_box(image.size, crop))
        return np.asarray(image.resize((size, size), Image.Resampling.LANCZOS))
    except UserError:
        raise
    except UnidentifiedImageError as error:  # Pillow's own words hold an address in memory.
        kinds = " or ".join(formats)
        raise UserError(f"is not a readable {kinds} image (no header of that format)") from error
    except Exception as error:  # Damaged files raise nearly anything inside Pillow.
        raise UserError(f"is not a readable {' or '.join(formats)} image ({error})") from error


def _upright_rgb(image: Image.Image) -> Image.Image:
    if image.mode not in MODES:
        raise UserError(f"has mode {image.mode}, expected one of {', '.join(MODES)}")
    orientation = 1
    if "exif" in image.info:
        orientation = image.getexif().get(EXIF_ORIENTATION, 1)
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if image.mode != "RGB":
        image = image.convert("RGB")
    if orientation in UPRIGHT:
        image = image.transpose(UPRIGHT[orientation])
    return image


def _crop_box(image_size: tuple[int, int], crop: str) -> tuple[int, int, int, int]:
    if crop == "auto" and image_size == CELEBA_SIZE:
        return CELEBA_BOX
    width, height = image_size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side
