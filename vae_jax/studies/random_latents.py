"""What a decoder makes of random latent points: the reference test and fairer ones.

The reference draws components uniform in (0, b), which is one orthant at a radius of about
`b sqrt(Z / 3)`; encoded images lie elsewhere. Other rows draw points of the whole cube, of the
prior, of spheres, and of densities fitted to the aggregate posterior. One page can show several
runs, such as an autoencoder and a VAE.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.lines import Line2D
from PIL import Image
from scipy import stats

from vae_jax.metrics import densities, posterior
from vae_jax.metrics.feature_distances import FEWEST, frechet_distance, small_pixels
from vae_jax.metrics.sliced_wasserstein import FEWER, sliced_wasserstein
from vae_jax.models.vae import VAE
from vae_jax.priors.fitted import draw
from vae_jax.priors.kept import open_prior
from vae_jax.progress import progress
from vae_jax.report.charts import COLOURS, drawn, new_chart
from vae_jax.report.page import Page, Picture, Section, Table, counted, plus_minus
from vae_jax.report.pictures import labelled_sheet
from vae_jax.run import Run, decode, encode
from vae_jax.streams import make_key
from vae_jax.subject import Seen, Subject, encode_subject, open_subject
from vae_jax.types import UserError

ORTHANT = (0.5, 2.5, 5.0, 8.0, 10.0, 15.0, 20.0, 30.0, 50.0)
CUBE = (0.5, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0)
SPHERE = (0.25, 0.5, 1.0, 1.5, 2.0, 4.0)  # radius in units of sqrt(Z)


@dataclass(frozen=True)
class Options:
    """What is decoded and compared.

    Attributes:
        points: Points per row, at most; and at most half as many as there are real images.
            Covariances of 8 x 8 pixels are regular from about 200 points on, and well known from
            1,000 on.
        seeds: Number of seeds that points, real images and distances are drawn with.
        seed: First of the seeds.
        columns: Images of a row that are shown.
        split: Real images to compare with: 'test' or 'train'.
        fit_split: Images that densities are fitted to.
        fit_count: Number of these images, at most.
        priors: Names of priors kept in the run folder; each gets a row.
    """

    points: int = 1000
    seeds: int = 3
    seed: int = 0
    columns: int = 10
    split: str = "test"
    fit_split: str = "train"
    fit_count: int = 10_000
    priors: tuple[str, ...] = ()


class Row(NamedTuple):
    """Latent points of one kind.

    Attributes:
        name: Name of the row.
        kind: `codes`, `orthant`, `cube`, `normal`, `sphere` or `fitted`.
        z: `[N, Z]`.
    """

    name: str
    kind: str
    z: np.ndarray


@dataclass(frozen=True)
class Result:
    """What was found in one run.

    Attributes:
        facts: Checkpoint, counts and seeds.
        numbers: `points` per row, `seeds`, `z_dim`, `kl_weight`; `rows`, each with `name`, `kind`
            and the figures of `measure_points`, means over seeds and `_std`; `floor`, the same
            distances of real images to real images; `held_out`, by seed, the log-likelihood in
            nats per point of mixtures by number of components, and the number `chosen`.
        shown: Name of each row and its first images `[N, H, W, C]` in [0, 1], of the first seed.
    """

    facts: dict[str, str]
    numbers: dict[str, Any]
    shown: list[tuple[str, np.ndarray]] = field(repr=False)


# Measuring.


def reference_rows(key: jax.Array, count: int, z_dim: int) -> list[Row]:
    """Draws points that do not depend on the model: orthant, cube, prior and spheres.

    Args:
        key: Typed random key; the first points of a row do not depend on `count`.
        count: Points per row.
        z_dim: Z.
    """
    keys = iter(jax.random.split(key, len(ORTHANT) + len(CUBE) + len(SPHERE) + 1))
    rows = [
        (f"(0, {b:g})", "orthant", densities.uniform(next(keys), count, z_dim, b, 0.0))
        for b in ORTHANT
    ]
    rows += [
        (f"(-{b:g}, {b:g})", "cube", densities.uniform(next(keys), count, z_dim, b, -1.0))
        for b in CUBE
    ]
    rows.append(("N(0, I)", "normal", densities.normal(next(keys), count, z_dim)))
    for radius in (factor * z_dim**0.5 for factor in SPHERE):
        z = densities.sphere(next(keys), count, z_dim, radius)
        rows.append((f"|z| = {radius:.3g}", "sphere", z))
    return [Row(name, kind, np.asarray(z)) for name, kind, z in rows]


def fitted_rows(
    key: jax.Array, count: int, mean: np.ndarray, log_var: np.ndarray
) -> tuple[list[Row], densities.MixtureChoice]:
    """Draws points of densities fitted to the aggregate posterior.

    Args:
        key: Typed random key.
        count: Points per row.
        mean: `[N, Z]` posterior means.
        log_var: `[N, Z]` posterior log variances.

    Returns:
        Points of a full-covariance Gaussian and of a Gaussian mixture; the choice of the mixture.
    """
    draw_key, fit_key, gaussian_key, mixture_key = jax.random.split(key, 4)
    points = np.asarray(posterior.sample(jnp.asarray(mean), jnp.asarray(log_var), draw_key))
    gaussian = densities.sample(densities.fit_gaussian(points), gaussian_key, count)
    choice = densities.choose_mixture(points, fit_key)
    drawn_points = densities.sample(choice.mixture, mixture_key, count)
    rows = [
        Row("fitted Gaussian", "fitted", np.asarray(gaussian)),
        Row("fitted mixture", "fitted", np.asarray(drawn_points)),
    ]
    return rows, choice


def measure(run: Run[VAE], options: Options) -> Result:
    """Decodes all rows of points with every seed, and judges the images.

    Args:
        run: A run opened by `open_run`.
        options: What to decode.

    Raises:
        UserError: Fewer than 16 real images.
    """
    subject = open_subject(run, options.split)
    count = _points_per_row(subject, options)
    priors = [open_prior(run, name) for name in options.priors]
    codes = encode_subject(subject).mean
    fit_to = encode_subject(open_subject(run, options.fit_split, options.fit_count))
    seeds = range(options.seed, options.seed + options.seeds)
    number = len(ORTHANT) + len(CUBE) + len(SPHERE) + 4 + len(priors)
    measured: dict[tuple[str, str], list[dict[str, float]]] = {}  # by name and kind of the row
    floors, shown, choices = [], [], {}
    with progress(number * len(seeds), f"Random points of {run.workdir.name}", "rows") as advance:
        for seed in seeds:
            key, distance_key = jax.random.split(make_key(seed))
            own, others = split_images(len(codes), count, seed)
            labels = None if subject.labels is None else subject.labels[own]
            rows, choices[seed] = _rows_of_seed(key, codes[own], fit_to)
            rows += [
                Row(f"prior {prior.name}", "fitted", draw(prior, seed, count, labels))
                for prior in priors
            ]
            real = subject.images[others]
            floors.append(distances(real, subject.images[own], distance_key))
            for row in rows:
                figures, images = measure_points(subject, row.z, labels, real, distance_key)
                measured.setdefault((row.name, row.kind), []).append(figures)
                if seed == options.seed:
                    shown.append((row.name, images[: options.columns]))
                advance(1, row.name)
    numbers = {
        "points": count,
        "seeds": list(seeds),
        "z_dim": run.model.z_dim,
        "kl_weight": float(run.config.loss.kl_weight),
        "rows": [
            {"name": name, "kind": kind, **over_seeds(found)}
            for (name, kind), found in measured.items()
        ],
        "floor": over_seeds(floors),
        "held_out": [
            {"seed": seed, "chosen": choice.components, "nats_per_point": choice.held_out}
            for seed, choice in choices.items()
        ],
    }
    facts = run.provenance | {
        "split": f"{options.split}, {len(codes):,} images",
        "points per row": f"{count:,}",
        "seeds": ", ".join(map(str, seeds)),
        "densities fitted to": f"{len(fit_to.mean):,} images of the {options.fit_split} split",
    }
    return Result(facts, numbers, shown)


def _points_per_row(subject: Subject, options: Options) -> int:
    count = min(options.points, len(subject.images) // 2)
    if count < FEWEST:
        raise UserError(
            f"Judging random points needs {2 * FEWEST} real images or more, but the "
            f"{options.split} split has {len(subject.images)}"
        )
    return count


def _rows_of_seed(
    key: jax.Array, codes: np.ndarray, fit_to: Seen
) -> tuple[list[Row], densities.MixtureChoice]:
    """Returns codes `[N, Z]` of images and as many random points of every kind."""
    reference_key, fitted_key = jax.random.split(key)
    reference = reference_rows(reference_key, *codes.shape)
    fitted, choice = fitted_rows(fitted_key, len(codes), fit_to.mean, fit_to.log_var)
    return [Row("encoded images", "codes", codes), *reference, *fitted], choice


def split_images(images: int, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns positions of `count` images to encode and of as many others to compare with."""
    order = np.random.default_rng(seed).permutation(images)
    return np.sort(order[:count]), np.sort(order[count : 2 * count])


def distances(real: np.ndarray, images: np.ndarray, key: jax.Array) -> dict[str, float]:
    """Returns distances of two sets of images that need no trained network.

    Args:
        real: `[N, H, W, C]` uint8.
        images: `[N, H, W, C]`, uint8 or in [0, 1].
        key: Typed random key of patches and directions.

    Returns:
        `sliced_wasserstein`, the mean over pyramid levels, which judges texture whatever the
        contrast; `sliced_wasserstein_contrast`, which judges contrast too; `frechet_pixels`, the
        squared Frechet distance of images averaged to 8 x 8 pixels: colour, contrast and layout.
        All are biased upwards for few images.
    """
    found = sliced_wasserstein(real, images, key, **FEWER)
    return {
        "sliced_wasserstein": found["mean"],
        "sliced_wasserstein_contrast": found["contrast_mean"],
        "frechet_pixels": frechet_distance(small_pixels(real), small_pixels(images)),
    }


def measure_points(
    subject: Subject, z: np.ndarray, labels: np.ndarray | None, real: np.ndarray, key: jax.Array
) -> tuple[dict[str, float], np.ndarray]:
    """Decodes points, judges the images, and encodes them again.

    Args:
        subject: The model and its images.
        z: `[N, Z]`.
        labels: `[N, L]`, what a conditional model is told with each point; None for others.
        real: `[N, H, W, C]` uint8, real images to compare with.
        key: Typed random key of distances, the same for all rows.

    Returns:
        `radius`, the mean of |z|; `distances`; `re_encoded`, the root-mean-square distance of
        E(D(z)) from z; `re_encoded_relative`, the same in units of the root-mean-square |z|. Also
        the images.
    """
    images = decode(subject.model, subject.variables, z, labels)
    again, _ = encode(subject.model, subject.variables, images, labels)
    z = z.astype(np.float64)
    moved = np.sqrt(np.mean(np.sum((again - z) ** 2, axis=1)))
    size = np.sqrt(np.mean(np.sum(z**2, axis=1)))
    figures = {
        "radius": float(np.linalg.norm(z, axis=1).mean()),
        **distances(real, images, key),
        "re_encoded": float(moved),
        "re_encoded_relative": float(moved / size),
    }
    return figures, images


def over_seeds(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Returns mean and `_std` over seeds (NaN for a single one) of every figure."""
    result = {}
    for name in found[0]:
        values = np.array([figures[name] for figures in found])
        result[name] = float(values.mean())
        result[f"{name}_std"] = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
    return result


# Showing.

MARKERS = {"codes": "*", "orthant": "o", "cube": "s", "normal": "D", "sphere": "^", "fitted": "P"}
KINDS = {
    "codes": "encoded images",
    "orthant": "uniform in (0, b)",
    "cube": "uniform in (-b, b)",
    "normal": "N(0, I)",
    "sphere": "sphere",
    "fitted": "fitted density",
}
PANELS = {
    "sliced_wasserstein": (
        "sliced Wasserstein distance",
        "Texture: distance of decoded points to real images, each set normalised.",
    ),
    "sliced_wasserstein_contrast": (
        "sliced Wasserstein, contrast kept",
        "The same with brightness and contrast: pale or burnt-out images count.",
    ),
    "frechet_pixels": (
        "Frechet distance in 8 x 8 pixels",
        "Colour and layout.",
    ),
    "re_encoded_relative": (
        "|E(D(z)) - z| / |z|",
        "Does the encoder return to the point that was decoded? 0 is the same point, 1 is as far "
        "off as the origin.",
    ),
}
COLUMNS = {
    "radius": ("|z|", "{:.1f}"),
    "sliced_wasserstein": ("sliced Wasserstein", "{:.3f}"),
    "sliced_wasserstein_contrast": ("with contrast", "{:.3f}"),
    "frechet_pixels": ("Frechet, 8 x 8 pixels", "{:.2f}"),
    "re_encoded": ("|E(D(z)) - z|", "{:.1f}"),
    "re_encoded_relative": ("of |z|", "{:.2f}"),
}


def page(results: Mapping[str, Result]) -> Page:
    """Returns the page of one or several runs: charts of all, then pictures and table of each.

    Args:
        results: Results by name of the run.
    """
    first = next(iter(results.values())).numbers
    lead = (
        f"{first['points']:,} random latent points of each kind were decoded with "
        f"{counted(len(first['seeds']), 'seed')} and compared with as many "
        "real images. "
        + " ".join(_finding(name, result.numbers) for name, result in results.items())
    )
    facts = {
        f"{name}, {key}": value
        for name, result in results.items()
        for key, value in result.facts.items()
    }
    pictures = [
        Picture(
            f"{metric.replace('_', '-')}-against-radius",
            _radius_chart(results, metric, title),
            f"{caption} Dotted: real images to real images. Bars are the deviation over seeds."
            if metric in first["floor"]
            else caption,
        )
        for metric, (title, caption) in PANELS.items()
    ]
    sections = [Section("Quality against radius", pictures=pictures)]
    return Page(
        "Decoded random points",
        lead,
        sections + [_run_section(name, result) for name, result in results.items()],
        facts,
    )


def _finding(name: str, numbers: Mapping[str, Any]) -> str:
    rows = {row["name"]: row for row in numbers["rows"]}
    key, floor = "sliced_wasserstein_contrast", numbers["floor"]["sliced_wasserstein_contrast"]
    times = {
        row: f"{rows[row][key] / floor:.1f}"
        for row in ("encoded images", "N(0, I)", "fitted Gaussian")
    }
    return (
        f"In {name}, decoded points of N(0, I) lie {times['N(0, I)']} times as far from real "
        "images as real images from each other (sliced Wasserstein distance, contrast kept), "
        f"points of a Gaussian fitted to its codes {times['fitted Gaussian']} times, "
        f"reconstructions {times['encoded images']} times."
    )


def _run_section(name: str, result: Result) -> Section:
    numbers = result.numbers
    law = stats.chi(numbers["z_dim"])
    within = posterior.log10_probability_within(1.0, numbers["z_dim"])
    tried = "; ".join(
        ", ".join(f"{size}: {nats:.1f}" for size, nats in choice["nats_per_point"].items())
        + f" (chosen: {choice['chosen']})"
        for choice in numbers["held_out"]
    )
    text = (
        f"Z = {numbers['z_dim']}, KL weight {numbers['kl_weight']:g}. Under N(0, I) the radius is "
        f"{law.mean():.1f} ± {law.std():.2f}, and P(|z| < 1) is 10^{within:.0f}. Encoded images "
        f"have |z| of {numbers['rows'][0]['radius']:.1f} on average. Held-out log-likelihood of "
        f"mixtures in nats per point, by components, for each seed: {tried}."
    )
    rows = [
        [row["name"], *(cell(row, key, form) for key, (_, form) in COLUMNS.items())]
        for row in [*numbers["rows"], {"name": "real images to real images"} | numbers["floor"]]
    ]
    caption = (
        f"Mean ± deviation over {counted(len(numbers['seeds']), 'seed')}, {numbers['points']:,} "
        "points and as many real images each. The last row is the floor: what a perfect model "
        "would reach."
    )
    table = Table(["points", *(title for title, _ in COLUMNS.values())], rows, caption)
    look = "Decoded points of each row, of the first seed. Which rows are images of the data?"
    sheet = labelled_sheet(result.shown, len(result.shown[0][1]))
    return Section(name, text, [Picture(f"points-{name}", sheet, look)], [table])


def cell(row: Mapping[str, Any], key: str, form: str) -> str:
    """Returns a figure of `over_seeds` and its spread as text; empty without the figure."""
    if key not in row:
        return ""
    return plus_minus(row[key], row[f"{key}_std"], form)


def _radius_chart(results: Mapping[str, Result], metric: str, title: str) -> Image.Image:
    """Draws one figure against the mean radius: a colour per run, a marker per kind of points."""
    figure, axes = new_chart(5, 4.4)
    axis, handles = axes[0, 0], []
    for number, (name, result) in enumerate(results.items()):
        colour, floor = COLOURS[number % len(COLOURS)], result.numbers["floor"]
        for kind, marker in MARKERS.items():
            some = [row for row in result.numbers["rows"] if row["kind"] == kind]
            line = "-" if len(some) > 2 else ""
            columns = ([row[key] for row in some] for key in ("radius", metric, f"{metric}_std"))
            axis.errorbar(*columns, fmt=line + marker, color=colour, ms=5, lw=0.8, capsize=2)
        handles.append(Line2D([], [], color=colour, label=name))
        if metric in floor:
            axis.axhline(floor[metric], color=colour, ls=":", lw=1)
    handles += [
        Line2D([], [], ls="", marker=marker, color="#555555", label=KINDS[kind])
        for kind, marker in MARKERS.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8)
    axis.set(xscale="log", xlabel="mean |z|", ylabel=title)
    if metric == "frechet_pixels":
        axis.set_yscale("log")
    return drawn(figure)
