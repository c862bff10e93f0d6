"""Prepare CelebA as an array of uint8 images for training.

    python -m experiments.prepare_celeba --source=img_align_celeba.zip --out=data/celeba96

The source is a folder of JPEGs or the official zip archive, with list_attr_celeba and
list_eval_partition (.txt or .csv) beside it where they are wanted. Run it again after an
interruption: it goes on from where it stopped.
"""

from __future__ import annotations

import sys
import time

from absl import app, flags

from vae_jax.data import celeba
from vae_jax.data.store import open_store
from vae_jax.types import UserError

FLAGS = flags.FLAGS
flags.DEFINE_string("source", None, "folder of JPEGs, or zip archive", required=True)
flags.DEFINE_string("out", None, "directory of the store to write", required=True)
flags.DEFINE_integer("size", 96, "height and width of the images in pixels")
flags.DEFINE_enum("crop", "auto", ["auto", "square"], "CelebA's box, or the centred square")
flags.DEFINE_enum("partition", "auto", celeba.PARTITIONS, "which images are for testing")
flags.DEFINE_integer("train_count", 170_000, "training images of the reference partition")
flags.DEFINE_integer("test_count", 10_000, "test images of the reference partition")
flags.DEFINE_enum("on_bad_file", "stop", ["stop", "skip"], "what to do about unreadable files")
flags.DEFINE_integer("max_bad", 100, "the most files to skip")
flags.DEFINE_integer("workers", None, "number of processes (default: one a core)")
flags.DEFINE_bool("verify", False, "compare the SHA-256 of everything afterwards")


def main(argv: list[str]) -> None:
    """Prepare, and print a summary."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]}")
    began = time.monotonic()
    try:
        store = celeba.prepare(
            FLAGS.source,
            FLAGS.out,
            FLAGS.size,
            crop=FLAGS.crop,
            partition=FLAGS.partition,
            train_count=FLAGS.train_count,
            test_count=FLAGS.test_count,
            on_bad_file=FLAGS.on_bad_file,
            max_bad=FLAGS.max_bad,
            workers=FLAGS.workers,
        )
        seconds = time.monotonic() - began
        if FLAGS.verify:
            open_store(FLAGS.out, verify=True)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    source = store.manifest["source"]
    count = len(store.images)
    print(f"{store.directory}: {count} images of {FLAGS.size}x{FLAGS.size} pixels")
    print(f"splits: {store.split_sizes} ({source['partition']})")
    print(f"attributes: {len(store.label_names) or 'none'}")
    print(f"time: {seconds:.1f} s, {count / seconds:.0f} images/s")
    print(f"skipped: {len(source['skipped'])}")
    for name, reason in source["skipped"]:
        print(f"  {name} {reason}")


if __name__ == "__main__":
    app.run(main)
