"""The page of paths through latent space: between points, along components, along attributes."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from vae_jax.latent import path_study, paths
from vae_jax.metrics import posterior
from vae_jax.pages.latent_study import LatentStudy
from vae_jax.report.evaluation import embedded
from vae_jax.report.latent import SMOOTHNESS_HEADER, block_chart, smoothness_rows
from vae_jax.report.plain_page import Section
from vae_jax.report.random_latents import labelled_sheet
from vae_jax.run import chosen_images, prior_latents
from vae_jax.types import UserError

SHOWN_PATHS, SHOWN_ATTRIBUTES, TRAVERSALS = 4, 6, 8
MOVED_IMAGES = 64


def paths_page(
    study: LatentStudy,
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
    study: LatentStudy, chosen: np.ndarray, steps: int
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
    study: LatentStudy, image: int, wanted: tuple[str, ...], joint: bool, strength: float
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
