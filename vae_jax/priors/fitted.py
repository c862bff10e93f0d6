"""Densities fitted to the codes of a trained model, and points drawn from them.

The aggregate posterior of a trained VAE is not N(0, I); points drawn from it decode to better
images than points of N(0, I), without further training of the VAE (Dai & Wipf 2019; Ghosh et al.,
ICLR 2020; Chadebec & Allassonniere 2022). A density is fitted to draws of the posteriors of
training images, not to their means, and chosen by validation images.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.data.splits import condition_labels, first_images, piece_of
from vae_jax.memory import require_memory
from vae_jax.metrics import densities, posterior
from vae_jax.models.vae import VAE
from vae_jax.priors import learned
from vae_jax.run import Run, in_batches, run_splits
from vae_jax.streams import make_key, numbered_keys, stream_key
from vae_jax.subject import encode_subject, make_subject
from vae_jax.types import ImageSet, UserError

NORMAL = "normal"  # N(0, I), which every model was trained with
TITLES = {"gaussian": "Gaussian", "mixture": "mixture", "two_stage": "second VAE", "flow": "flow"}
HELD_OUT = 0.1  # share of the training codes that is held out if there are no validation images
PIECE = 1024  # images encoded at a time; a multiple of the batch that encoding is compiled for


class Codes(NamedTuple):
    """Draws of the aggregate posterior.

    Attributes:
        z: `[N, Z]`, one draw of the posterior of each image.
        labels: `[N, L]`, what the model was told about the image, or None.
    """

    z: np.ndarray
    labels: np.ndarray | None = None


@dataclass(frozen=True)
class Prior:
    """A density of latent points: z = mean(label) + temperature r, where r follows `density`.

    The mean is a linear function of the label, the density around it is independent of the label:
    every class has its own mean, and all classes share one shape.

    Attributes:
        kind: `NORMAL` or one of `KINDS`.
        name: Name in the run folder.
        location: `[1 + L, Z]`, the mean of all codes and what each entry of the label adds to it.
        density: A tree of arrays, made by its kind.
        facts: How it was fitted and chosen, as plain data.
        temperature: Factor of the spread about the mean.
    """

    kind: str
    name: str
    location: np.ndarray
    density: Any = field(repr=False)
    facts: dict[str, Any] = field(default_factory=dict)
    temperature: float = 1.0

    @property
    def z_dim(self) -> int:
        """Z."""
        return self.location.shape[1]

    @property
    def provenance(self) -> dict[str, str]:
        """Returns facts for the pictures of its samples."""
        kind = {} if self.kind == NORMAL else {"prior_kind": self.kind}
        return {"prior": self.name} | kind | {"temperature": f"{self.temperature:g}"}

    def at(self, temperature: float) -> Prior:
        """Returns the prior with another spread about the mean."""
        return replace(self, temperature=temperature)


def normal_prior(z_dim: int, label_dim: int = 0) -> Prior:
    """Returns N(0, I) for every label; its points are those of `run.prior_latents`."""
    location = np.zeros((1 + label_dim, z_dim), np.float32)
    return Prior(NORMAL, NORMAL, location, _gaussian_of(z_dim, {}))


# Fitting: (points about their means, held-out points, key) -> (density, how it was chosen).

Fitted = tuple[Any, dict[str, Any]]


def _fit_gaussian(points: np.ndarray, judging: np.ndarray, key: jax.Array) -> Fitted:
    gaussian = densities.fit_gaussian(points)
    nats = np.asarray(densities.gaussian_log_prob(gaussian, jnp.asarray(judging)), np.float64)
    return gaussian, {"held_out_nats": float(nats.mean())}


def _fit_mixture(points: np.ndarray, judging: np.ndarray, key: jax.Array) -> Fitted:
    choice = densities.choose_mixture(points, key, held_out=judging)
    return choice.mixture, {
        "components": choice.components,
        "held_out_nats": choice.held_out[choice.components],
        "held_out_nats_by_components": choice.held_out,
    }


def _learned_of(start: Any, z_dim: int, facts: dict[str, Any]) -> learned.Learned:
    return learned.Learned(_gaussian_of(z_dim, {}), start(z_dim, make_key(0)))


class Kind(NamedTuple):
    """The functions of one kind of density.

    Attributes:
        fit: Fits a density to points and chooses by held-out points.
        draw: Draws one point `[Z]` of a density with a key.
        empty: Makes a density of the structure and shapes that belong to Z and the facts of `fit`.
    """

    fit: Callable[[np.ndarray, np.ndarray, jax.Array], Fitted]
    draw: Callable[[Any, jax.Array], jax.Array]
    empty: Callable[[int, dict[str, Any]], Any]


def _gaussian_of(z_dim: int, facts: dict[str, Any]) -> densities.Gaussian:
    return densities.Gaussian(jnp.zeros(z_dim), jnp.eye(z_dim))


def _mixture_of(z_dim: int, facts: dict[str, Any]) -> densities.Mixture:
    count = facts["components"]
    one = jnp.zeros((count, z_dim, z_dim))
    return densities.Mixture(jnp.zeros(count), jnp.zeros((count, z_dim)), one)


KINDS = {
    "gaussian": Kind(_fit_gaussian, densities.gaussian_draw, _gaussian_of),
    "mixture": Kind(_fit_mixture, densities.mixture_draw, _mixture_of),
    "two_stage": Kind(
        partial(learned.fit_learned, learned.start_second_vae, learned.elbo_loss, "Second VAE"),
        learned.second_vae_draw,
        partial(_learned_of, learned.start_second_vae),
    ),
    "flow": Kind(
        partial(learned.fit_learned, learned.start_flow, learned.flow_loss, "Flow"),
        learned.flow_draw,
        partial(_learned_of, learned.start_flow),
    ),
}


def fit_prior(kind: str, codes: Codes, judging: Codes | None, seed: int, name: str = "") -> Prior:
    """Fits a density to codes and chooses by held-out codes.

    Args:
        kind: One of `KINDS`.
        codes: Codes that the density is fitted to.
        judging: Codes of other images, by which components or steps are chosen; None holds out a
            tenth of `codes`.
        seed: Seed of everything that is drawn by chance; the same seed gives the same prior.
        name: Name of the prior; its kind by default.

    Raises:
        UserError: Too few codes, codes that are all equal, or NaN or infinite values.
    """
    began, key = time.monotonic(), make_key(seed)
    if judging is None:
        chosen = np.zeros(len(codes.z), bool)
        order = np.random.default_rng(seed).permutation(len(codes.z))
        chosen[order[: round(HELD_OUT * len(order))]] = True
        codes, judging = (
            Codes(codes.z[rows], None if codes.labels is None else codes.labels[rows])
            for rows in (~chosen, chosen)
        )
    if min(len(codes.z), len(judging.z)) < 2 or not np.isfinite(codes.z).all():
        raise UserError(
            f"a prior needs finite codes of 2 images or more to fit to and 2 to choose by, but got "
            f"{len(codes.z)} and {len(judging.z)}: check the encoder and the number of images"
        )
    design = np.ones((len(codes.z), 1)) if codes.labels is None else _design(codes.labels)
    location = np.linalg.lstsq(design, codes.z.astype(np.float64), rcond=None)[0]
    location = location.astype(np.float32)
    around, others = (c.z - mean_of(location, c.labels) for c in (codes, judging))
    density, facts = KINDS[kind].fit(around, others, key)
    facts |= {"seed": seed, "codes": len(codes.z), "held_out_codes": len(judging.z)}
    facts["seconds"] = round(time.monotonic() - began, 2)
    return Prior(kind, name or kind, location, density, facts)


def _design(labels: np.ndarray) -> np.ndarray:
    return np.concatenate([np.ones((len(labels), 1)), labels], axis=1)


def mean_of(location: Any, labels: Any) -> Any:
    """Returns the means `[N, Z]` of codes with labels `[N, L]`, or the mean `[1, Z]` of all."""
    return location[:1] if labels is None else location[:1] + labels @ location[1:]


def codes_of(run: Run[VAE], split: ImageSet, seed: int) -> Codes:
    """Encodes images and draws one point of each posterior; an autoencoder gives the means.

    Args:
        run: The model.
        split: The images.
        seed: Seed of the draws; the draw for image i depends on (seed, i) alone.
    """
    found = []
    for start in range(0, len(split), PIECE):
        seen = encode_subject(make_subject(run, piece_of(split, start, PIECE)), first=start)
        found.append((seen.mean, seen.log_var))
    mean, log_var = (np.concatenate(parts) for parts in zip(*found, strict=True))
    key = stream_key(make_key(seed), "latent")  # not the key of points drawn with this seed
    z = np.asarray(posterior.sample(mean, log_var, key)) if run.model.sample else mean
    return Codes(z, condition_labels(run.config.data, split))


def fit_to_run(run: Run[VAE], kind: str, seed: int = 0, count: int = 0, name: str = "") -> Prior:
    """Fits a density to the training codes of a run and chooses by its validation images.

    Args:
        run: A run opened by `open_run`; its test images are not used.
        kind: One of `KINDS`.
        seed: Seed, see `fit_prior`.
        count: Training images, at most; 0 for all.
        name: Name of the prior; its kind by default.

    Raises:
        UserError: Data that cannot be opened, or codes that no density fits.
    """
    splits = run_splits(run)
    train = first_images(splits.train, min(count, len(splits.train)), "--count")
    codes = codes_of(run, train, seed)
    judging = None if splits.validation is None else codes_of(run, splits.validation, seed)
    return fit_prior(kind, codes, judging, seed, name)


# Drawing.


def draw(prior: Prior, seed: int, count: int, labels: np.ndarray | None = None) -> np.ndarray:
    """Draws points; point i depends on (prior, seed, i, its label) alone.

    Args:
        prior: The density.
        seed: Seed of the draw, 0 to `streams.MAX_SEED`.
        count: N.
        labels: `[N, L]`, what a conditional model is told about each; None for others.

    Returns:
        `[N, Z]` float32.

    Raises:
        UserError: The points do not fit into memory.
    """
    what = f"{count:,} latent points of {prior.z_dim} dimensions"
    require_memory(2 * 4 * count * prior.z_dim, what, "ask for fewer")
    arrays = prior.density, prior.location, np.float32(prior.temperature)
    program = partial(_draw, prior.kind, arrays, make_key(seed))
    (z,) = in_batches(program, np.arange(count), labels)
    return z


@partial(jax.jit, static_argnums=0)
def _draw(
    kind: str, arrays: Any, key: jax.Array, positions: jax.Array, labels: jax.Array | None
) -> tuple[jax.Array]:
    return (draw_at(kind, arrays, key, positions, labels),)


def draw_at(
    kind: str, arrays: Any, key: jax.Array, positions: jax.Array, labels: jax.Array | None
) -> jax.Array:
    """Returns the points at `positions` `[B]` of a key: the pure function behind `draw`.

    Args:
        kind: Kind of the prior.
        arrays: Density, location and temperature of the prior.
        key: Typed random key.
        positions: `[B]`, each at least 0.
        labels: `[B, L]`, or None.

    Returns:
        `[B, Z]`.
    """
    density, location, temperature = arrays
    keys = numbered_keys(key, positions)
    # N(0, I) is a Gaussian.
    one = KINDS["gaussian" if kind == NORMAL else kind].draw
    return mean_of(location, labels) + temperature * jax.vmap(partial(one, density))(keys)
