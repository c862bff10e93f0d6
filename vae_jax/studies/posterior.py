"""The aggregate posterior of a trained model: its figures, its shape, and its principal plane.

A decoder is trained on points of q(z), the mean over images of q(z|x), but samples are drawn from
N(0, I). The page shows how far the two are apart, and in which directions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import numpy as np
from matplotlib import colormaps
from PIL import Image
from scipy import stats

from vae_jax.metrics import posterior
from vae_jax.metrics.attribute_directions import halves, label_table, separation
from vae_jax.models.vae import VAE
from vae_jax.report.charts import COLOURS, drawn, new_chart
from vae_jax.report.page import Page, Picture, Section, Table, plus_minus
from vae_jax.report.pictures import image_grid
from vae_jax.run import Run
from vae_jax.streams import make_key
from vae_jax.subject import decode_points, encode_subject, open_subject
from vae_jax.types import ImageSet

EXTENT = 2.5  # standard deviations on either side in the plane of even steps
NEAR_BOUND = 0.1  # nats; an estimate that is nearer to its bound is said to be at it
BINS = 40
BLUE, RED, GREEN = COLOURS[:3]
GREY = "#bbbbbb"


@dataclass(frozen=True)
class Options:
    """What is measured and shown.

    Attributes:
        split: Images that are encoded: 'test' or 'train'.
        count: Number of images, at most; 0 for all.
        seed: Seed of draws and choices.
        grid: Images along each side of the decoded plane.
    """

    split: str = "test"
    count: int = 10_000
    seed: int = 0
    grid: int = 12


@dataclass(frozen=True)
class Result:
    """What was found.

    Attributes:
        facts: Checkpoint, split and seed.
        numbers: See `vae_jax.metrics.posterior.summary`.
        radii: `[N]`, |z| of draws of q(z).
        radii_of_means: `[N]`, |z| of the posterior means.
        plane: `[N, 2]`, posterior means in the plane in which q(z) varies most, in deviations.
        axes: Names of the axes of the plane.
        groups: `[N]`, the group of each image; None without labels.
        group_names: Names of the groups.
        chosen_by: How the groups were chosen, for the caption.
        even: Decoded points at even steps in the plane, `[grid^2, H, W, C]` in [0, 1].
        quantile: Decoded points at normal quantiles in the plane.
    """

    facts: dict[str, str]
    numbers: dict[str, Any]
    radii: np.ndarray = field(repr=False)
    radii_of_means: np.ndarray = field(repr=False)
    plane: np.ndarray = field(repr=False)
    axes: tuple[str, str]
    groups: np.ndarray | None = field(repr=False)
    group_names: tuple[str, ...]
    chosen_by: str
    even: np.ndarray = field(repr=False)
    quantile: np.ndarray = field(repr=False)


# Measuring.


def measure(run: Run[VAE], options: Options) -> Result:
    """Encodes images, summarises their codes, and decodes the plane in which these vary most.

    Args:
        run: A run opened by `open_run`.
        options: What to measure and show.

    Raises:
        UserError: Fewer than two images, or codes that are not finite.
    """
    subject = open_subject(run, options.split, options.count)
    seen, key = encode_subject(subject), make_key(options.seed)
    mean, log_var = seen.mean, seen.log_var
    numbers = posterior.summary(mean, log_var, key)
    z = np.asarray(posterior.sample(jnp.asarray(mean), jnp.asarray(log_var), key))
    offset, axes, names = principal_plane(mean, log_var)
    plane = (mean - offset[None]) @ np.linalg.pinv(axes)
    groups, group_names, chosen_by = _groups(subject.split, plane, options.seed)
    ticks = (np.arange(options.grid) + 0.5) / options.grid
    even, quantile = (
        decode_points(subject, offset[None] + square_grid(places) @ axes)
        for places in (np.linspace(-EXTENT, EXTENT, options.grid), stats.norm.ppf(ticks))
    )
    facts = run.provenance | {
        "split": options.split,
        "images": f"{len(mean):,}",
        "seed": str(options.seed),
    }
    return Result(
        facts,
        numbers,
        radii=np.linalg.norm(z, axis=1),
        radii_of_means=np.linalg.norm(mean, axis=1),
        plane=plane,
        axes=names,
        groups=groups,
        group_names=group_names,
        chosen_by=chosen_by,
        even=even,
        quantile=quantile,
    )


def principal_plane(
    mean: np.ndarray, log_var: np.ndarray
) -> tuple[np.ndarray, np.ndarray, tuple[str, str]]:
    """Returns the plane in which q(z) varies most.

    Args:
        mean: `[N, Z]`.
        log_var: `[N, Z]`.

    Returns:
        Origin `[Z]`, two axes `[2, Z]` of one deviation each, and their names; for Z = 2 the latent
        space itself, for Z = 1 its line and an axis of length 0.
    """
    z_dim = mean.shape[1]
    if z_dim <= 2:
        return np.zeros(z_dim), np.eye(2)[:, :z_dim], ("z 0", "z 1")
    offset, _, covariance = posterior.moments(mean, log_var)
    values, vectors = np.linalg.eigh(covariance)
    axes = np.sqrt(values[::-1][:2])[:, None] * vectors.T[::-1][:2]
    return offset, axes, ("principal component 1", "principal component 2")


def square_grid(ticks: np.ndarray) -> np.ndarray:
    """Returns `[n^2, 2]` points row by row, the largest second coordinate first, as in a plot."""
    rows, columns = np.meshgrid(ticks[::-1], ticks, indexing="ij")
    return np.stack([columns.reshape(-1), rows.reshape(-1)], axis=1)


def _groups(
    split: ImageSet, plane: np.ndarray, seed: int
) -> tuple[np.ndarray | None, tuple[str, ...], str]:
    """Returns the classes, or the attribute that the plane separates best on held-out images."""
    if split.labels is not None and split.labels.ndim == 1:
        return split.labels, split.label_names, "A colour per class."
    table, names = label_table(split.labels, split.label_names)
    if not names:
        return None, (), ""
    fit, judge = halves(len(plane), seed)
    found = separation((plane[fit], table[fit]), (plane[judge], table[judge]))
    clearest = int(np.argmax(np.nan_to_num(found.shares)))
    name = names[clearest]
    return (
        table[:, clearest].astype(int),
        (f"not {name}", name),
        (
            f"Of {len(names)} attributes {name} is separated best in this plane: a line fitted to "
            f"one half of the images has {found.shares[clearest]:.0%} of the other half on the "
            "right side (50 % is chance)."
        ),
    )


# Showing.


def page(result: Result) -> Page:
    """Returns the page: numbers, shape, means by label, and the decoded plane."""
    numbers = result.numbers
    radius, prior = numbers["radius"], numbers["radius_prior"]
    lead = (
        f"{numbers['images']:,} images of the {result.facts['split']} split were encoded. A code "
        f"carries {numbers['kl']:.1f} nats in {numbers['active_units']} of {numbers['z_dim']} "
        f"latent dimensions. Draws of q(z) have the radius {radius['mean']:.2f} ± "
        f"{radius['std']:.2f}, points of the prior {prior['mean']:.2f} ± {prior['std']:.2f}; "
        f"the distance of the mean code from the origin is {numbers['offset_norm']:.2f}."
    )
    grid = round(len(result.even) ** 0.5)
    first, second = result.axes
    across = f"{first} grows to the right, {second} upwards"
    sections = [
        Section("In numbers", _bound_note(numbers), tables=[_summary_table(numbers)]),
        Section("Shape", pictures=_shape_pictures(result)),
        Section(
            "Means by label" if result.group_names else "Means",
            pictures=[
                Picture(
                    "means",
                    _scatter(result),
                    "Posterior means in the plane in which q(z) varies most, in deviations. "
                    + result.chosen_by,
                )
            ],
        ),
        Section(
            "The plane, decoded",
            pictures=[
                Picture(
                    "manifold-even",
                    image_grid(result.even, grid),
                    f"Even steps from -{EXTENT} to {EXTENT} deviations; {across}. The decoder was "
                    "never trained outside the codes: where do images fall apart?",
                ),
                Picture(
                    "manifold-quantile",
                    image_grid(result.quantile, grid),
                    f"Steps of equal probability, normal quantiles of (i + 1/2) / {grid}; "
                    f"{across}. Each image represents equally many codes of a Gaussian.",
                ),
            ],
        ),
    ]
    return Page("Aggregate posterior", lead, sections, result.facts)


def _bound_note(numbers: dict[str, Any]) -> str:
    parts = numbers["kl_decomposition"]
    found, bound = parts["mutual_information"], parts["mutual_information_bound"]
    if bound - found > NEAR_BOUND:
        return ""
    return (
        f"The mutual information {found:.2f} is at its bound, the logarithm of "
        f"{numbers['images']:,} images ({bound:.2f}): the code of an image distinguishes it from "
        "all others, and the estimate would rise with more images, at most to the KL of "
        f"{numbers['kl']:.2f}. The total correlation measures these separate codes, too."
    )


def _summary_table(numbers: dict[str, Any]) -> Table:
    parts, prior = numbers["kl_decomposition"], numbers["radius_prior"]
    rows = [
        ("KL(q(z|x) || N(0, I)), nats per image", _with_error(numbers, "kl"), ""),
        (
            "mutual information of image and code, nats",
            _with_error(parts, "mutual_information"),
            f"at most {parts['mutual_information_bound']:.2f}, the log of the number of images",
        ),
        ("total correlation, nats", _with_error(parts, "total_correlation"), "0"),
        ("KL of the marginals, nats", _with_error(parts, "dimension_kl"), "0"),
        (
            "active dimensions (variance of E[z|x] above 0.01)",
            str(numbers["active_units"]),
            f"of {numbers['z_dim']}",
        ),
        ("distance of the mean code from the origin", f"{numbers['offset_norm']:.3f}", "0"),
        (
            f"squared MMD to the prior, {numbers['mmd_points']:,} points",
            f"{numbers['mmd']:.4f}",
            f"{numbers['mmd_floor']:.4f}, prior to prior",
        ),
    ]
    floor = f"{0.87 / numbers['images'] ** 0.5:.3f}"
    for key, text in (("radius", "|z| of draws of q(z)"), ("radius_of_means", "|z| of the means")):
        part = numbers[key]
        spread = f"{prior['mean']:.2f} ± {prior['std']:.2f}"
        rows += [
            (f"{text}, mean ± deviation", f"{part['mean']:.2f} ± {part['std']:.2f}", spread),
            (f"{text}: Kolmogorov-Smirnov distance", f"{part['ks_distance']:.3f}", floor),
        ]
    caption = (
        "The last column is what codes that follow N(0, I) would give. ± is the standard error "
        "over images unless another meaning is stated."
    )
    return Table(("", "found", "under N(0, I)"), rows, caption)


def _with_error(numbers: dict[str, float], key: str) -> str:
    return plus_minus(numbers[key], numbers[f"{key}_standard_error"], "{:.2f}")


def _shape_pictures(result: Result) -> list[Picture]:
    """Draws six views of q(z)."""
    many = result.numbers["images"] >= 10 * result.numbers["z_dim"]
    few = "" if many else " With so few images per dimension it bends."
    views = (
        ("radius", _draw_radii, "Do draws of q(z) have the radii of the prior?"),
        ("spectrum", _draw_spectrum, "A flat line at 1 would be the prior: how round is q(z)?"),
        (
            "kl-by-dimension",
            _draw_kl,
            "How many dimensions carry the information, and how evenly?",
        ),
        (
            "marginals",
            _draw_marginals,
            "One point per dimension; far from the cross it is not Gaussian.",
        ),
        (
            "mahalanobis",
            _draw_mahalanobis,
            f"On the line, q(z) is one Gaussian, whatever its place and shape.{few}",
        ),
        (
            "variance-by-dimension",
            _draw_variance,
            "In a dimension that is in use the means vary; in another one q(z|x) is the prior.",
        ),
    )
    pictures = []
    for name, draw, caption in views:
        figure, axes = new_chart(5, 3.5)
        draw(axes[0, 0], result)
        axes[0, 0].legend(fontsize=8)
        pictures.append(Picture(name, drawn(figure), caption))
    return pictures


def _draw_radii(axis: Any, result: Result) -> None:
    z_dim = result.numbers["z_dim"]
    places = np.linspace(0, max(result.radii.max(), 1.3 * z_dim**0.5), 400)
    axis.hist(result.radii, BINS, density=True, color=BLUE, alpha=0.6, label="draws of q(z)")
    means = result.radii_of_means
    axis.hist(means, BINS, density=True, color=GREEN, alpha=0.6, label="means E[z|x]")
    axis.plot(places, stats.chi.pdf(places, z_dim), color=RED, label="N(0, I): chi law")
    axis.set(title="Radius |z|", xlabel="|z|", ylabel="probability density")


def _draw_spectrum(axis: Any, result: Result) -> None:
    numbers, ranks = result.numbers, _ranks(result)
    axis.plot(ranks, numbers["spectrum"], ".-", color=BLUE, label="q(z)")
    axis.plot(ranks, numbers["spectrum_of_means"], ".-", color=GREEN, label="means E[z|x]")
    axis.axhline(1, color=RED, lw=1, label="N(0, I)")
    axis.set(title="Eigenvalues of the covariance", xlabel="rank", yscale="log")


def _draw_kl(axis: Any, result: Result) -> None:
    numbers, ranks = result.numbers, _ranks(result)
    active, heights = _by_kl(result, "active_mask"), _by_kl(result, "kl_per_dimension")
    for mask, colour, name in ((active, BLUE, "active"), (~active, GREY, "not active")):
        if mask.any():
            axis.bar(ranks[mask], heights[mask], 1.0, color=colour, label=name)
    count = f"{numbers['active_units']} of {numbers['z_dim']} active"
    axis.set(title=f"KL by dimension ({count})", xlabel="rank", ylabel="nats per image")


def _draw_marginals(axis: Any, result: Result) -> None:
    numbers = result.numbers
    axis.plot(numbers["skewness"], numbers["excess_kurtosis"], "o", color=BLUE, ms=4)
    axis.plot([0], [0], "+", color=RED, ms=12, mew=2, label="a Gaussian")
    axis.set(title="Marginals of q(z)", xlabel="skewness", ylabel="excess kurtosis")


def _draw_mahalanobis(axis: Any, result: Result) -> None:
    quantiles = result.numbers["mahalanobis"]
    expected, observed = quantiles["chi_square"], quantiles["observed"]
    axis.plot(expected, observed, ".", color=BLUE, label="draws of q(z)")
    axis.plot(expected, expected, color=RED, lw=1, label="any Gaussian")
    title = "Squared Mahalanobis distance"
    axis.set(title=title, xlabel="chi-square quantile", ylabel="observed")


def _draw_variance(axis: Any, result: Result) -> None:
    ranks = _ranks(result)
    for key, colour, name in (
        ("variance_of_means", GREEN, "variance of the means"),
        ("mean_variance", BLUE, "mean variance of q(z|x)"),
    ):
        axis.plot(ranks, _by_kl(result, key), ".", color=colour, label=name)
    squares = _by_kl(result, "offset") ** 2
    axis.plot(ranks, squares, "x", color=RED, ms=4, label="squared mean offset")
    axis.set(title="Where the variance is, by dimension", xlabel="rank of the KL")


def _ranks(result: Result) -> np.ndarray:
    return np.arange(1, result.numbers["z_dim"] + 1)


def _by_kl(result: Result, key: str) -> np.ndarray:
    """Returns a number of every dimension, in order of their KL, the largest first."""
    return np.array(result.numbers[key])[np.argsort(result.numbers["kl_per_dimension"])[::-1]]


def _scatter(result: Result) -> Image.Image:
    """Draws posterior means in the plane, one colour per group."""
    figure, axes = new_chart(6.5, 6)
    axis, points = axes[0, 0], result.plane
    if result.groups is None:
        axis.plot(*points.T, ".", ms=3, color=BLUE)
    else:
        names: Sequence[str] = result.group_names
        for number, name in enumerate(names):
            colour = colormaps["tab10"](number % 10)
            some = points[result.groups == number]
            axis.plot(*some.T, ".", ms=4, alpha=0.7, color=colour, label=name)
        columns = min(len(names), 5)
        figure.legend(loc="outside lower center", ncols=columns, markerscale=2, fontsize=8)
    axis.set(xlabel=result.axes[0], ylabel=result.axes[1])
    axis.set_aspect("equal", adjustable="datalim")
    return drawn(figure)
