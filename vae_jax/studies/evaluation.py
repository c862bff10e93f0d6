"""How good a trained model is: likelihood, reconstructions, and prior samples against real images.

Every figure follows from (checkpoint, seed, counts).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.tree_util import Partial

from vae_jax.losses import bernoulli_entropy, reconstruction_nll
from vae_jax.metrics import bounds
from vae_jax.metrics.feature_distances import (
    FEWEST,
    compare_features,
    frechet_distance,
)
from vae_jax.metrics.image_quality import WINDOW, mse, psnr, ssim
from vae_jax.metrics.posterior import active_units, kl_per_dimension
from vae_jax.metrics.sliced_wasserstein import sliced_wasserstein, sliced_wasserstein_floor
from vae_jax.models.vae import VAE, logits_of
from vae_jax.priors.fitted import Prior, draw
from vae_jax.progress import progress
from vae_jax.report.page import Page, Picture, Section, Table, plus_minus
from vae_jax.report.pictures import image_grid, paired_rows
from vae_jax.run import BATCH, Run, decode, in_batches
from vae_jax.streams import make_key
from vae_jax.studies.feature_spaces import SPACES, USUAL, Space, feature_spaces
from vae_jax.subject import (
    Seen,
    Subject,
    chosen_images,
    encode_batch,
    encode_subject,
    open_subject,
    reconstructions,
)
from vae_jax.types import UserError

INCEPTION_FEATURES = 2048
COLUMNS, SAMPLES_SHOWN = 8, 32


@dataclass(frozen=True)
class Options:
    """What is measured and shown.

    Attributes:
        split: Images that the model is judged by: 'test' or 'train'.
        count: Number of images, at most; 0 for all.
        seed: Seed of samples and choices.
        importance_samples: k of the importance-weighted bound.
        generated: Prior samples, at most; and at most half as many as there are images.
        features: Names of `feature_spaces.SPACES` in which samples are compared with images.
        classifier: Run folder of the classifier of the space 'classifier'; empty for none.
        inception: File with Inception activations; empty for none.
        decoded: What reconstructions decode, 'mean' or 'sample'.
        shown: Images in each picture.
        reference_choice: Whether to choose them as the reference code does.
    """

    split: str = "test"
    count: int = 0
    seed: int = 0
    importance_samples: int = 50
    generated: int = 1000
    features: tuple[str, ...] = USUAL
    classifier: str = ""
    inception: str = ""
    decoded: str = "mean"
    shown: int = 16
    reference_choice: bool = False


@dataclass(frozen=True)
class Result:
    """What was found.

    Attributes:
        facts: Checkpoint, split and seed.
        numbers: Figures by name, see `likelihood`, `reconstruction_quality` and `sample_quality`;
            `spaces` has a dictionary for each feature space, `published_nll` bounds of others.
        chosen: `[S]`, positions of the images that are shown.
        pairs: Their originals and reconstructions, `[S, H, W, C]` in [0, 1] each.
        samples: `[M, H, W, C]` in [0, 1], decoded points of the prior.
    """

    facts: dict[str, str]
    numbers: dict[str, Any]
    chosen: np.ndarray = field(repr=False)
    pairs: tuple[np.ndarray, np.ndarray] = field(repr=False)
    samples: np.ndarray = field(repr=False)


# Measuring.


def measure(run: Run[VAE], options: Options, prior: Prior) -> Result:
    """Measures likelihood, reconstructions and samples of a model.

    Args:
        run: A run opened by `open_run`.
        options: What to measure.
        prior: The prior that samples are drawn from.

    Raises:
        UserError: Too few images, an unknown space, or a file or classifier that does not fit.
    """
    spaces = feature_spaces(run, options.features, options.classifier)
    fid = fid_of_file(options.inception) if options.inception else {}
    subject = open_subject(run, options.split, options.count)
    seed, seen = options.seed, encode_subject(subject)
    sample_key = make_key(seed) if options.decoded == "sample" else None
    back = reconstructions(subject, seen, np.arange(len(seen.mean)), sample_key)
    numbers: dict[str, Any] = {"images": len(back), "step": run.step, "seed": seed}
    numbers |= reconstruction_quality(seen.targets, back)
    numbers |= likelihood(subject, seen, options.importance_samples, seed)
    scores, samples = sample_quality(subject, prior, seed, options.generated, spaces)
    numbers |= scores | fid
    published = bounds.PUBLISHED_MNIST.get(run.config.data.get("binarize", "none"), {})
    if "iw_bound" in numbers and run.config.data.name == "mnist":
        numbers["published_nll"] = dict(published)
    chosen = chosen_images(options.shown, len(back), seed, options.reference_choice)
    facts = (
        run.provenance
        | {
            "split": options.split,
            "images": f"{len(back):,}",
            "seed": str(seed),
            "reconstructions": f"of the {options.decoded}",
        }
        | prior.provenance
    )
    pairs = seen.targets[chosen], back[chosen]
    return Result(facts, numbers, chosen, pairs, samples[:SAMPLES_SHOWN])


def likelihood(subject: Subject, seen: Seen, samples: int, seed: int) -> dict[str, Any]:
    """Returns ELBO and importance-weighted bound, if the objective defines a likelihood.

    A decoder with optimal sigma gets the sigma of its mean error on these images.

    Args:
        subject: Model and images.
        seen: The encoded images, see `encode_subject`.
        samples: k.
        seed: Seed of the samples.

    Returns:
        `kl`, `active_units`, `z_dim`; for a model with a likelihood that was trained by sampling,
        also the figures of `bounds.summary`, and for Bernoulli the `entropy_floor` of the data.
    """
    result: dict[str, Any] = {
        "kl": float(kl_per_dimension(seen.mean, seen.log_var).sum()),
        "active_units": int(active_units(seen.mean).sum()),
        "z_dim": subject.model.z_dim,
    }
    objective = subject.objective
    if objective.likelihood == "optimal_sigma":
        back = reconstructions(subject, seen, np.arange(len(seen.mean)), make_key(seed))
        sigma = math.sqrt(float(np.mean((back - seen.targets) ** 2, dtype=np.float64)))
        objective = replace(objective, likelihood="gaussian", sigma=sigma)
        subject = subject._replace(objective=objective)
    if not objective.has_elbo or not subject.model.sample:  # Nothing trained log_var there.
        return result
    if objective.likelihood == "gaussian":
        result["sigma"] = objective.sigma
    each = image_bounds(subject, samples, seed)
    result |= bounds.summary(each, samples, objective, math.prod(subject.model.image_shape))
    if objective.likelihood == "bernoulli":
        (floor,) = in_batches(jax.jit(lambda x: (bernoulli_entropy(x),)), seen.targets)
        result["entropy_floor"] = float(floor.mean(dtype=np.float64))
    return result


def image_bounds(subject: Subject, samples: int, seed: int = 0) -> bounds.ImageBounds:
    """Returns ELBO terms and importance-weighted bound of every image.

    Sample j of image i depends on (seed, i, j) alone. Memory does not grow with the number of
    images.

    Args:
        subject: Model and images; the objective must define a likelihood.
        samples: k, posterior samples per image.
        seed: Seed of the samples.

    Raises:
        UserError: No samples, or an objective without likelihood.
    """
    model, objective = subject.model, subject.objective
    if samples < 1:
        raise UserError(f"A bound needs at least 1 sample, but got {samples}")
    if not objective.has_elbo or objective.likelihood == "optimal_sigma":
        raise UserError(
            f"likelihood {objective.likelihood!r} defines no density of an image by itself: there "
            "is no bound"
        )

    def loss(
        variables: Any, z: jax.Array, targets: jax.Array, labels: jax.Array | None
    ) -> jax.Array:
        logits = logits_of(model, variables, z, labels)
        return reconstruction_nll(objective, logits, targets, jax.numpy.ones(len(z)))

    nll, key = Partial(loss, subject.variables), make_key(seed)
    count = len(subject.images)
    with progress(-(-count // BATCH) * samples, "Likelihood", f"samples of {BATCH}") as advance:

        def of_batch(
            images: np.ndarray, positions: np.ndarray, labels: np.ndarray | None
        ) -> tuple[np.ndarray, ...]:
            _, targets, *codes = encode_batch(
                model, subject.stage, subject.variables, subject.key, images, positions, labels
            )
            log_weights, losses = bounds.importance_samples(
                nll, key, samples, tuple(codes), positions, targets, labels, advance=advance
            )
            mean, log_var = (np.asarray(part, np.float64) for part in codes)
            kl = 0.5 * np.sum(mean**2 + np.expm1(log_var) - log_var, axis=1)
            return losses.mean(axis=1), kl, *bounds.log_mean_weight(log_weights)

        found = in_batches(of_batch, subject.images, np.arange(count), subject.labels)
    return bounds.ImageBounds(*found)


def reconstruction_quality(targets: np.ndarray, images: np.ndarray) -> dict[str, float]:
    """Returns means over images of MSE, PSNR in dB and SSIM, each with its `_standard_error`.

    Args:
        targets: `[N, H, W, C]` float in [0, 1].
        images: `[N, H, W, C]` float in [0, 1].

    Returns:
        `mse`, `psnr`, and `ssim` for images at least as large as its window.
    """
    functions = {"mse": mse, "psnr": psnr}
    if min(targets.shape[1:3]) >= WINDOW:
        functions["ssim"] = ssim
    program = jax.jit(lambda x, y: tuple(function(x, y) for function in functions.values()))
    result = {}
    for name, values in zip(functions, in_batches(program, targets, images), strict=True):
        values = values.astype(np.float64)
        result[name] = float(values.mean())
        result[f"{name}_standard_error"] = bounds.standard_error(values)
    return result


def sample_quality(
    subject: Subject, prior: Prior, seed: int, count: int, spaces: dict[str, Space]
) -> tuple[dict[str, Any], np.ndarray]:
    """Compares prior samples with real images, M with M.

    Args:
        subject: Model and real images; M is at most half of them, because floors compare one half
            of the real images with the other.
        prior: The prior that samples are drawn from.
        seed: Seed of samples, subsets and directions.
        count: M.
        spaces: Feature spaces for precision, recall, density, coverage and Frechet distance.

    Returns:
        `sliced_wasserstein`, its `_floor` and `_levels`, the same with `_contrast`, and for each of
        `spaces` the figures of `compare_features` and their `floor`. Also the samples
        `[M, H, W, C]`.

    Raises:
        UserError: Fewer than 16 images.
    """
    count = min(count, len(subject.images) // 2)
    if count < FEWEST:
        raise UserError(
            f"Comparing samples with images needs {FEWEST} samples and {2 * FEWEST} images or "
            f"more, but there are {len(subject.images)} images"
        )
    pick_key, distance_key, floor_key = jax.random.split(make_key(seed), 3)
    order = np.asarray(jax.random.permutation(pick_key, len(subject.images)))
    half, other = np.sort(order[:count]), np.sort(order[count : 2 * count])
    labels, other_labels = (
        None if subject.labels is None else subject.labels[rows] for rows in (half, other)
    )
    real = subject.images[half]
    z = draw(prior, seed, count, labels)
    fake = decode(subject.model, subject.variables, z, labels)
    distance = sliced_wasserstein(real, fake, distance_key)
    floor = sliced_wasserstein_floor(subject.images[np.sort(order[: 2 * count])], floor_key)
    result: dict[str, Any] = {"generated": count}
    for name, kind in (("sliced_wasserstein", ""), ("sliced_wasserstein_contrast", "contrast_")):
        result |= {name: distance[f"{kind}mean"], f"{name}_floor": floor[f"{kind}mean"]}
        result |= {
            f"{name}_levels": distance[f"{kind}levels"],
            f"{name}_floor_levels": floor[f"{kind}levels"],
        }
    result["spaces"] = {}
    with progress(len(spaces), "Features", "spaces") as advance:
        for name, features in spaces.items():
            ours = features(real, labels)
            found: dict[str, Any] = {**compare_features(ours, features(fake, labels))}
            found["floor"] = compare_features(ours, features(subject.images[other], other_labels))
            result["spaces"][name] = found
            advance(1, name)
    return result, fake


def fid_of_file(path: str | Path) -> dict[str, Any]:
    """Returns the FID of Inception activations that were computed elsewhere.

    Args:
        path: A .npz file with `real` `[N, 2048]` and `fake` `[M, 2048]`, the pool3 features of the
            network that FID is defined by (Heusel et al. 2017).

    Returns:
        `fid` and `fid_images`.

    Raises:
        UserError: The file is missing, broken or of other arrays.
    """
    if not Path(path).is_file():  # Reading a pipe would wait.
        raise UserError(f"--inception={path} must be a .npz with the arrays real and fake")
    try:
        with open(path, "rb") as handle, np.load(handle, allow_pickle=False) as file:
            arrays = {name: file[name] for name in ("real", "fake")}
    except Exception as error:  # zipfile, zlib and NumPy raise many kinds for broken files.
        raise UserError(
            f"--inception={path} must be a .npz with the arrays real and fake ({error})"
        ) from None
    for name, array in arrays.items():
        if array.ndim != 2 or array.shape[1] != INCEPTION_FEATURES:
            raise UserError(
                f"--inception={path}: {name} is {array.shape}, but FID is defined by the "
                f"{INCEPTION_FEATURES} pool3 features of Inception, [N, {INCEPTION_FEATURES}]"
            )
    real, fake = arrays["real"], arrays["fake"]
    return {"fid": frechet_distance(real, fake), "fid_images": [len(real), len(fake)]}


# Showing.

# Names of numbers, what they mean, and their formats.
LIKELIHOOD = (
    ("elbo", "ELBO, nats per image", "{:.2f}"),
    ("iw_bound", "importance-weighted bound, nats per image", "{:.2f}"),
    ("log_density_bound", "bound on the log density of [0, 1] pixels, nats per image", "{:.2f}"),
    ("log_density_bound_bits_per_dim", "the same in bits per pixel and channel", "{:.4f}"),
    ("iw_log_density_bound", "importance-weighted bound on it, nats per image", "{:.2f}"),
    ("iw_samples", "importance samples per image", "{:,}"),
    ("iw_effective_samples", "effective importance samples, mean over images", "{:.1f}"),
    ("iw_sampling_error", "error that more samples would remove, nats", "{:.3f}"),
    ("recon_nats", "reconstruction term R, nats per image", "{:.2f}"),
    ("entropy_floor", "R of a perfect grey-level reconstruction", "{:.2f}"),
    ("kl", "KL term K, nats per image", "{:.2f}"),
    ("active_units", "active latent dimensions (variance of E[z|x] above 0.01)", "{}"),
    ("z_dim", "latent dimensions", "{}"),
    ("sigma", "standard deviation of the Gaussian, on [0, 1]", "{:.4f}"),
)
RECONSTRUCTION = (
    ("mse", "mean squared error on [0, 1]", "{:.5f}"),
    ("psnr", "PSNR, dB", "{:.2f}"),
    ("ssim", "SSIM (1 for equal images)", "{:.4f}"),
)
SHARES = (
    ("precision", "precision: samples inside the manifold of real images", "{:.3f}"),
    ("recall", "recall: real images inside the manifold of samples", "{:.3f}"),
    ("density", "density of real balls around samples (1 expected)", "{:.3f}"),
    ("coverage", "coverage: real balls that hold a sample", "{:.3f}"),
    ("frechet_distance", "Frechet distance, squared (this is not FID)", "{:.4g}"),
)


def page(result: Result) -> Page:
    """Returns the page: likelihood, published bounds, reconstructions, samples, and pictures."""
    numbers = result.numbers
    sections = [_likelihood_section(numbers)]
    if numbers.get("published_nll"):
        rows = [[name, f"{value:.2f}"] for name, value in numbers["published_nll"].items()]
        rows.append([f"this model, k = {numbers['iw_samples']:,}", f"{-numbers['iw_bound']:.2f}"])
        text = "Bounds on the negative log-likelihood of the same kind of data; smaller is better."
        table = Table(("", "nats per image"), rows)
        sections.append(Section("Published bounds", text, tables=[table]))
    positions = ", ".join(map(str, result.chosen))
    pairs = image_grid(paired_rows(list(result.pairs), COLUMNS), COLUMNS)
    caption = (
        f"Images {positions} of the split, each above its reconstruction. Look for what is lost: "
        "fine texture goes first."
    )
    sections.append(
        Section(
            "Reconstructions",
            f"Means over {result.facts['images']} images and their standard errors.",
            [Picture("reconstructions", pairs, caption)],
            [Table(("", "value"), _rows(numbers, RECONSTRUCTION))],
        )
    )
    sections += _sample_sections(result)
    return Page("Evaluation", _lead(numbers, result.facts), sections, result.facts)


def _lead(numbers: dict[str, Any], facts: dict[str, str]) -> str:
    bound = next((name for name in ("elbo", "log_density_bound") if name in numbers), None)
    text = (
        f"The model was judged by {facts['images']} images of the {facts['split']} split. It "
        f"reconstructs them at {numbers['psnr']:.1f} dB with {numbers['kl']:.1f} nats of "
        f"information per image in {numbers['active_units']} of {numbers['z_dim']} latent "
        "dimensions."
    )
    if bound:
        text += f" The lower bound on the log-likelihood is {numbers[bound]:.1f} nats per image."
    ratio = numbers["sliced_wasserstein"] / numbers["sliced_wasserstein_floor"]
    return text + (
        f" Prior samples lie {ratio:.1f} times as far from real images, by sliced Wasserstein "
        "distance, as real images from each other."
    )


def _rows(numbers: dict[str, Any], table: Sequence[tuple[str, str, str]]) -> list[list[str]]:
    """Returns rows `[meaning, value ± standard error]` of the numbers that were measured."""
    rows = []
    for key, meaning, form in table:
        if numbers.get(key) is not None:
            error = numbers.get(f"{key}_standard_error")
            rows.append([meaning, plus_minus(numbers[key], error, form)])
    return rows


def _likelihood_section(numbers: dict[str, Any]) -> Section:
    notes = []
    if numbers.get("entropy_floor", 0) > 1:
        notes.append(
            "These images have grey levels. Their Bernoulli cross-entropy compares models, but is "
            "not the log-likelihood of 8-bit pixels: set it against its floor."
        )
    effective = numbers.get("iw_effective_samples")
    if effective is not None and numbers["iw_samples"] > 1 and effective < 2:
        notes.append(
            f"The importance-weighted bound is not exhausted: of {numbers['iw_samples']:,} samples "
            f"{effective:.1f} carry the weight, so that more samples would still raise it."
        )
    caption = "± is the standard error over images, which includes that of sampling."
    table = Table(("", "value"), _rows(numbers, LIKELIHOOD), caption)
    return Section("Likelihood and posterior", " ".join(notes), tables=[table])


def _sample_sections(result: Result) -> list[Section]:
    last = len(result.samples) - 1
    caption = (
        f"Points 0 to {last} of seed {result.facts['seed']} and prior {result.facts['prior']}, as "
        "experiments.sample draws them: are they sharp, varied, and images of the data?"
    )
    picture = Picture("samples", image_grid(result.samples, COLUMNS), caption)
    return [
        Section("Prior samples", pictures=[picture]),
        _distance_section(result.numbers),
        _neighbour_section(result.numbers),
    ]


def _distance_section(numbers: dict[str, Any]) -> Section:
    rows = []
    for key, kind in (
        ("sliced_wasserstein", "each set normalised: texture alone"),
        ("sliced_wasserstein_contrast", "with brightness and contrast"),
    ):
        means = {"mean over levels": numbers[key]}, {"mean over levels": numbers[f"{key}_floor"]}
        levels = numbers[f"{key}_levels"], numbers[f"{key}_floor_levels"]
        for found, floors in (means, levels):
            rows += [
                [f"{kind}, {level}", f"{value:.4f}", f"{floors[level]:.4f}"]
                for level, value in found.items()
            ]
    text = (
        f"{numbers['generated']:,} prior samples against as many images. The floor is the distance "
        "between as many real images and other real images: what a perfect model would reach."
    )
    table = Table(("sliced Wasserstein distance", "samples", "floor"), rows)
    return Section("Distance of samples and images", text, tables=[table])


def _neighbour_section(numbers: dict[str, Any]) -> Section:
    spaces = numbers["spaces"]
    header = ["", *(f"{SPACES[s]}{end}" for s in spaces for end in ("", ": floor"))]
    body = [
        [meaning]
        + [form.format(of[key]) for found in spaces.values() for of in (found, found["floor"])]
        for key, meaning, form in SHARES
    ]
    note = (
        "Values of different spaces cannot be compared, and models can be compared only in a space "
        "that is the same for both, unlike that of this model's own encoder. The floor is real "
        "images against others."
    )
    if "fid" in numbers:
        note += f" FID of the Inception activations given: {numbers['fid']:.2f}."
    return Section("Neighbours in feature space", note, tables=[Table(header, body)])
