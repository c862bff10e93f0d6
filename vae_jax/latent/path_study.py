"""What changes along a path: measured steps of interpolations and of moved components."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.latent import paths
from vae_jax.progress import track
from vae_jax.types import UserError

Decode = Callable[[np.ndarray], np.ndarray]

KINDS = {"linear": paths.linear, "spherical": paths.spherical}


class Smoothness(NamedTuple):
    """How evenly images change along a path; scalars.

    Attributes:
        mean_step: mean root-mean-square distance of neighbouring images, on the scale [0, 1].
        max_step: the largest one; much larger than the mean where the path jumps.
        path_length: sum of the steps over the distance of the ends; 1 for a cross-fade, infinite
            for equal ends.
        second_difference: root-mean-square second over first difference; 0 for an even cross-fade,
            about sqrt(3) for unrelated images, 2 for a path that jumps to and fro.
    """

    mean_step: jax.Array
    max_step: jax.Array
    path_length: jax.Array
    second_difference: jax.Array


@jax.jit
def smoothness(images: jax.Array) -> Smoothness:
    """Measure how smoothly decoded images change along one path (`jax.vmap` for many).

    Args:
        images: `[T, H, W, C]` float in [0, 1], T at least 3.

    Returns:
        `Smoothness`; a path of equal images has zero steps and a NaN for its two ratios.

    Raises:
        UserError: fewer than 3 images.
    """
    if len(images) < 3:
        raise UserError(f"Smoothness needs a path of at least 3 images, but got {len(images)}")
    flat = images.reshape(len(images), -1)
    first = jnp.diff(flat, axis=0)
    steps = jnp.sqrt(jnp.mean(jnp.square(first), axis=1))
    ends = jnp.sqrt(jnp.mean(jnp.square(flat[-1] - flat[0])))
    second = jnp.mean(jnp.square(jnp.diff(first, axis=0)))
    ratio = jnp.sqrt(second / jnp.mean(jnp.square(first)))
    return Smoothness(jnp.mean(steps), jnp.max(steps), jnp.sum(steps) / ends, ratio)


class Interpolation(NamedTuple):
    """Images between pairs of images.

    Attributes:
        images: by kind of path, `[P, T, H, W, C]` in [0, 1]; `cross-fade` mixes the decoded ends
            pixel by pixel.
        figures: by kind, means over pairs of `Smoothness`, `jump`, the largest step over the
            mean one, and `least_radius`, the smallest |z| on the way over the mean |z| of the ends.
    """

    images: dict[str, np.ndarray]
    figures: dict[str, dict[str, float]]


def interpolate(decode: Decode, starts: np.ndarray, ends: np.ndarray, steps: int) -> Interpolation:
    """Decode linear and spherical paths and measure how evenly images change.

    Args:
        decode: `[N, Z]` to images `[N, H, W, C]` in [0, 1].
        starts: `[P, Z]`.
        ends: `[P, Z]`.
        steps: T, at least 3.

    Returns:
        Images and figures, of the decoded paths and of the cross-fade of their ends.
    """
    images, radii = {}, {}
    ends_radius = (np.linalg.norm(starts, axis=1) + np.linalg.norm(ends, axis=1)) / 2
    for kind in track(KINDS, len(KINDS), "Interpolating", "kinds of path"):
        pairs = zip(jnp.asarray(starts), jnp.asarray(ends), strict=True)
        z = np.stack([np.asarray(KINDS[kind](*pair, steps)) for pair in pairs])  # [P, T, Z]
        decoded = decode(z.reshape(-1, z.shape[-1]))
        images[kind] = decoded.reshape(*z.shape[:2], *decoded.shape[1:])
        radii[kind] = np.linalg.norm(z, axis=-1).min(axis=1) / np.maximum(ends_radius, 1e-12)
    t = np.linspace(0, 1, steps, dtype=np.float32).reshape(1, -1, 1, 1, 1)
    first, last = images["linear"][:, :1], images["linear"][:, -1:]
    images["cross-fade"] = (1 - t) * first + t * last
    figures = {}
    for kind, shown in images.items():
        measured = jax.vmap(smoothness)(jnp.asarray(shown))._asdict()
        values = {name: np.asarray(value, np.float64) for name, value in measured.items()}
        values["jump"] = values["max_step"] / np.maximum(values["mean_step"], 1e-12)
        if kind in radii:
            values["least_radius"] = radii[kind]
        figures[kind] = {name: float(np.nanmean(value)) for name, value in values.items()}
    return Interpolation(images, figures)


def change_by_block(
    decode: Decode, z: np.ndarray, sizes: Sequence[int], amount: float, key: jax.Array
) -> dict[int, float]:
    """How much an image changes when some components of its code move together.

    Args:
        decode: `[N, Z]` to images `[N, H, W, C]` in [0, 1].
        z: `[N, Z]` codes.
        sizes: numbers of components, at most Z; a random block of neighbours for each code.
        amount: added to every component of the block.
        key: typed random key of the blocks' places.

    Returns:
        By size, the mean over images of the root-mean-square change of pixels in [0, 1].
    """
    still, z_dim = decode(z), z.shape[1]
    changes = {}
    for number, size in enumerate(track(list(sizes), len(sizes), "Moving blocks", "sizes")):
        place = jax.random.fold_in(key, number)
        first = np.asarray(jax.random.randint(place, (len(z), 1), 0, z_dim - size + 1, jnp.int32))
        inside = (np.arange(z_dim)[None] >= first) & (np.arange(z_dim)[None] < first + size)
        moved = decode((z + amount * inside).astype(np.float32))
        errors = np.mean((moved - still) ** 2, axis=(1, 2, 3), dtype=np.float64)
        changes[int(size)] = float(np.sqrt(errors).mean())
    return changes


def label_table(
    labels: np.ndarray | None, names: Sequence[str]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels as a table of 0 and 1 with constant columns left out.

    Args:
        labels: `[N]` classes, `[N, A]` attributes, or None.
        names: of classes or attributes.

    Returns:
        `[N, A']` and the names of its columns; no column where there are no labels.
    """
    if labels is None:
        return np.zeros((0, 0)), ()
    table = np.eye(len(names))[labels] if labels.ndim == 1 else labels
    varied = np.flatnonzero((table.min(axis=0) == 0) & (table.max(axis=0) == 1))
    return table[:, varied], tuple(names[i] for i in varied.tolist())


def separation(z: np.ndarray, labels: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Share of codes on the right side of the plane halfway along each attribute's vector.

    Args:
        z: `[N, Z]`.
        labels: `[N, A]`, 0 or 1.
        vectors: `[A, Z]` of `paths.attribute_vectors`.

    Returns:
        `[A]` in [0, 1], the mean of the shares with and without the attribute; 0.5 is chance.
    """
    along = z.astype(np.float64) @ vectors.T.astype(np.float64)
    has = labels.astype(bool)
    shares = []
    for values, mask in zip(along.T, has.T, strict=True):
        middle = (values[mask].mean() + values[~mask].mean()) / 2
        shares.append(((values[mask] > middle).mean() + (values[~mask] <= middle).mean()) / 2)
    return np.array(shares)
