"""Paths through latent space: between points, along components, along attributes.

How evenly does the image change on the way, how much does it change with one component, and do
labels have directions? The codes are those of images of a trained model; everything follows from
(checkpoint, seed).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from PIL import Image

from vae_jax.metrics import posterior
from vae_jax.metrics.attribute_directions import (
    attribute_vectors,
    halves,
    label_table,
    separation,
)
from vae_jax.metrics.bounds import standard_error
from vae_jax.metrics.latent_paths import linear, moved_blocks, smoothness, spherical
from vae_jax.models.vae import VAE
from vae_jax.progress import track
from vae_jax.report.charts import COLOURS, drawn, new_chart
from vae_jax.report.page import Page, Picture, Section, Table, plus_minus
from vae_jax.report.pictures import labelled_sheet
from vae_jax.run import Run, prior_latents
from vae_jax.streams import make_key
from vae_jax.subject import Subject, chosen_images, decode_points, encode_subject, open_subject
from vae_jax.types import UserError

SHOWN_PATHS, SHOWN_ATTRIBUTES, TRAVERSALS = 4, 6, 8
MOVED_IMAGES, STRENGTHS = 64, 9
Decode = Callable[[np.ndarray], np.ndarray]
Strips = list[tuple[str, np.ndarray]]  # names and pictures `[T, H, W, C]` in [0, 1]


@dataclass(frozen=True)
class Options:
    """What is measured and shown.

    Attributes:
        split: Images that are encoded: 'test' or 'train'.
        count: Number of images, at most; 0 for all.
        seed: Seed of choices and places.
        pairs: Pairs of points to interpolate.
        steps: Points of a path.
        attributes: Names of attributes to show; empty for those that are separated best.
        joint: Whether to separate attributes that occur together, see `attribute_vectors`.
        strength: Largest multiple of an attribute's vector.
    """

    split: str = "test"
    count: int = 10_000
    seed: int = 0
    pairs: int = 32
    steps: int = 10
    attributes: tuple[str, ...] = ()
    joint: bool = False
    strength: float = 2.0


@dataclass(frozen=True)
class Result:
    """What was found.

    Attributes:
        facts: Checkpoint, split and seed.
        numbers: `between_images` and `between_prior_points`, see `interpolate`; `change_by_block`,
            see `change_by_block`; `deviation`, the root of the mean variance of q(z); `attributes`,
            by attribute the `share` of codes on the right side of its plane and its
            `standard_error`.
        between_images: Paths between encoded images.
        between_prior_points: Paths between points of N(0, I).
        components: One code with single components moved, then with blocks of components.
        attributes: One code with multiples of attributes' vectors added.
        strength: The largest of these multiples.
    """

    facts: dict[str, str]
    numbers: dict[str, Any]
    between_images: Strips = field(repr=False)
    between_prior_points: Strips = field(repr=False)
    components: Strips = field(repr=False)
    attributes: Strips = field(repr=False)
    strength: float = 0.0


# Measuring.


def interpolate(
    decode: Decode, starts: np.ndarray, ends: np.ndarray, steps: int
) -> tuple[dict[str, np.ndarray], dict[str, dict[str, float]]]:
    """Decodes linear and spherical paths and measures how evenly images change.

    Args:
        decode: Function of points `[N, Z]` that returns images `[N, H, W, C]` in [0, 1].
        starts: `[P, Z]`.
        ends: `[P, Z]`.
        steps: T, at least 3.

    Returns:
        By kind of path: images `[P, T, H, W, C]`, where `cross-fade` mixes the decoded ends pixel
        by pixel; and means over pairs, each with its `_standard_error`, of `smoothness` and of
        `least_radius`, the smallest |z| on the way over the mean |z| of the ends.
    """
    images, measured = {}, {}
    size = (np.linalg.norm(starts, axis=1) + np.linalg.norm(ends, axis=1)) / 2
    kinds = {"linear": linear, "spherical": spherical}
    for kind in track(kinds, len(kinds), "Interpolating", "kinds of path"):
        z = kinds[kind](starts, ends, steps)
        decoded = decode(z.reshape(-1, z.shape[-1]))
        images[kind] = decoded.reshape(*z.shape[:2], *decoded.shape[1:])
        least = np.linalg.norm(z, axis=-1).min(axis=1) / np.maximum(size, 1e-12)
        measured[kind] = smoothness(images[kind]) | {"least_radius": least}
    t = np.linspace(0, 1, steps, dtype=np.float32).reshape(1, -1, 1, 1, 1)
    images["cross-fade"] = (1 - t) * images["linear"][:, :1] + t * images["linear"][:, -1:]
    measured["cross-fade"] = smoothness(images["cross-fade"])
    figures = {
        kind: {k: v for name, each in values.items() for k, v in _mean(name, each).items()}
        for kind, values in measured.items()
    }
    return images, figures


def _mean(name: str, values: np.ndarray) -> dict[str, float]:
    """Returns the mean of the finite values and its standard error."""
    values = values[np.isfinite(values)]
    if not len(values):
        return {name: np.nan, f"{name}_standard_error": np.nan}
    return {name: float(values.mean()), f"{name}_standard_error": standard_error(values)}


def change_by_block(
    decode: Decode, z: np.ndarray, sizes: Sequence[int], amount: float, key: jax.Array
) -> dict[int, dict[str, float]]:
    """Measures how much an image changes when some components of its code move together.

    Args:
        decode: Function of points `[N, Z]` that returns images `[N, H, W, C]` in [0, 1].
        z: `[N, Z]` codes.
        sizes: Sizes of blocks, at most Z components; each code has a random block of neighbours.
        amount: What is added to every component of the block.
        key: Typed random key of the places of the blocks.

    Returns:
        By size, the `change`: mean over images of the root-mean-square change of pixels in [0, 1],
        and its `_standard_error`.
    """
    still, z_dim = decode(z), z.shape[1]
    changes = {}
    for number, size in enumerate(track(list(sizes), len(sizes), "Moving blocks", "sizes")):
        place = jax.random.fold_in(key, number)
        first = np.asarray(jax.random.randint(place, (len(z), 1), 0, z_dim - size + 1, np.int32))
        inside = (np.arange(z_dim)[None] >= first) & (np.arange(z_dim)[None] < first + size)
        moved = decode((z + amount * inside).astype(np.float32))
        errors = np.mean((moved - still) ** 2, axis=(1, 2, 3), dtype=np.float64)
        changes[int(size)] = _mean("change", np.sqrt(errors))
    return changes


def measure(run: Run[VAE], options: Options) -> Result:
    """Decodes paths of every kind and measures them.

    Args:
        run: A run opened by `open_run`.
        options: What to measure and show.

    Raises:
        UserError: Fewer than four images, or an attribute that they do not differ in.
    """
    subject = open_subject(run, options.split, options.count)
    if len(subject.images) < 4:
        raise UserError(f"Paths need 4 images or more, but there are {len(subject.images)}")
    seen, seed, steps = encode_subject(subject), options.seed, options.steps
    mean = seen.mean
    _check_attributes(subject, options.attributes)

    def decode(z: np.ndarray) -> np.ndarray:
        return decode_points(subject, z)

    pairs = min(options.pairs, len(mean) // 2)
    chosen = chosen_images(2 * pairs, len(mean), seed)
    between, figures = interpolate(decode, mean[chosen[:pairs]], mean[chosen[pairs:]], steps)
    ends = prior_latents(seed, 2 * pairs, mean.shape[1])
    prior, prior_figures = interpolate(decode, ends[:pairs], ends[pairs:], steps)
    deviation = float(np.sqrt(np.diag(posterior.moments(mean, seen.log_var).covariance).mean()))
    order = np.argsort(posterior.kl_per_dimension(mean, seen.log_var))[::-1]
    components = _components(decode, mean[chosen[0]], order, deviation, steps)
    z_dim = mean.shape[1]
    sizes = sorted({2**k for k in range(10) if 2**k < z_dim} | {z_dim})
    codes = mean[chosen_images(MOVED_IMAGES, len(mean), seed)]
    changes = change_by_block(decode, codes, sizes, 2 * deviation, make_key(seed))
    shown, attributes = _attributes(subject, mean, int(chosen[0]), options)
    numbers = {
        "pairs": pairs,
        "between_images": figures,
        "between_prior_points": prior_figures,
        "deviation": deviation,
        "moved_images": len(codes),
        "change_by_block": changes,
        "attributes": attributes,
    }
    facts = run.provenance | {
        "split": options.split,
        "images": f"{len(mean):,}",
        "seed": str(seed),
        "shown image": str(chosen[0]),
    }
    return Result(
        facts, numbers, _strips(between), _strips(prior), components, shown, options.strength
    )


def _strips(images: dict[str, np.ndarray]) -> Strips:
    """Returns the first paths of every kind, those of one pair below each other."""
    pairs = min(SHOWN_PATHS, len(images["linear"]))
    return [
        (f"{kind} {pair + 1}", some[pair]) for pair in range(pairs) for kind, some in images.items()
    ]


def _components(
    decode: Decode, start: np.ndarray, order: np.ndarray, deviation: float, steps: int
) -> Strips:
    """Moves the components of largest KL of a code one by one, then blocks of components."""
    values = np.linspace(-3, 3, steps) * deviation
    strongest = order[:TRAVERSALS]
    single = moved_blocks(start, values, 1)[strongest]
    block = -(-len(start) // TRAVERSALS)
    blocks = moved_blocks(start, values, block)
    ends = [(i * block, min((i + 1) * block, len(start)) - 1) for i in range(len(blocks))]
    names = [f"component {d}" for d in strongest] + [f"{a} to {b}" for a, b in ends]
    return [(name, decode(z)) for name, z in zip(names, [*single, *blocks], strict=True)]


def _check_attributes(subject: Subject, wanted: Sequence[str]) -> None:
    _, names = label_table(subject.split.labels, subject.split.label_names)
    unknown = sorted(set(wanted) - set(names))
    if unknown:
        raise UserError(
            f"--attributes: {unknown[0]!r} is not an attribute that these images differ in; valid "
            f"are {', '.join(names) or 'none'}"
        )


def _attributes(
    subject: Subject, mean: np.ndarray, image: int, options: Options
) -> tuple[Strips, dict[str, dict[str, float]]]:
    """Adds attribute vectors to one code; also returns how well they separate held-out images."""
    table, names = label_table(subject.split.labels, subject.split.label_names)
    if not names:
        return [], {}
    fit, judge = halves(len(mean), options.seed)
    found = separation((mean[fit], table[fit]), (mean[judge], table[judge]), options.joint)
    # Those that are shown are chosen within the half that planes are fitted to; the other judges.
    inner, outer = (fit[part] for part in halves(len(fit), options.seed))
    ranked = separation((mean[inner], table[inner]), (mean[outer], table[outer]), options.joint)
    clearest = np.argsort(-np.nan_to_num(ranked.shares))[:SHOWN_ATTRIBUTES]
    vectors = attribute_vectors(mean, table, options.joint)
    strengths = np.linspace(-options.strength, options.strength, STRENGTHS)
    strips = []
    for name in options.attributes or [names[i] for i in clearest]:
        z = mean[image][None] + strengths[:, None] * vectors[names.index(name)][None]
        strips.append((name, decode_points(subject, z)))
    shares = zip(names, found.shares, found.errors, strict=True)
    return strips, {
        name: {"share": float(share), "standard_error": float(error)}
        for name, share, error in shares
    }


# Showing.

SMOOTHNESS = {
    "mean_step": ("mean step", "{:.4f}"),
    "jump": ("largest / mean step", "{:.2f}"),
    "path_length": ("length / distance of the ends", "{:.2f}"),
    "second_difference": ("second / first difference", "{:.2f}"),
    "least_radius": ("least |z| on the way / |z| of the ends", "{:.2f}"),
}


def page(result: Result) -> Page:
    """Returns the page: interpolations, moved components, and attributes if there are labels."""
    numbers, between = result.numbers, result.numbers["between_images"]
    changes = numbers["change_by_block"]
    least, most = changes[min(changes)]["change"], changes[max(changes)]["change"]
    lead = (
        f"Codes of {result.facts['images']} images of the {result.facts['split']} split were "
        "connected by paths, moved and decoded. A straight path between two images is "
        f"{between['linear']['path_length']:.2f} times as long, in pixels, as a cross-fade of its "
        f"ends, a spherical one {between['spherical']['path_length']:.2f} times. Two deviations "
        f"added to one component change pixels by {least:.3f}, to all of them by {most:.3f} (root "
        "mean square, on [0, 1])."
    )
    sections = [
        _interpolation("Between encoded images", "images", result.between_images, result),
        _interpolation(
            "Between points of N(0, I)", "prior_points", result.between_prior_points, result
        ),
        _component_section(result),
    ]
    if result.attributes:
        sections.append(_attribute_section(result))
    return Page("Paths through latent space", lead, sections, result.facts)


def _interpolation(heading: str, name: str, strips: Strips, result: Result) -> Section:
    rows = [
        [kind] + [_cell(figures, key, form) for key, (_, form) in SMOOTHNESS.items()]
        for kind, figures in result.numbers[f"between_{name}"].items()
    ]
    caption = (
        f"Means over {result.numbers['pairs']} pairs and their standard errors. A step is the "
        "root-mean-square change of pixels in [0, 1]. A cross-fade of the ends is the floor: "
        "length 1, no second difference."
    )
    table = Table(["path", *(text for text, _ in SMOOTHNESS.values())], rows, caption)
    look = (
        "Each pair of points: the straight path, the spherical one, and the cross-fade of the "
        "decoded ends. Does every image on the way belong to the data, and do both change evenly?"
    )
    sheet = labelled_sheet(strips, len(strips[0][1]))
    return Section(
        heading, "", [Picture(f"between-{name.replace('_', '-')}", sheet, look)], [table]
    )


def _cell(figures: dict[str, float], key: str, form: str) -> str:
    if key not in figures:
        return ""
    return plus_minus(figures[key], figures[f"{key}_standard_error"], form)


def _component_section(result: Result) -> Section:
    changes, strips = result.numbers["change_by_block"], result.components
    block = [name for name, _ in strips if not name.startswith("component")]
    text = (
        f"Image {result.facts['shown image']} with -3 to 3 deviations (one is "
        f"{result.numbers['deviation']:.3g}, the root of the mean variance of q(z)) added to the "
        f"{len(strips) - len(block)} components of largest KL one by one, then to {len(block)} "
        "blocks of neighbouring components."
    )
    rows = [[str(size), _cell(row, "change", "{:.4f}")] for size, row in changes.items()]
    caption = (
        f"Two deviations added to neighbouring components of {result.numbers['moved_images']} "
        "codes: mean change of pixels in [0, 1], root mean square, ± its standard error."
    )
    pictures = [
        Picture(
            "components",
            labelled_sheet(strips, len(strips[0][1])),
            "The image itself is in the middle of each row. Which rows change it at all?",
        ),
        Picture(
            "change-by-block",
            _block_chart(changes),
            "The more components move together, the more the image changes.",
        ),
    ]
    table = Table(("components moved", "change of pixels"), rows, caption)
    return Section("Moved components", text, pictures, [table])


def _block_chart(changes: dict[int, dict[str, float]]) -> Image.Image:
    """Draws the mean change of an image against how many components were moved."""
    figure, axes = new_chart(5.5, 3.5)
    axis = axes[0, 0]
    values = [row["change"] for row in changes.values()]
    errors = [row["change_standard_error"] for row in changes.values()]
    axis.errorbar(list(changes), values, errors, fmt="o-", capsize=2, color=COLOURS[0])
    axis.set(
        xlabel="components moved together",
        ylabel="change of pixels in [0, 1] (root mean square)",
        xscale="log",
        ylim=(0, None),
    )
    axis.set_xticks(list(changes), [str(size) for size in changes])
    axis.minorticks_off()
    return drawn(figure)


def _attribute_section(result: Result) -> Section:
    strength = f"{result.strength:g}"
    caption = (
        f"Image {result.facts['shown image']} plus -{strength} to {strength} times the vector of "
        "each attribute, the mean code with it minus the mean code without it. The middle column "
        "is the image itself: does the attribute appear on the right and disappear on the left? "
        "What else changes?"
    )
    rows = [
        [name, plus_minus(found["share"], found["standard_error"], "{:.3f}")]
        for name, found in sorted(
            result.numbers["attributes"].items(), key=lambda item: -np.nan_to_num(item[1]["share"])
        )
    ]
    text = (
        "A plane halfway along each vector was fitted to one half of the images and judged by the "
        "other: the share of images on the right side of it, averaged over those with and without "
        "the attribute. 0.5 is chance, 1 separates all; nan where too few images differ."
    )
    sheet = labelled_sheet(result.attributes, STRENGTHS)
    table = Table(("attribute", "share on the right side"), rows, "± is the standard error.")
    return Section("Attributes", text, [Picture("attributes", sheet, caption)], [table])
