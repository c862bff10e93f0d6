"""Two sets of feature vectors compared: precision, recall, density, coverage, Frechet distance.

The caller chooses the feature space (pixels, latent codes, a classifier's penultimate layer).
Values from different spaces cannot be compared, and models can be compared only in a space that is
the same for all of them. Everything is computed in float64 on the host, where differences of large
squares cost no accuracy.
"""

from __future__ import annotations

from collections.abc import Iterator

import jax
import numpy as np

from vae_jax.types import UserError

CHUNK = 1024  # rows of a matrix of distances that are held at a time
SMALL = 8  # pixels along each side
FEWEST = 8  # images in a set, below which neighbours and covariances say little
PRECISION_NEIGHBOURS, DENSITY_NEIGHBOURS = 3, 5  # k, as the papers have it


def pixels(images: np.ndarray) -> np.ndarray:
    """Returns images `[N, H, W, C]`, uint8 or in [0, 1], as `[N, H W C]` in [0, 1].

    Neighbours in this space are alike in layout and brightness; detail hardly counts.
    """
    scale = 255.0 if images.dtype == np.uint8 else 1.0
    return images.reshape(len(images), -1) / np.float32(scale)


def small_pixels(images: np.ndarray) -> np.ndarray:
    """Returns images averaged down to 8 x 8 pixels, `[N, 64 C]` in [0, 1].

    Only colour and layout are left.

    Args:
        images: `[N, H, W, C]`, uint8 or float in [0, 1].
    """
    rows, columns = (
        np.asarray(jax.image.resize(np.eye(size, dtype=np.float32), (SMALL, size), "linear", True))
        for size in images.shape[1:3]
    )
    flat = pixels(images).reshape(images.shape)
    small = np.einsum("ph,nhwc->npwc", rows, flat, optimize=True)
    return np.einsum("qw,npwc->npqc", columns, small, optimize=True).reshape(len(images), -1)


def compare_features(real: np.ndarray, fake: np.ndarray) -> dict[str, float]:
    """Returns every figure of this module for two sets of equal size.

    Args:
        real: `[N, F]` features of real images.
        fake: `[N, F]` features of generated images.

    Returns:
        `precision`, `recall` (k = 3), `density`, `coverage` (k = 5) and `frechet_distance`.
    """
    shares = precision_recall(real, fake) | density_coverage(real, fake)
    return shares | {"frechet_distance": frechet_distance(real, fake)}


def _as_features(real: np.ndarray, fake: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns both sets in float64, shifted by one vector, which keeps distances exact."""
    real, fake = np.asarray(real, np.float64), np.asarray(fake, np.float64)
    if real.ndim != 2 or fake.ndim != 2 or real.shape[1] != fake.shape[1]:
        raise ValueError(
            f"Features must be [N, F] and [M, F], but got {real.shape} and {fake.shape}."
        )
    if not (np.isfinite(real).all() and np.isfinite(fake).all()):
        raise UserError("Features hold NaN or infinite values: check the model that made them")
    centre = real.mean(axis=0, keepdims=True)
    return real - centre, fake - centre


def distance_chunks(rows: np.ndarray, columns: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields squared Euclidean distances `[CHUNK, M]` of some of `rows` to all of `columns`."""
    column_squares = np.sum(columns**2, axis=1)[None, :]
    for start in range(0, len(rows), CHUNK):
        part = rows[start : start + CHUNK]
        squares = np.sum(part**2, axis=1)[:, None] + column_squares - 2 * part @ columns.T
        yield slice(start, start + len(part)), np.maximum(squares, 0)


def neighbour_radii(features: np.ndarray, neighbours: int) -> np.ndarray:
    """Returns the squared distance of each point to its k-th nearest other point.

    Args:
        features: `[N, F]`.
        neighbours: k, at most N - 1.

    Returns:
        `[N]` float64.

    Raises:
        UserError: k is not in 1 .. N - 1.
    """
    if not 0 < neighbours < len(features):
        raise UserError(
            f"{neighbours} neighbours need more than {neighbours} images and at least 1, "
            f"but there are {len(features)} images"
        )
    radii = np.empty(len(features))
    for rows, squares in distance_chunks(features, features):
        # The point itself comes first.
        squares[np.arange(len(squares)), np.arange(rows.start, rows.stop)] = -1.0
        radii[rows] = np.partition(squares, neighbours, axis=1)[:, neighbours]
    return radii


def precision_recall(real: np.ndarray, fake: np.ndarray) -> dict[str, float]:
    """Returns the share of fakes inside the real manifold, and that of reals inside the fake one.

    A manifold is the union of balls around its points, each of which reaches to the point's k-th
    nearest neighbour, k = 3.

    Args:
        real: `[N, F]` features of real images.
        fake: `[M, F]` features of generated images, usually as many.

    Returns:
        `precision` (fidelity) and `recall` (diversity), in [0, 1].

    Raises:
        ValueError: Shapes that do not match.
        UserError: Too few images or non-finite features.

    References:
        Kynkaanniemi et al., "Improved precision and recall metric for assessing generative
        models", NeurIPS 2019.
    """
    real, fake = _as_features(real, fake)
    real_radii = neighbour_radii(real, PRECISION_NEIGHBOURS)[:, None]
    fake_radii = neighbour_radii(fake, PRECISION_NEIGHBOURS)[None, :]
    fake_inside = np.zeros(len(fake), bool)
    real_inside = np.zeros(len(real), bool)
    for rows, squares in distance_chunks(real, fake):
        fake_inside |= np.any(squares <= real_radii[rows], axis=0)
        real_inside[rows] = np.any(squares <= fake_radii, axis=1)
    return {"precision": float(fake_inside.mean()), "recall": float(real_inside.mean())}


def density_coverage(real: np.ndarray, fake: np.ndarray) -> dict[str, float]:
    """Returns the mean number of real balls around a fake over k, and the share of balls hit.

    The ball of a real point reaches to its k-th nearest neighbour, k = 5. Only real points have
    balls, so that outlying fakes cannot enlarge the manifold.

    Args:
        real: `[N, F]` features of real images.
        fake: `[M, F]` features of generated images.

    Returns:
        `density`, 1 in expectation for equal distributions and not bounded by 1, and `coverage`
        in [0, 1], in expectation `1 - 2**-k` for large equal samples of one distribution.

    Raises:
        ValueError: Shapes that do not match.
        UserError: Too few images or non-finite features.

    References:
        Naeem et al., "Reliable fidelity and diversity metrics for generative models", ICML 2020.
    """
    real, fake = _as_features(real, fake)
    radii = neighbour_radii(real, DENSITY_NEIGHBOURS)[:, None]
    hits, covered = 0, 0
    for rows, squares in distance_chunks(real, fake):
        inside = squares <= radii[rows]
        hits += int(inside.sum())
        covered += int(inside.any(axis=1).sum())
    return {"density": hits / (DENSITY_NEIGHBOURS * len(fake)), "coverage": covered / len(real)}


def frechet_distance(features_a: np.ndarray, features_b: np.ndarray) -> float:
    """Returns the squared Frechet (2-Wasserstein) distance of Gaussians fitted to two feature sets.

    `|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a^1/2 C_b C_a^1/2)^1/2)`. For any R with `R^T R = C` the
    trace of the last term is the sum of the singular values of `R_a R_b^T`; R is the triangle of
    the centred features, so that covariances are never formed and may be singular.

    Its name is FID (Heusel et al. 2017) only for the 2,048 pool3 features of the Inception network
    that defines FID; in any other space it is a Frechet distance in that space. It is biased
    upwards for few images: compare values at equal counts.

    Args:
        features_a: `[N, F]`.
        features_b: `[M, F]`.

    Returns:
        The squared distance, at least 0, with unbiased (N - 1) covariances as FID has them.

    Raises:
        ValueError: Shapes that do not match.
        UserError: Fewer than two images or non-finite features.

    References:
        Dowson, Landau, "The Frechet distance between multivariate normal distributions", 1982.

    >>> features = np.random.default_rng(0).normal(size=(1000, 2))
    >>> round(frechet_distance(features, features + [3.0, 4.0]), 6)
    25.0
    """
    features_a, features_b = _as_features(features_a, features_b)
    if min(len(features_a), len(features_b)) < 2:
        raise UserError("a Frechet distance needs at least two images in each set")
    (mean_a, root_a), (mean_b, root_b) = _moments(features_a), _moments(features_b)
    shared = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    offset = np.sum((mean_a - mean_b) ** 2)
    return float(max(offset + np.sum(root_a**2) + np.sum(root_b**2) - 2 * shared, 0))


def _moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean `[F]`, and R `[min(N, F), F]` with `R^T R` the unbiased covariance."""
    mean = features.mean(axis=0)
    triangle = np.linalg.qr(features - mean[None], mode="r")
    return mean, triangle / np.sqrt(len(features) - 1)
