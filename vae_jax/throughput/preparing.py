"""Our side of the comparison of preparing images. `python -m` starts it."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from vae_jax.data.faces import files as faces
from vae_jax.data.formats import celeba
from vae_jax.throughput.side import print_result


def main() -> None:
    """`FOLDER time STARTED SIZE`: prepare the folder's JPEGs; counts workers' start and writing."""
    folder, _, _, size = sys.argv[1:5]
    with tempfile.TemporaryDirectory(dir=folder) as out:
        began = time.monotonic()
        store = celeba.prepare(Path(folder) / faces.IMAGE_FOLDER, Path(out) / "store", int(size))
        seconds = time.monotonic() - began
        print_result({"images_per_second": len(store.images) / seconds})


if __name__ == "__main__":
    main()
