"""Prepare CelebA as an array of uint8 images for training.

    python -m experiments.prepare_celeba --source=img_align_celeba.zip --out=data/celeba96

The source is a folder of JPEGs or the official zip archive, with list_attr_celeba and
list_eval_partition (.txt or .csv) beside it where they are wanted. Run it again after an
interruption: it goes on from where it stopped.
"""

from __future__ import annotations

import time

from absl import flags

from experiments import app, command_line

_SOURCE = flags.DEFINE_string("source", None, "Folder of JPEGs, or zip archive.", required=True)
_OUT = command_line.out_folder(None, "the store.", required=True)
_SIZE = command_line.count("size", 96, "Height and width of the images in pixels.", high=4096)
_CROP = flags.DEFINE_enum("crop", "auto", ["auto", "square"], "CelebA's box or the centred square.")
_PARTITION = flags.DEFINE_enum(
    "partition",
    "auto",
    ["auto", "official", "reference", "fraction"],
    "How training and test images are chosen.",
)
_TRAIN = command_line.count("train_count", 170_000, "Training images of the reference partition.")
_TEST = command_line.count("test_count", 10_000, "Test images of the reference partition.")
_ON_BAD_FILE = flags.DEFINE_enum(
    "on_bad_file", "stop", ["stop", "skip"], "What to do about unreadable files."
)
_MAX_BAD = command_line.count("max_bad", 100, "Largest number of files to skip.", low=0)
_WORKERS = flags.DEFINE_integer(
    "workers",
    None,
    "Number of processes; one per core by default.",
    lower_bound=1,
    upper_bound=1024,
)
_VERIFY = flags.DEFINE_bool("verify", False, "Compare the SHA-256 of everything afterwards.")


def main() -> None:
    """Prepares the images, and prints a summary."""
    from vae_jax.data.formats import celeba
    from vae_jax.data.store.reading import open_store

    began = time.monotonic()
    store = celeba.prepare(
        _SOURCE.value,
        _OUT.value,
        _SIZE.value,
        crop=_CROP.value,
        partition=_PARTITION.value,
        train_count=_TRAIN.value,
        test_count=_TEST.value,
        on_bad_file=_ON_BAD_FILE.value,
        max_bad=_MAX_BAD.value,
        workers=_WORKERS.value,
    )
    seconds = time.monotonic() - began
    if _VERIFY.value:
        open_store(_OUT.value, verify=True)
    source, count = store.manifest["source"], len(store.images)
    print(f"{store.directory}: {count} images of {_SIZE.value}x{_SIZE.value} pixels")
    print(f"splits: {store.split_sizes} ({source['partition']})")
    print(f"attributes: {len(store.label_names) or 'none'}")
    print(f"time: {seconds:.1f} s, {count / seconds:.0f} images/s")
    print(f"skipped: {len(source['skipped'])}")
    for name, reason in source["skipped"]:
        print(f"  {name} {reason}")
    asked = {"config": "configs/celeba.py", "config.data.path": _OUT.value}
    if _SIZE.value != 96:
        asked["config.data.image_shape"] = f"({_SIZE.value},{_SIZE.value},3)"
    command_line.tell([_OUT.value], "train", **asked, workdir="runs/celeba")


if __name__ == "__main__":
    app.run(main)
