"""The two pages of `experiments.latent_space`: what is computed for each and how it is shown."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.evaluate.subject import Seen, Subject, chosen_images
from vae_jax.latent import path_study, paths, posterior, radius
from vae_jax.latent.sampling import decode, prior_latents
from vae_jax.report.evaluation import embedded
from vae_jax.report.latent import (
    SMOOTHNESS_HEADER,
    block_chart,
    posterior_chart,
    scatter_chart,
    smoothness_rows,
    summary_rows,
)
from vae_jax.report.page import Section
from vae_jax.report.pictures import image_grid
from vae_jax.report.random_latents import labelled_sheet
from vae_jax.types import UserError

EXTENT = 2.5  # standard deviations that even steps of the manifold chart reach
SHOWN_PATHS, SHOWN_ATTRIBUTES, TRAVERSALS = 4, 6, 8
MOVED_IMAGES = 64


class Study(NamedTuple):
    """A subject, what its encoder made of it, and the seed of everything."""

    subject: Subject
    seen: Seen
    key: jax.Array
    seed: int

    def decode(self, z: np.ndarray) -> np.ndarray:
        """`[N, Z]` to images in [0, 1], a conditional model under the first image's condition."""
        labels = self.subject.labels
        labels = None if labels is None else np.tile(labels[:1], (len(z), 1))
        return decode(self.subject.model, self.subject.variables, z.astype(np.float32), labels)


def posterior_page(study: Study, grid: int) -> tuple[list[Section], dict[str, Any]]:
    """Sections, and the summary that goes to JSON."""
    mean, log_var = study.seen.mean, study.seen.log_var
    summary = posterior.summary(mean, log_var, study.key)
    z = np.asarray(posterior.sample(jnp.asarray(mean), jnp.asarray(log_var), study.key))
    radii, of_means = np.linalg.norm(z, axis=1), np.linalg.norm(mean, axis=1)
    places = np.linspace(0, max(radii.max(), 1.3 * mean.shape[1] ** 0.5), 400)
    density = np.gradient(np.asarray(radius.chi_cdf(places, mean.shape[1])), places)
    chart = posterior_chart(summary, radii, of_means, (places, density))
    offset, axes, names = _plane(mean, log_var)
    points = (mean - offset[None]) @ np.linalg.pinv(axes)
    groups, group_names = _groups(study.subject, points)
    even = offset[None] + np.asarray(paths.manifold_grid(grid, EXTENT)) @ axes
    quantile = offset[None] + np.asarray(paths.quantile_grid(grid)) @ axes
    sections = [
        Section("In numbers", header=("", "value"), rows=summary_rows(summary)),
        Section("Shape", picture=embedded(chart)),
        Section(
            "Means by label",
            f"Posterior means along {names[0]} and {names[1]}, in units of its deviation.",
            embedded(scatter_chart(points, groups, group_names, names)),
        ),
    ]
    for heading, z_grid, text in (
        ("Manifold, even steps", even, f"From {-EXTENT} to {EXTENT} deviations each way."),
        ("Manifold, equal probability", quantile, "At normal quantiles (i + 1/2) / n."),
    ):
        pictures = image_grid(study.decode(z_grid), grid)
        sections.append(Section(heading, text, embedded(pictures)))
    return sections, summary


def _plane(mean: np.ndarray, log_var: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[str, str]]:
    """Origin `[Z]`, two axes `[2, Z]` of one deviation each, and their names."""
    z_dim = mean.shape[1]
    if z_dim == 2:
        return np.zeros(2), np.eye(2), ("z 0", "z 1")
    offset, _, covariance = posterior.moments(mean, log_var)
    values, vectors = np.linalg.eigh(covariance)
    axes = np.sqrt(values[::-1][:2])[:, None] * vectors.T[::-1][:2]
    return offset, axes, ("principal component 1", "principal component 2")


def _groups(subject: Subject, points: np.ndarray) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Classes, or the attribute that the points `[N, 2]` separate best."""
    split = subject.split
    if split.labels is None:
        return None, ()
    if split.labels.ndim == 1:
        return split.labels, split.label_names
    table, names = path_study.label_table(split.labels, split.label_names)
    if not names:
        return None, ()
    shares = path_study.separation(points, table, paths.attribute_vectors(points, table))
    clearest = int(np.argmax(shares))
    return table[:, clearest], (f"not {names[clearest]}", names[clearest])


def paths_page(
    study: Study,
    pairs: int,
    steps: int,
    attributes: tuple[str, ...],
    joint: bool,
    strength: float,
) -> tuple[list[Section], dict[str, Any]]:
    """Sections, and the figures that go to JSON."""
    mean = study.seen.mean
    pairs = min(pairs, len(mean) // 2)
    chosen = chosen_images(2 * pairs, len(mean), study.seed)
    between = path_study.interpolate(
        study.decode, mean[chosen[:pairs]], mean[chosen[pairs:]], steps
    )
    ends = prior_latents(study.seed, 2 * pairs, mean.shape[1])
    prior = path_study.interpolate(study.decode, ends[:pairs], ends[pairs:], steps)
    sections = [
        _interpolation("Between encoded images", between, pairs),
        _interpolation("Between points of N(0, I)", prior, pairs),
    ]
    moved, changes = _components(study, chosen, steps)
    sections += moved
    figures = {
        "between_images": between.figures,
        "between_prior_points": prior.figures,
        "change_by_block": changes,
    }
    shown = _attributes(study, int(chosen[0]), attributes, joint, strength)
    if shown is not None:
        sections.append(shown[0])
        figures["attributes"] = shown[1]
    return sections, figures


def _interpolation(heading: str, result: path_study.Interpolation, pairs: int) -> Section:
    rows = [
        (f"{kind} {pair + 1}", images[pair])
        for pair in range(min(SHOWN_PATHS, pairs))
        for kind, images in result.images.items()
    ]
    sheet = labelled_sheet(rows, rows[0][1].shape[0])
    text = f"Figures are means over {pairs} pairs; a step is the RMS change of pixels in [0, 1]."
    return Section(
        heading, text, embedded(sheet), SMOOTHNESS_HEADER, smoothness_rows(result.figures)
    )


def _components(
    study: Study, chosen: np.ndarray, steps: int
) -> tuple[list[Section], dict[int, float]]:
    """Traversals of single components and of blocks, and the change by size of block."""
    mean, log_var = study.seen.mean, study.seen.log_var
    z_dim = mean.shape[1]
    deviation = float(np.sqrt(np.diag(posterior.moments(mean, log_var).covariance).mean()))
    values = jnp.linspace(-3, 3, steps) * deviation
    start = jnp.asarray(mean[chosen[0]])
    strongest = np.argsort(posterior.kl_per_dimension(mean, log_var))[::-1][:TRAVERSALS]
    single = np.asarray(paths.traversals(start, values, relative=True))[strongest]
    block = -(-z_dim // TRAVERSALS)
    blocks = np.asarray(paths.block_traversals(start, values, block, relative=True))
    rows = [(f"component {d}", study.decode(z)) for d, z in zip(strongest, single, strict=True)] + [
        (f"{i * block} to {min((i + 1) * block, z_dim) - 1}", study.decode(z))
        for i, z in enumerate(blocks)
    ]
    sizes = sorted({s for s in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512) if s < z_dim} | {z_dim})
    codes = mean[chosen[:MOVED_IMAGES]]
    changes = path_study.change_by_block(study.decode, codes, sizes, 2 * deviation, study.key)
    text = (
        f"From -3 to 3 deviations (one is {deviation:.3g}, the root of the mean variance of q(z)) "
        f"added to the {len(single)} components of largest KL, then to blocks of {block}."
    )
    return [
        Section("Moved components", text, embedded(labelled_sheet(rows, steps))),
        Section(
            "Change by size of block",
            f"Two deviations added to neighbouring components of {len(codes)} codes.",
            embedded(block_chart(changes)),
            ("components", "RMS change of pixels"),
            [[str(size), f"{change:.4f}"] for size, change in changes.items()],
        ),
    ], changes


def _attributes(
    study: Study, image: int, wanted: tuple[str, ...], joint: bool, strength: float
) -> tuple[Section, dict[str, float]] | None:
    """Attribute vectors added to one code; None where images have no labels."""
    split, mean = study.subject.split, study.seen.mean
    table, names = path_study.label_table(split.labels, split.label_names)
    unknown = set(wanted) - set(names)
    if unknown:
        raise UserError(
            f"--attributes: {sorted(unknown)[0]!r} is not an attribute that these images differ "
            f"in; valid are {', '.join(names) or 'none'}"
        )
    if not names:
        return None
    vectors = paths.attribute_vectors(mean, table, joint)
    shares = path_study.separation(mean, table, vectors)
    clearest = [names[i] for i in np.argsort(shares)[::-1][:SHOWN_ATTRIBUTES]]
    strengths = np.linspace(-strength, strength, 9)
    rows = []
    for name in wanted or clearest:
        vector = vectors[names.index(name)]
        z = mean[image][None] + strengths[:, None] * vector[None]
        rows.append((name, study.decode(z)))
    text = (
        f"Image {image} plus each attribute's vector times {-strength:g} to {strength:g}. The "
        "share of images on the right side of the plane halfway along the vector is in the table: "
        "0.5 is chance."
    )
    found = {name: float(share) for name, share in zip(names, shares, strict=True)}
    table_rows = [[name, f"{share:.3f}"] for name, share in found.items()]
    sheet = embedded(labelled_sheet(rows, len(strengths)))
    return Section("Attributes", text, sheet, ("attribute", "share"), table_rows), found
