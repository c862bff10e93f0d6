"""Reads the binary version of CIFAR-10: records of a label and 32x32 pixels, plane by plane.

https://www.cs.toronto.edu/~kriz/cifar.html, "CIFAR-10 binary version".
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vae_jax.types import ImageSet, UserError

IMAGE_SHAPE = (32, 32, 3)
RECORD_BYTES = 1 + 32 * 32 * 3
RECORDS = 10_000  # in each file
FOLDER = "cifar-10-batches-bin"
FILES = {
    "train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
    "test": ("test_batch.bin",),
}
CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip


def open_cifar10(directory: str | Path) -> dict[str, ImageSet]:
    """Reads CIFAR-10 into memory, 184 MB.

    Args:
        directory: Holds data_batch_1.bin to data_batch_5.bin and test_batch.bin, itself or in
            the folder cifar-10-batches-bin that the archive unpacks to.

    Returns:
        "train" (50,000) and "test" (10,000), with images `[N, 32, 32, 3]` uint8 and labels `[N]`
        int32.

    Raises:
        UserError: A file is missing, of another size, or holds an impossible label.
    """
    directory = Path(directory)
    if (directory / FOLDER).is_dir():
        directory = directory / FOLDER
    return {split: _open_split(directory, names) for split, names in FILES.items()}


def _open_split(directory: Path, names: tuple[str, ...]) -> ImageSet:
    images = np.empty((len(names) * RECORDS, *IMAGE_SHAPE), np.uint8)
    labels = np.empty(len(images), np.int32)
    for i, name in enumerate(names):
        piece = slice(i * RECORDS, (i + 1) * RECORDS)
        images[piece], labels[piece] = _read_file(directory / name)
    return ImageSet(images, np.arange(len(images)), labels, CLASSES)


def _read_file(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Reads images `[RECORDS, 32, 32, 3]` and labels `[RECORDS]` of one file."""
    expected = RECORDS * RECORD_BYTES
    try:
        size = path.stat().st_size
        data = np.fromfile(path, np.uint8) if size == expected else None
    except FileNotFoundError:
        raise UserError(
            f"{path} does not exist: unpack cifar-10-binary.tar.gz and give its folder {FOLDER}"
        ) from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error})") from error
    if data is None or len(data) != expected:
        raise UserError(
            f"{path} has {size} bytes, but {RECORDS} records of {RECORD_BYTES} bytes make "
            f"{expected}: unpack the binary version of CIFAR-10 again"
        )
    records = data.reshape(RECORDS, RECORD_BYTES)
    labels = records[:, 0]
    if labels.max() >= len(CLASSES):
        record = int(labels.argmax())
        raise UserError(
            f"{path} has the label {labels[record]} in record {record}, but CIFAR-10 has labels "
            f"0 to {len(CLASSES) - 1}: unpack it again"
        )
    planes = records[:, 1:].reshape(RECORDS, 3, 32, 32)
    return planes.transpose(0, 2, 3, 1), labels
