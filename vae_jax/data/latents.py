"""Reads the latent points of a file."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np

from vae_jax.memory import require_memory
from vae_jax.types import UserError


def read_latents(path: str | Path, z_dim: int) -> np.ndarray:
    """Reads latent points from a file of the user.

    Args:
        path: A .npy file with floats `[N, Z]`, or a .json file as the latent explorer saves it:
            `{"latents": [[...], ...]}`.
        z_dim: Z.

    Returns:
        `[N, Z]` float32.

    Raises:
        UserError: The file is not one of these, or has more points than the machine can hold.
    """
    if not Path(path).is_file():  # A pipe would be waited for.
        raise UserError(f"{path} is not a file; give a .npy or .json file")
    z = _json_points(Path(path)) if Path(path).suffix == ".json" else _npy_points(Path(path))
    if z.ndim != 2 or z.shape[1] != z_dim or not np.issubdtype(z.dtype, np.floating):
        raise UserError(
            f"{path} holds {z.dtype} of shape {z.shape}, but this model decodes "
            f"floats of shape [N, {z_dim}]"
        )
    require_memory(2 * 4 * z.size, f"{len(z):,} latent points", "give fewer")
    with np.errstate(over="ignore"):
        points = np.array(z, np.float32)
    if not np.isfinite(points).all():
        raise UserError(f"{path} holds points that are not finite")
    return points


def _npy_points(path: Path) -> np.ndarray:
    try:
        with warnings.catch_warnings(action="ignore"):  # of headers that Python 2 wrote
            # Compares the header with the size of the file before anything is allocated.
            return np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # NumPy raises many kinds for broken headers.
        raise UserError(f"{path} is not a readable .npy file ({error})") from None


def _json_points(path: Path) -> np.ndarray:
    size = path.stat().st_size
    require_memory(20 * size, f"{path} with {size:,} bytes", "give fewer points")
    try:
        return np.array(json.loads(path.read_bytes())["latents"], np.float64)
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError) as error:
        raise UserError(
            f"{path} holds no latent points ({type(error).__name__}: {str(error)[:80]}); "
            'it has to be {"latents": [[...], ...]}'
        ) from None
