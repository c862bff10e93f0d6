"""Paths between latent points, and how evenly images change along a path."""

from __future__ import annotations

import numpy as np

from vae_jax.types import UserError

OPPOSITE = 1e-6  # the precision of float32 directions: nearer to opposite, no circle is defined


def linear(starts: np.ndarray, ends: np.ndarray, steps: int) -> np.ndarray:
    """Returns straight lines between latent points; both ends are exact.

    Args:
        starts: `[..., Z]`.
        ends: `[..., Z]`.
        steps: T, at least 2.

    Returns:
        `[..., T, Z]` float64.

    Raises:
        ValueError: Unequal shapes.
        UserError: Fewer than 2 steps.
    """
    starts, ends, t = _ends(starts, ends, steps)
    path = (1 - t) * starts[..., None, :] + t * ends[..., None, :]
    path[..., -1, :] = ends
    return path


def spherical(starts: np.ndarray, ends: np.ndarray, steps: int) -> np.ndarray:
    """Returns great circles between two directions at a radius that changes evenly.

    For ends of equal norm this is slerp (White, "Sampling generative networks", 2016): the path
    stays at the radius where a Gaussian in many dimensions has its mass, which a straight line does
    not. Between opposite ends every great circle is as good as any other; the path then leads
    through the coordinate axis that is most nearly perpendicular to the start. If an end is the
    origin, the path is a straight line.

    Args:
        starts: `[..., Z]`.
        ends: `[..., Z]`.
        steps: T, at least 2.

    Returns:
        `[..., T, Z]` float64; both ends are exact.

    Raises:
        ValueError: Unequal shapes.
        UserError: Fewer than 2 steps.
    """
    starts, ends, t = _ends(starts, ends, steps)
    tiny = np.finfo(np.float64).tiny
    radii = [np.linalg.norm(end, axis=-1, keepdims=True) for end in (starts, ends)]
    first, second = (
        end / np.maximum(r, tiny) for end, r in zip((starts, ends), radii, strict=True)
    )
    cosine = np.sum(first * second, axis=-1, keepdims=True)
    rest = _perpendicular(second, first)
    sine = np.linalg.norm(rest, axis=-1, keepdims=True)
    axis = np.eye(starts.shape[-1])[np.abs(first).argmin(axis=-1)]
    across = np.where(sine < OPPOSITE, _perpendicular(axis, first), rest)
    across /= np.maximum(np.linalg.norm(across, axis=-1, keepdims=True), tiny)
    angle = t * np.arctan2(sine, cosine)[..., None, :]
    path = np.cos(angle) * first[..., None, :] + np.sin(angle) * across[..., None, :]
    path *= (1 - t) * radii[0][..., None, :] + t * radii[1][..., None, :]
    at_origin = np.minimum(*radii)[..., None, :] == 0
    path = np.where(at_origin, linear(starts, ends, steps), path)
    path[..., 0, :], path[..., -1, :] = starts, ends
    return path


def _ends(
    starts: np.ndarray, ends: np.ndarray, steps: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    starts, ends = np.asarray(starts, np.float64), np.asarray(ends, np.float64)
    if starts.shape != ends.shape:
        raise ValueError(
            f"Both ends must share a shape [..., Z], but got {starts.shape}, {ends.shape}."
        )
    if steps < 2:
        raise UserError(f"A path needs at least 2 steps, but got {steps}")
    return starts, ends, np.linspace(0.0, 1.0, steps)[:, None]


def _perpendicular(vectors: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Returns what is left of vectors without their part along unit vectors."""
    # Twice, since the rounding error of a difference that nearly vanishes is not perpendicular.
    for _ in range(2):
        vectors = vectors - np.sum(vectors * units, axis=-1, keepdims=True) * units
    return vectors


def moved_blocks(z: np.ndarray, values: np.ndarray, block: int) -> np.ndarray:
    """Returns one path per block of neighbouring components, along which these are moved.

    Args:
        z: `[Z]`, the point to start from.
        values: `[T]`, what is added to every component of the block.
        block: Components per block; the last block may be smaller.

    Returns:
        `[ceil(Z / block), T, Z]`.
    """
    blocks = np.arange(len(z))[None, :] // block == np.arange(-(-len(z) // block))[:, None]
    return z[None, None, :] + values[None, :, None] * blocks[:, None, :]


def smoothness(images: np.ndarray) -> dict[str, np.ndarray]:
    """Measures how evenly images change along paths.

    Args:
        images: `[P, T, H, W, C]` in [0, 1], T at least 3.

    Returns:
        `[P]` each: `mean_step`, the mean of the steps, which are root-mean-square differences of
        neighbouring images; `jump`, the largest step over the mean one; `path_length`, the sum of
        the steps over the distance of the ends, 1 for a cross-fade; `second_difference`, the
        root-mean-square second difference over the first: 0 for an even cross-fade, about sqrt(3)
        for unrelated images, 2 for a path that jumps to and fro. Ratios are NaN for equal images.

    Raises:
        UserError: Fewer than 3 images.
    """
    if images.shape[1] < 3:
        raise UserError(f"Smoothness needs a path of at least 3 images, but got {images.shape[1]}")
    flat = np.asarray(images, np.float64).reshape(*images.shape[:2], -1)
    first = np.diff(flat, axis=1)
    steps = np.sqrt(np.mean(first**2, axis=2))
    ends = np.sqrt(np.mean((flat[:, -1] - flat[:, 0]) ** 2, axis=1))
    second = np.sqrt(np.mean(np.diff(first, axis=1) ** 2, axis=(1, 2)))
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "mean_step": steps.mean(axis=1),
            "jump": steps.max(axis=1) / steps.mean(axis=1),
            "path_length": steps.sum(axis=1) / ends,
            "second_difference": second / np.sqrt(np.mean(first**2, axis=(1, 2))),
        }
