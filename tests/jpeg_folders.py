"""Made-up JPEGs in folders, and what a store made of them holds."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

SHAPES = ((178, 218), (60, 60), (50, 41))


def jpeg(seed, shape=(178, 218)):
    """A smooth picture of its own for every seed, as the bytes of a file."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    data = io.BytesIO()
    Image.fromarray(small).resize(shape, Image.Resampling.BICUBIC).save(data, "JPEG")
    return data.getvalue()


def write_images(folder, count, first=1):
    """A folder of JPEGs of several shapes, numbered as CelebA's are."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        data = jpeg(number, SHAPES[number % len(SHAPES)])
        (folder / f"{number:06d}.jpg").write_bytes(data)
    return folder


def contents(directory):
    """The bytes of every file of a directory, by name."""
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def write_tables(folder, numbers):
    """CelebA\'s tables of attributes and of the official partition."""
    rows = "".join(f"{i:06d}.jpg {1 if i % 2 else -1} -1\n" for i in numbers)
    (folder / "list_attr_celeba.txt").write_text(f"{len(numbers)}\nOdd Never\n{rows}")
    rows = "".join(f"{i:06d}.jpg,{i % 3}\n" for i in numbers)
    (folder / "list_eval_partition.csv").write_text(f"image_id,partition\n{rows}")


def spoil(folder):
    """Two bad files and one that is only odd."""
    (folder / "000004.jpg").write_bytes(jpeg(4)[:700])
    Image.open(folder / "000009.jpg").save(folder / "000009.jpg", "PNG")
    Image.open(folder / "000005.jpg").convert("L").save(folder / "000005.jpg")


def by_pillow(path, size):
    """`[size, size, 3]`: what preparation should make of a file."""
    image = Image.open(path)
    width, height = image.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    box = (0, 40, 178, 218) if image.size == (178, 218) else (left, top, left + side, top + side)
    return np.asarray(image.crop(box).resize((size, size), Image.Resampling.LANCZOS))
