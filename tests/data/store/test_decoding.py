"""One image file: crop against Pillow, stated rules for odd files, damage, forged headers."""

from __future__ import annotations

import io
import struct
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from vae_jax.data.store.decoding import decode_image
from vae_jax.types import UserError


def picture(width, height, mode="RGB", seed=0):
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (6, 5, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def encoded(image, file_format="JPEG", **options):
    data = io.BytesIO()
    image.save(data, file_format, **options)
    return data.getvalue()


def by_pillow(data, box, size):
    image = Image.open(io.BytesIO(data)).convert("RGB").crop(box)
    return np.asarray(image.resize((size, size), Image.Resampling.LANCZOS))


@pytest.mark.parametrize(
    ("shape", "crop", "box"),
    [
        ((178, 218), "auto", (0, 40, 178, 218)),
        ((178, 218), "square", (0, 20, 178, 198)),
        ((200, 209), "auto", (0, 4, 200, 204)),
        ((300, 101), "auto", (99, 0, 200, 101)),
        ((64, 64), "auto", (0, 0, 64, 64)),
        ((7, 3), "auto", (2, 0, 5, 3)),
    ],
)
@pytest.mark.parametrize("size", [64, 96])
def test_crop_and_resize(shape, crop, box, size):
    data = encoded(picture(*shape))
    found = decode_image(data, size, crop)
    assert found.shape == (size, size, 3) and found.dtype == np.uint8
    np.testing.assert_array_equal(found, by_pillow(data, box, size))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_become_rgb(mode):
    data = encoded(picture(40, 40, mode))
    np.testing.assert_array_equal(decode_image(data, 16), by_pillow(data, (0, 0, 40, 40), 16))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    upright = picture(40, 30)
    back = {1: None, 2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}[orientation]  # Inverse rotations.
    stored = upright if back is None else upright.transpose(Image.Transpose(back))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(stored, quality=98, subsampling=0, exif=exif)
    expected = by_pillow(encoded(upright, "PNG"), (5, 0, 35, 30), 24).astype(int)
    assert np.abs(decode_image(data, 24) - expected).mean() < 1.5


def test_png_named_jpg_is_bad_but_png_is_read_where_allowed():
    data = encoded(picture(20, 20), "PNG")
    with pytest.raises(UserError, match="not a readable JPEG image"):
        decode_image(data, 16)
    found = decode_image(data, 16, formats=("JPEG", "PNG"))
    np.testing.assert_array_equal(found, by_pillow(data, (0, 0, 20, 20), 16))


def test_transparency_lies_on_white():
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    found = decode_image(encoded(clear, "PNG"), 4, formats=("PNG",))
    np.testing.assert_array_equal(found, np.full((4, 4, 3), 255))


def test_sixteen_bit_png_is_bad():
    deep = Image.fromarray(np.zeros((4, 4), np.uint16))
    with pytest.raises(UserError, match="has mode I;16"):
        decode_image(encoded(deep, "PNG"), 4, formats=("PNG",))


def test_forged_81_megapixels_are_refused_before_decoding():
    data = bytearray(encoded(picture(64, 64)))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 9000, 9000)
    tracemalloc.start()
    with pytest.raises(UserError, match="has 9000x9000 pixels, more than 20000000"):
        decode_image(bytes(data), 8)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"<html>quota</html>", bytes(100)])
def test_what_is_no_image(data):
    with pytest.raises(UserError, match="not a readable JPEG"):
        decode_image(data, 8)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_truncated_files_are_bad(share):
    data = encoded(picture(178, 218))
    with pytest.raises(UserError):
        decode_image(data[: int(share * len(data))], 8)


def mutations(count):
    """As many JPEGs and, besides, as many PNGs."""
    exif = Image.Exif()
    exif[0x0112] = 6
    files = [
        encoded(picture(40, 50), exif=exif),
        encoded(picture(20, 20, "P"), "PNG"),
        encoded(picture(30, 30, "CMYK"), progressive=True),
        encoded(picture(20, 20), "PNG"),
    ]
    rng = np.random.default_rng(2)
    for number in range(2 * count):
        data = bytearray(files[number % len(files)])
        for _ in range(rng.integers(1, 6)):
            data[int(len(data) * rng.random() ** 2)] = rng.integers(256)
        try:
            found = decode_image(bytes(data), 8, formats=("JPEG", "PNG"))
            assert found.shape == (8, 8, 3)
        except UserError as error:
            assert str(error)


def test_mutated_files_raise_only_user_errors(little_memory):
    mutations(40)


@pytest.mark.slow
def test_mutated_files_raise_only_user_errors_in_full(little_memory):
    mutations(1000)
