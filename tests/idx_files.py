"""Files in the IDX format of MNIST."""

import gzip
import struct

import numpy as np

from vae_jax.data.formats.idx import TYPE_CODES


def write_idx(path, array):
    """Writes an array, gzipped when the name ends in .gz."""
    codes = {np.dtype(name): code for code, name in TYPE_CODES.items()}
    big_endian = array.dtype.newbyteorder(">")
    data = struct.pack(f">2xBB{array.ndim}I", codes[big_endian], array.ndim, *array.shape)
    data += array.astype(big_endian).tobytes()
    path.write_bytes(gzip.compress(data) if path.name.endswith(".gz") else data)
