"""Densities to draw latent points from: reference distributions, fitted Gaussians and mixtures.

Row i of every sampler depends on (key, i) alone, so that more points extend fewer. A density fitted
to the aggregate posterior after training gives better samples than the prior (Ghosh et al., "From
variational to deterministic autoencoders", ICLR 2020).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.progress import track
from vae_jax.streams import numbered_keys
from vae_jax.types import UserError

HIGHEST = jax.lax.Precision.HIGHEST
KMEANS_STEPS = 10
SIZES, POINTS_PER_COMPONENT = (1, 2, 5, 10), 10  # of mixtures to choose from
EM_STEPS = 200  # of expectation maximisation, at most
EM_TOLERANCE = 1e-3  # nats per point; a step that gains less is the last


def _rows(key: jax.Array, count: int, draw: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """Returns `[count, Z]`; row i is `draw` of the key folded with i."""
    return jax.vmap(draw)(numbered_keys(key, jnp.arange(count)))


@partial(jax.jit, static_argnames=("count", "z_dim", "low"))
def uniform(key: jax.Array, count: int, z_dim: int, b: float, low: float) -> jax.Array:
    """Draws components uniform in (low b, b).

    Both `low` = 0, which is one orthant, and `low` = -1, which is the whole cube, give points at a
    radius of about `b sqrt(Z / 3)`.

    Args:
        key: Typed random key.
        count: Number of points.
        z_dim: Z.
        b: Upper end.
        low: Lower end in units of b.

    Returns:
        `[count, Z]`.
    """
    return _rows(key, count, lambda k: b * jax.random.uniform(k, (z_dim,), jnp.float32, low))


def normal(key: jax.Array, count: int, z_dim: int) -> jax.Array:
    """Draws points of the prior N(0, I).

    Args:
        key: Typed random key.
        count: Number of points.
        z_dim: Z.

    Returns:
        `[count, Z]`.
    """
    return _rows(key, count, lambda k: jax.random.normal(k, (z_dim,), jnp.float32))


@partial(jax.jit, static_argnames=("count", "z_dim"))
def sphere(key: jax.Array, count: int, z_dim: int, radius: float) -> jax.Array:
    """Draws points uniform on a sphere around the origin.

    Args:
        key: Typed random key.
        count: Number of points.
        z_dim: Z.
        radius: Radius of the sphere.

    Returns:
        `[count, Z]`.
    """

    def draw(index: jax.Array) -> jax.Array:
        direction = jax.random.normal(jax.random.fold_in(key, index), (z_dim,), jnp.float32)
        return radius * direction / jnp.linalg.norm(direction)

    # One row at a time: sums over a whole batch would round row i differently per count.
    return jax.lax.map(draw, jnp.arange(count))


class Gaussian(NamedTuple):
    """A Gaussian with full covariance `cholesky @ cholesky.T`.

    Attributes:
        mean: `[Z]`.
        cholesky: `[Z, Z]`, lower triangular.
    """

    mean: jax.Array
    cholesky: jax.Array


def _check_points(points: np.ndarray) -> np.ndarray:
    """Returns latent points `[N, Z]` on the host; raises a `UserError` if no density fits them."""
    points = np.asarray(points)
    if points.ndim != 2 or len(points) < 2:
        raise UserError(f"A density needs at least two points [N, Z], but got {points.shape}")
    if not np.isfinite(points).all():
        raise UserError("Latent points hold NaN or infinite values: check the encoder")
    return points


def _host_moments(points: np.ndarray, regularisation: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean `[Z]` and the covariance's Cholesky factor `[Z, Z]`, in float64."""
    exact = points.astype(np.float64)
    mean = exact.mean(axis=0)
    centred = exact - mean[None, :]
    covariance = centred.T @ centred / len(exact)
    average = np.trace(covariance) / len(covariance)
    if average == 0:
        raise UserError("All latent points are equal: the encoder has collapsed")
    covariance += regularisation * average * np.eye(len(covariance))
    return mean, np.linalg.cholesky(covariance)


def fit_gaussian(points: np.ndarray, regularisation: float = 1e-6) -> Gaussian:
    """Fits the Gaussian of highest likelihood.

    Fit it to draws of the aggregate posterior (`posterior.sample`), not to posterior means: those
    lack the posterior's own variance.

    Args:
        points: `[N, Z]`.
        regularisation: Added to each variance, as a share of the average variance, so that the
            covariance can be inverted with dead dimensions or few points.

    Returns:
        `Gaussian` in the dtype of `points`.

    Raises:
        UserError: Fewer than two points, points that are all equal, or NaN or infinite values.
    """
    points = _check_points(points)
    moments = _host_moments(points, regularisation)
    return Gaussian(*(jnp.asarray(part.astype(points.dtype)) for part in moments))


@jax.jit
def gaussian_log_prob(gaussian: Gaussian, points: jax.Array) -> jax.Array:
    """Returns the log density of each point.

    Args:
        gaussian: The density.
        points: `[N, Z]`.

    Returns:
        `[N]` in nats.
    """
    centred = points - gaussian.mean[None, :]
    white = jax.scipy.linalg.solve_triangular(gaussian.cholesky, centred.T, lower=True)
    log_scale = jnp.sum(jnp.log(jnp.diagonal(gaussian.cholesky)))
    constant = 0.5 * points.shape[1] * jnp.log(2 * jnp.pi)
    return -0.5 * jnp.sum(jnp.square(white), axis=0) - log_scale - constant


def gaussian_draw(gaussian: Gaussian, key: jax.Array) -> jax.Array:
    """Draws one point `[Z]`."""
    mean, cholesky = gaussian
    noise = jax.random.normal(key, mean.shape, mean.dtype)
    return mean + jnp.dot(cholesky, noise, precision=HIGHEST)


class Mixture(NamedTuple):
    """A mixture of K Gaussians with full covariances.

    Attributes:
        log_weights: `[K]`, logarithms of the shares.
        means: `[K, Z]`.
        choleskys: `[K, Z, Z]`, lower triangular.
    """

    log_weights: jax.Array
    means: jax.Array
    choleskys: jax.Array


def _joint_log_prob(mixture: Mixture, points: jax.Array) -> jax.Array:
    """Returns log of weight times density, `[K, N]`."""

    def component(parts: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        log_weight, mean, cholesky = parts
        return log_weight + gaussian_log_prob(Gaussian(mean, cholesky), points)

    return jax.lax.map(component, tuple(mixture))  # One at a time: memory stays at [N, Z].


@jax.jit
def mixture_log_prob(mixture: Mixture, points: jax.Array) -> jax.Array:
    """Returns the log density of each point.

    Args:
        mixture: The density.
        points: `[N, Z]`.

    Returns:
        `[N]` in nats.
    """
    return jax.scipy.special.logsumexp(_joint_log_prob(mixture, points), axis=0)


def mixture_draw(mixture: Mixture, key: jax.Array) -> jax.Array:
    """Draws one point `[Z]`: a component by its weight, then a point of the component."""
    component_key, noise_key = jax.random.split(key)
    chosen = jax.random.categorical(component_key, mixture.log_weights)
    return gaussian_draw(Gaussian(mixture.means[chosen], mixture.choleskys[chosen]), noise_key)


@partial(jax.jit, static_argnames="count")
def sample(density: Gaussian | Mixture, key: jax.Array, count: int) -> jax.Array:
    """Draws points of a fitted density.

    Args:
        density: The density.
        key: Typed random key.
        count: Number of points.

    Returns:
        `[count, Z]`.
    """
    # One row at a time, for the same reason as in `sphere`.
    return jax.lax.map(lambda i: _draw(density, jax.random.fold_in(key, i)), jnp.arange(count))


def _draw(density: Gaussian | Mixture, key: jax.Array) -> jax.Array:
    if isinstance(density, Mixture):
        return mixture_draw(density, key)
    return gaussian_draw(density, key)


# Fitting a mixture by expectation maximisation. The points are whitened first, so that float32
# suffices and the regularisation means the same in every latent space; the mixture that is returned
# is one of the original coordinates.


class MixtureChoice(NamedTuple):
    """The mixture chosen by held-out likelihood.

    Attributes:
        mixture: Fitted to the points that were not held out.
        components: Its number of components.
        held_out: Mean held-out log-likelihood in nats per point, for each number tried.
    """

    mixture: Mixture
    components: int
    held_out: dict[int, float]


def _update(points: jax.Array, shares: jax.Array, regularisation: float) -> Mixture:
    """Returns weights, means and covariances from shares `[K, N]`: the M step."""
    counts = jnp.sum(shares, axis=1) + 10 * jnp.finfo(points.dtype).eps
    means = jnp.dot(shares, points, precision=HIGHEST) / counts[:, None]
    diagonal = regularisation * jnp.eye(points.shape[1], dtype=points.dtype)

    def cholesky(parts: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        share, mean, count = parts
        scaled = (points - mean[None, :]) * jnp.sqrt(share / count)[:, None]
        return jnp.linalg.cholesky(jnp.dot(scaled.T, scaled, precision=HIGHEST) + diagonal)

    choleskys = jax.lax.map(cholesky, (shares, means, counts))
    return Mixture(jnp.log(counts / jnp.sum(counts)), means, choleskys)


def _group(points: jax.Array, key: jax.Array, components: int) -> jax.Array:
    """Groups by k-means with k-means++ seeding (Arthur, Vassilvitskii 2007): `[K, N]`, 0 or 1."""

    def squares(centres: jax.Array) -> jax.Array:
        return jax.lax.map(lambda c: jnp.sum(jnp.square(points - c[None, :]), axis=1), centres)

    def add(i: jax.Array, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        centres, nearest = state
        centre = points[jax.random.categorical(jax.random.fold_in(key, i), jnp.log(nearest))]
        return centres.at[i].set(centre), jnp.minimum(nearest, squares(centre[None])[0])

    def memberships(centres: jax.Array) -> jax.Array:
        nearest = jnp.argmin(squares(centres), axis=0)
        return jax.nn.one_hot(nearest, components, axis=0, dtype=points.dtype)

    def move(_: int, centres: jax.Array) -> jax.Array:
        groups = memberships(centres)
        sizes = jnp.sum(groups, axis=1)[:, None]
        moved = jnp.dot(groups, points, precision=HIGHEST) / jnp.maximum(sizes, 1)
        return jnp.where(sizes > 0, moved, centres)

    centres = jnp.zeros((components, points.shape[1]), points.dtype)
    # All are equally far at first, so that the first centre is any point.
    far = jnp.full(len(points), jnp.finfo(points.dtype).max, points.dtype)
    centres, _ = jax.lax.fori_loop(0, components, add, (centres, far))
    return memberships(jax.lax.fori_loop(0, KMEANS_STEPS, move, centres))


def _start(white: jax.Array, groups: jax.Array, regularisation: float) -> Mixture:
    """Returns weights and means of the groups, all with one pooled covariance.

    With a covariance for each group, small groups would overfit before the first step.
    """
    start = _update(white, groups, regularisation)
    rest = white - jnp.dot(groups.T, start.means, precision=HIGHEST)
    pooled = jnp.dot(rest.T, rest, precision=HIGHEST) / len(white)
    cholesky = jnp.linalg.cholesky(pooled + regularisation * jnp.eye(len(pooled)))
    return start._replace(choleskys=jnp.broadcast_to(cholesky[None], start.choleskys.shape))


@partial(jax.jit, static_argnames="components")
def _maximise(
    scaled: jax.Array,
    points: jax.Array,
    key: jax.Array,
    components: int,
    iterations: int,
    tolerance: float,
    regularisation: float,
) -> tuple[Mixture, jax.Array]:
    """Fits a mixture to whitened `points`; also returns the mean log-likelihood.

    The groups to start from are found in `scaled`, the points in their original proportions:
    whitening hides clusters, because it shrinks the directions that separate them.
    """

    def keep_going(state: tuple[Mixture, jax.Array, jax.Array, jax.Array]) -> jax.Array:
        _, before, now, step = state
        return (step < iterations) & (now - before > tolerance)

    def iterate(
        state: tuple[Mixture, jax.Array, jax.Array, jax.Array],
    ) -> tuple[Mixture, jax.Array, jax.Array, jax.Array]:
        mixture, _, before, step = state
        joint = _joint_log_prob(mixture, points)
        total = jax.scipy.special.logsumexp(joint, axis=0)
        shares = jnp.exp(joint - total[None, :])
        return _update(points, shares, regularisation), before, jnp.mean(total), step + 1

    low = jnp.asarray(-jnp.inf, points.dtype)
    lowest = jnp.asarray(jnp.finfo(points.dtype).min, points.dtype)
    start = _start(points, _group(scaled, key, components), regularisation)
    mixture, _, _, _ = jax.lax.while_loop(keep_going, iterate, (start, low, lowest, jnp.int32(0)))
    return mixture, jnp.mean(mixture_log_prob(mixture, points))


def fit_mixture(
    points: np.ndarray,
    components: int,
    key: jax.Array,
    *,
    regularisation: float = 1e-4,
) -> Mixture:
    """Fits a Gaussian mixture by expectation maximisation.

    Args:
        points: `[N, Z]`, as a rule draws of the aggregate posterior (`posterior.sample`).
        components: K.
        key: Typed random key of the first groups; the same key gives the same mixture.
        regularisation: Added to each variance in whitened coordinates, where the points have
            variance 1 in every direction.

    Returns:
        `Mixture` in the dtype of `points`.

    Raises:
        UserError: Fewer points than components, NaN values, or a fit that broke down.
    """
    points = _check_points(points)
    if not 1 <= components <= len(points):
        raise UserError(
            f"A mixture needs 1 to {len(points)} components (as many as points), but got "
            f"{components}"
        )
    mean, cholesky = _host_moments(points, 1e-6)
    white = np.linalg.solve(cholesky, (points - mean[None, :]).T).T.astype(points.dtype)
    scaled = (points - mean[None, :]) * math.sqrt(len(cholesky) / np.sum(cholesky**2))
    both = jnp.asarray(scaled.astype(points.dtype)), jnp.asarray(white)
    fitted, score = _maximise(
        *both, jax.random.fold_in(key, 0), components, EM_STEPS, EM_TOLERANCE, regularisation
    )
    if not np.isfinite(score):
        raise UserError(
            f"No mixture of {components} components could be fitted to {len(points)} points: use "
            "fewer components or a larger regularisation"
        )
    means = np.asarray(fitted.means, np.float64) @ cholesky.T + mean[None, :]
    choleskys = cholesky[None] @ np.asarray(fitted.choleskys, np.float64)
    parts = (np.asarray(fitted.log_weights), means, choleskys)
    return Mixture(*(jnp.asarray(part.astype(points.dtype)) for part in parts))


def choose_mixture(
    points: np.ndarray,
    key: jax.Array,
    components: Sequence[int] | None = None,
    *,
    held_out: float | np.ndarray = 0.2,
) -> MixtureChoice:
    """Fits mixtures of several sizes and chooses one by held-out log-likelihood.

    Chooses the smallest mixture whose held-out log-likelihood is within one standard error of the
    best (of the difference, point by point): larger ones gain nothing that this many points could
    show.

    Args:
        points: `[N, Z]`.
        key: Typed random key for the split and the fits.
        components: Numbers of components to try; by default those of `SIZES` that have
            `POINTS_PER_COMPONENT` points each.
        held_out: Share of the points that are held out; or other points `[M, Z]`.

    Raises:
        UserError: Nothing to try, a share outside (0, 1), or as for `fit_mixture`.
    """
    points, judging = _check_points(points), held_out
    if components is None:
        components = [k for k in SIZES if POINTS_PER_COMPONENT * k <= len(points)] or [1]
    split_key, fit_key = jax.random.split(key)
    if isinstance(judging, float | int):
        kept = len(points) - round(judging * len(points))
        order = np.asarray(jax.random.permutation(split_key, len(points)))
        points, judging = points[order[:kept]], points[order[kept:]]
    if not components or not len(points) or not len(judging):
        raise UserError(
            f"Choosing a mixture needs a list of sizes (got {tuple(components)}), points to fit to "
            f"and held-out points to judge by (got {len(points)} and {len(judging)})"
        )
    fitted, log_probs = {}, {}
    for size in track(components, len(components), "Fitting mixtures", "sizes"):
        fitted[size] = fit_mixture(points, size, fit_key)
        log_probs[size] = np.asarray(
            mixture_log_prob(fitted[size], jnp.asarray(judging)), np.float64
        )
    scores = {size: float(each.mean()) for size, each in log_probs.items()}
    best = max(scores, key=scores.__getitem__)
    deficits = {size: log_probs[best] - each for size, each in log_probs.items()}
    allowed = {size: each.std() / math.sqrt(len(each)) for size, each in deficits.items()}
    chosen = min(size for size in scores if deficits[size].mean() <= allowed[size])
    return MixtureChoice(fitted[chosen], chosen, scores)
