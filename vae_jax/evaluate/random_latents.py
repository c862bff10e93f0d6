"""What a decoder makes of random latent points: the reference test and fairer ones, in numbers.

The reference draws components uniform in (0, b), which is one orthant at a radius of about
`b sqrt(Z / 3)`; encoded images live elsewhere. The other rows ask the same of the whole cube, of
the prior, of spheres, and of densities fitted to the aggregate posterior.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.evaluate.feature_spaces import small_pixels
from vae_jax.metrics import densities, mixture, mixture_fit, posterior
from vae_jax.metrics.feature_distances import frechet_distance
from vae_jax.metrics.sliced_wasserstein import sliced_wasserstein, sliced_wasserstein_floor
from vae_jax.run import Subject, decode, encode, encode_subject

ORTHANT = (0.5, 2.5, 5.0, 8.0, 10.0, 15.0, 20.0, 30.0, 50.0)
CUBE = (0.5, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0)
SPHERE = (0.25, 0.5, 1.0, 1.5, 2.0, 4.0)  # radius in units of sqrt(Z)
MIXTURES = (1, 2, 5, 10)
# Enough to rank rows of a hundred images, in an eighth of the time of the paper's 128 and 512.
PATCHES, DIRECTIONS = 64, 128


class Row(NamedTuple):
    """Latent points of one kind.

    Attributes:
        name: what they are.
        kind: `codes`, `orthant`, `cube`, `normal`, `sphere` or `fitted`.
        z: `[N, Z]`.
    """

    name: str
    kind: str
    z: np.ndarray


def reference_rows(key: jax.Array, count: int, z_dim: int) -> list[Row]:
    """Points that do not depend on the model.

    Args:
        key: typed random key; a row's first points do not depend on `count`.
        count: points a row.
        z_dim: Z.

    Returns:
        Orthant, cube, prior and spheres.
    """
    keys = iter(jax.random.split(key, len(ORTHANT) + len(CUBE) + len(SPHERE) + 1))
    rows = [
        Row(f"(0, {b:g})", "orthant", densities.uniform_orthant(next(keys), count, z_dim, b))
        for b in ORTHANT
    ]
    rows += [
        Row(f"(-{b:g}, {b:g})", "cube", densities.uniform_cube(next(keys), count, z_dim, b))
        for b in CUBE
    ]
    rows.append(Row("N(0, I)", "normal", densities.normal(next(keys), count, z_dim)))
    for factor in SPHERE:
        radius = factor * z_dim**0.5
        z = densities.sphere(next(keys), count, z_dim, radius)
        rows.append(Row(f"|z| = {radius:.3g}", "sphere", z))
    return [row._replace(z=np.asarray(row.z)) for row in rows]


def fitted_rows(
    key: jax.Array, count: int, mean: np.ndarray, log_var: np.ndarray
) -> tuple[list[Row], dict[int, float]]:
    """Points of densities fitted to the aggregate posterior.

    Args:
        key: typed random key.
        count: points a row.
        mean: `[N, Z]` posterior means.
        log_var: `[N, Z]` posterior log variances.

    Returns:
        A full-covariance Gaussian and a Gaussian mixture, and the held-out log-likelihood in nats
        a point of each number of components tried.
    """
    draw_key, fit_key, gaussian_key, mixture_key = jax.random.split(key, 4)
    points = np.asarray(posterior.sample(jnp.asarray(mean), jnp.asarray(log_var), draw_key))
    gaussian = densities.gaussian_sample(densities.fit_gaussian(points), gaussian_key, count)
    sizes = [size for size in MIXTURES if 10 * size <= len(points)]
    choice = mixture_fit.choose_mixture(points, fit_key, sizes or (1,), restarts=1)
    drawn = mixture.mixture_sample(choice.mixture, mixture_key, count)
    rows = [
        Row("fitted Gaussian", "fitted", np.asarray(gaussian)),
        Row(f"fitted mixture, k = {choice.components}", "fitted", np.asarray(drawn)),
    ]
    return rows, choice.held_out


def all_rows(
    subject: Subject, fit_to: Subject, key: jax.Array, count: int
) -> tuple[list[Row], dict[int, float]]:
    """Codes of real images, the reference rows and the fitted ones.

    Args:
        subject: model and real images.
        fit_to: the same model with the images whose aggregate posterior is fitted.
        key: typed random key.
        count: points a row.

    Returns:
        Rows, and the held-out log-likelihoods of `fitted_rows`.
    """
    reference_key, fitted_key = jax.random.split(key)
    first = subject._replace(
        images=subject.images[:count],
        labels=None if subject.labels is None else subject.labels[:count],
    )
    codes = Row("encoded images", "codes", encode_subject(first).mean)
    seen = encode_subject(fit_to)
    fitted, held_out = fitted_rows(fitted_key, count, seen.mean, seen.log_var)
    reference = reference_rows(reference_key, count, subject.model.z_dim)
    return [codes, *reference, *fitted], held_out


def floor(subject: Subject, key: jax.Array, count: int) -> dict[str, float]:
    """`sliced_wasserstein` and `frechet_pixels` of `count` real images to as many others."""
    options = {"patches": PATCHES, "directions": DIRECTIONS}
    halves = subject.images[:count], subject.images[count : 2 * count]
    distance = sliced_wasserstein_floor(subject.images[: 2 * count], key, **options)
    pixels = (small_pixels(subject, half, None) for half in halves)
    return {"sliced_wasserstein": distance["mean"], "frechet_pixels": frechet_distance(*pixels)}


def measure(subject: Subject, row: Row, key: jax.Array) -> tuple[dict[str, Any], np.ndarray]:
    """Decode the points of a row, judge the images, and encode them again.

    Args:
        subject: model and real images; the last as many as there are points are compared with, so
            that the row of codes is not compared with its own originals.
        row: the points.
        key: typed random key of the sliced Wasserstein distance, the same for all rows.

    Returns:
        `name`, `kind`; `radius`, mean of |z|; `sliced_wasserstein` to the real images, mean over
        pyramid levels, which judges texture whatever the contrast; `frechet_pixels`, the Frechet
        distance of images averaged to 8 x 8 pixels, which judges colour, contrast and layout
        (biased upwards for few images: compare with `floor`); `re_encoded`,
        root-mean-square distance of E(D(z)) from z, and
        `re_encoded_relative`, in units of the points' own root-mean-square radius. And the images.
    """
    labels = None
    if subject.labels is not None:
        labels = np.resize(subject.labels, (len(row.z), subject.labels.shape[1]))
    images = decode(subject.model, subject.variables, row.z, labels)
    again, _ = encode(subject.model, subject.variables, images, labels)
    options = {"patches": PATCHES, "directions": DIRECTIONS}
    real = subject.images[-len(row.z) :]
    distance = sliced_wasserstein(real, images, key, **options)
    pixels = (small_pixels(subject, some, None) for some in (real, images))
    z = row.z.astype(np.float64)
    moved = np.sqrt(np.mean(np.sum((again - z) ** 2, axis=1)))
    size = np.sqrt(np.mean(np.sum(z**2, axis=1)))
    figures = {
        "name": row.name,
        "kind": row.kind,
        "radius": float(np.linalg.norm(z, axis=1).mean()),
        "sliced_wasserstein": distance["mean"],
        "frechet_pixels": frechet_distance(*pixels),
        "re_encoded": float(moved),
        "re_encoded_relative": float(moved / size),
    }
    return figures, images
