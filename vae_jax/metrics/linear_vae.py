"""What a linear VAE would reach: rate and distortion in closed form, without any training.

Let the decoder be W z + b, the encoder linear too, and the objective R + beta K with R the summed
squared error. Divided by beta this is the negative ELBO of probabilistic PCA with the noise
variance t = beta / 2, up to a constant. Its optimum has the leading eigenvectors u_i of the
covariance of the images as columns of W, scaled by sqrt(lambda_i - t), and leaves out every
eigenvalue below t. These columns are orthogonal, so that the exact posterior is diagonal and the
bound is tight: along u_i its mean has the variance 1 - t / lambda_i, and its own variance is
t / lambda_i. Summing over the active dimensions,

    rate        K = sum_{active} 1/2 log(lambda_i / t)           nats per image
    distortion  E = sum_{active} t + sum_{others} lambda_i       squared [0, 1] pixels per image

which is reverse water-filling at the level t with at most Z dimensions: no linear code of Gaussian
images does better. For the other Gaussian likelihoods the optimum is the same at another level:

    squared_error  R = E                                         t = beta / 2
    gaussian       R = E / (2 sigma^2) + D/2 log(2 pi sigma^2)   t = beta sigma^2
    optimal_sigma  the same with sigma^2 = E / D                 t = beta E / D

with D values per image. The last is an equation for t, since E depends on t.

References:
    Tipping, Bishop 1999, "Probabilistic Principal Component Analysis".
    Lucas, Tucker, Grosse, Norouzi 2019, "Don't Blame the ELBO!", for linear VAEs and collapse.
    Cover, Thomas 2006, "Elements of Information Theory", section 10.3.3, for the water-filling.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vae_jax.losses import MIN_OPTIMAL_VARIANCE
from vae_jax.metrics.posterior import ACTIVE_VARIANCE

LIKELIHOODS = ("squared_error", "gaussian", "optimal_sigma")
FORECAST = ("kl", "recon", "active_units", "first_collapse", "last_collapse")
BLOCK = 2048  # images that are turned into floats at a time


@dataclass(frozen=True)
class Spectrum:
    """The eigenvalues of a set of images.

    Attributes:
        eigenvalues: `[min(N, D)]`, descending, of the covariance (divided by N) of the images, in
            squared [0, 1] pixels. They sum to the mean squared distance from the mean image.
        dimensions: D = H W C.
    """

    eigenvalues: np.ndarray
    dimensions: int


@dataclass(frozen=True)
class LinearVAE:
    """The optimal linear VAE at one beta.

    Attributes:
        rate: K, nats per image.
        distortion: Squared error, squared [0, 1] pixels per image.
        recon: R in the units of the likelihood, as `recon_nats` of a trained run.
        active: The number of dimensions that carry anything.
        level: The water level t, squared [0, 1] pixels.
    """

    rate: float
    distortion: float
    recon: float
    active: int
    level: float


def image_spectrum(images: np.ndarray) -> Spectrum:
    """Returns the eigenvalues of the covariance of images.

    Decomposes the Gram matrix `[N, N]` or the covariance `[D, D]`, whichever is smaller. One CPU
    core takes a few seconds for 2,000 images of 64x64x3, 20 to 30 seconds for 4,000, and one second
    for MNIST.

    Args:
        images: `[N, H, W, C]` uint8. A few thousand do: the leading eigenvalues of fewer images
            are slightly too large, since they are fitted to them.
    """
    count, dimensions = len(images), int(np.prod(images.shape[1:]))
    flat = images.reshape(count, dimensions)
    blocks = [slice(start, start + BLOCK) for start in range(0, count, BLOCK)]
    center = flat.mean(axis=0, dtype=np.float64) / 255

    def centred(block: slice) -> np.ndarray:
        return (flat[block] / np.float32(255) - center).astype(np.float32)

    if dimensions <= count:
        matrix = np.zeros((dimensions, dimensions))
        for block in blocks:
            rows = centred(block)
            matrix += rows.T @ rows
    else:
        rows = np.concatenate([centred(block) for block in blocks])
        matrix = (rows @ rows.T).astype(np.float64)
    eigenvalues = np.linalg.eigvalsh(matrix / count)[::-1]
    return Spectrum(np.maximum(eigenvalues, 0.0), dimensions)


def optimal_linear_vae(
    spectrum: Spectrum,
    z_dim: int,
    beta: float,
    likelihood: str = "squared_error",
    sigma: float = 0.1,
) -> LinearVAE:
    """Returns rate and distortion of the optimal linear VAE.

    A trained VAE with the same z_dim should have less distortion at the same rate, since its
    decoder can do more; one that has not is under-trained.

    Args:
        spectrum: Spectrum of the training images, see `image_spectrum`.
        z_dim: Z, the most dimensions that the code may have.
        beta: Weight of K against R, positive, as logged with every row.
        likelihood: One of `LIKELIHOODS`; there is no closed form for 'bernoulli'.
        sigma: Standard deviation of 'gaussian', in [0, 1] pixels.

    Raises:
        ValueError: The likelihood has no closed form, or beta is not positive.
    """
    if beta <= 0:
        raise ValueError("beta must be positive: at 0 the rate is infinite")
    level = _level(spectrum, z_dim, beta, likelihood, sigma)
    kept = spectrum.eigenvalues[:z_dim]
    distortion = recon = _distortion(spectrum, z_dim, level)
    if likelihood != "squared_error":
        size, variance = spectrum.dimensions, sigma**2
        if likelihood == "optimal_sigma":
            variance = max(distortion / size, MIN_OPTIMAL_VARIANCE)
        recon = distortion / (2 * variance) + size / 2 * np.log(2 * np.pi * variance)
    rate = 0.5 * float(np.log(np.maximum(kept / level, 1.0)).sum())
    return LinearVAE(rate, distortion, float(recon), int(np.sum(kept > level)), level)


def active_units(spectrum: Spectrum, z_dim: int, level: float) -> int:
    """Returns how many dimensions `metrics.posterior.active_units` would find.

    These have a variance of the posterior mean, here 1 - level / lambda_i, above
    `ACTIVE_VARIANCE`: a dimension that has only just become active does not count.

    Args:
        spectrum: Spectrum of the training images.
        z_dim: Z.
        level: The water level, see `optimal_linear_vae`.
    """
    return int(np.sum((1 - ACTIVE_VARIANCE) * spectrum.eigenvalues[:z_dim] > level))


def collapse_betas(
    spectrum: Spectrum, z_dim: int, likelihood: str = "squared_error", sigma: float = 0.1
) -> np.ndarray:
    """Returns the beta from which each latent dimension carries nothing, `[min(Z, N, D)]`.

    They descend. From the first on, which belongs to the leading eigenvalue, the whole posterior is
    the prior; the last belongs to the dimension that dies first.

    Args:
        spectrum: Spectrum of the training images.
        z_dim: Z.
        likelihood: One of `LIKELIHOODS`.
        sigma: Standard deviation of 'gaussian', in [0, 1] pixels.

    Raises:
        ValueError: The likelihood has no closed form.

    >>> spectrum = Spectrum(np.array([8.0, 2.0, 0.5]), dimensions=3)
    >>> collapse_betas(spectrum, z_dim=2).tolist()  # of squared error: twice the eigenvalues
    [16.0, 4.0]
    """
    _check(likelihood)
    levels = spectrum.eigenvalues[:z_dim]
    if likelihood == "squared_error":
        return 2 * levels
    if likelihood == "gaussian":
        return levels / sigma**2
    distortion = np.array([_distortion(spectrum, z_dim, level) for level in levels])
    return levels * spectrum.dimensions / distortion


def forecast(
    spectrum: Spectrum, z_dim: int, beta: float, likelihood: str, sigma: float
) -> dict[str, float]:
    """Returns what to expect of a model before it is trained: the figures `FORECAST`.

    Args:
        spectrum: Spectrum of the training images.
        z_dim: Z.
        beta: Weight of K against R, positive.
        likelihood: One of `LIKELIHOODS`.
        sigma: Standard deviation of 'gaussian', in [0, 1] pixels.

    Returns:
        `kl` and `recon` in nats per image, `active_units`, and the betas from which the first and
        the last dimension carry nothing.
    """
    best = optimal_linear_vae(spectrum, z_dim, beta, likelihood, sigma)
    betas = collapse_betas(spectrum, z_dim, likelihood, sigma)
    active = active_units(spectrum, z_dim, best.level)
    values = (best.rate, best.recon, active, betas[-1], betas[0])
    return {name: float(value) for name, value in zip(FORECAST, values, strict=True)}


def _check(likelihood: str) -> None:
    if likelihood not in LIKELIHOODS:
        raise ValueError(
            f"likelihood {likelihood!r} has no closed form; {', '.join(LIKELIHOODS)} have"
        )


def _distortion(spectrum: Spectrum, z_dim: int, level: float) -> float:
    """Returns the squared error per image at a water level, E in the text above."""
    coded, rest = spectrum.eigenvalues[:z_dim], spectrum.eigenvalues[z_dim:]
    return float(np.minimum(coded, level).sum() + rest.sum())


def _level(spectrum: Spectrum, z_dim: int, beta: float, likelihood: str, sigma: float) -> float:
    """Returns the water level t of one beta."""
    _check(likelihood)
    if likelihood == "squared_error":
        return beta / 2
    if likelihood == "gaussian":
        return beta * sigma**2
    # beta E(t) / D is concave in t, so that it equals t at one t only; with k active dimensions E
    # is k t plus the eigenvalues below t. A code that loses next to nothing has the smallest
    # variance that the loss allows.
    eigenvalues, size = spectrum.eigenvalues, spectrum.dimensions
    below = eigenvalues.sum() - np.concatenate([[0.0], np.cumsum(eigenvalues[:z_dim])])
    for active in range(min(z_dim, len(eigenvalues)), -1, -1):
        if beta * active >= size:
            continue
        level = beta * below[active] / (size - beta * active)
        if active == 0 or eigenvalues[active - 1] > level:
            return max(float(level), beta * MIN_OPTIMAL_VARIANCE)
    raise AssertionError("without active dimensions there is always a level")
