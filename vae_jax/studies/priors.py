"""Priors of one model, side by side: N(0, I) and densities that were fitted to its codes.

All priors are drawn from with the same seeds and judged by the same images. Two more rows show what
a prior can reach: decoded codes of training images, and real images against other real images.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from vae_jax.metrics.feature_distances import (
    FEWEST,
    compare_features,
    distance_chunks,
    small_pixels,
)
from vae_jax.metrics.sliced_wasserstein import FEWER, sliced_wasserstein
from vae_jax.models.vae import VAE
from vae_jax.priors.fitted import NORMAL, TITLES, Codes, Prior, codes_of, draw
from vae_jax.progress import progress
from vae_jax.report.charts import COLOURS, drawn, new_chart
from vae_jax.report.page import Page, Picture, Section, Table, counted
from vae_jax.report.pictures import labelled_sheet
from vae_jax.run import Run, decode, run_splits
from vae_jax.streams import make_key
from vae_jax.studies.feature_spaces import SPACES, Space, feature_spaces
from vae_jax.studies.random_latents import cell, over_seeds, split_images
from vae_jax.subject import LabelledImages, open_subject
from vae_jax.types import UserError

CODES, REAL = "decoded codes", "real images"


@dataclass(frozen=True)
class Options:
    """What is compared.

    Attributes:
        points: Images per row, at most; and at most half as many as there are test images.
        seeds: Number of seeds that points, real images and directions are drawn with.
        seed: First of the seeds.
        columns: Images of a row that are shown.
        classifier: Run folder of a classifier of the same images, for its features; empty for none.
    """

    points: int = 1000
    seeds: int = 5
    seed: int = 0
    columns: int = 10
    classifier: str = ""


@dataclass(frozen=True)
class Result:
    """What was found.

    Attributes:
        facts: Checkpoint, counts and seeds.
        numbers: `points` per row, `seeds`, `kl_weight`, `z_dim`, `levels` of the pyramid, `spaces`
            of features; `priors`, how each was fitted; and `rows`, one for every prior, for `CODES`
            and for `REAL`, with `name` and the figures of `compared`, means over seeds and `_std`.
        shown: Name of each row and its first images `[N, H, W, C]` in [0, 1], of the first seed.
    """

    facts: dict[str, str]
    numbers: dict[str, Any]
    shown: list[tuple[str, np.ndarray]] = field(repr=False)


# Measuring.


def measure(run: Run[VAE], priors: Sequence[Prior], options: Options) -> Result:
    """Draws from every prior with every seed, decodes, and judges the images.

    Args:
        run: A run opened by `open_run`.
        priors: Priors of the run, N(0, I) first.
        options: What to compare.

    Raises:
        UserError: Fewer than 16 test images, or a classifier of other images.
    """
    spaces = feature_spaces(run, classifier=options.classifier)
    subject, train = open_subject(run), run_splits(run).train
    count = min(options.points, len(subject.images) // 2, len(train))
    if count < FEWEST:
        raise UserError(
            f"comparing priors needs {2 * FEWEST} test images and {FEWEST} training images or "
            f"more, but there are {len(subject.images)} and {len(train)}"
        )
    codes, unseen = codes_of(run, train, options.seed), codes_of(run, subject.split, options.seed)
    usual = nearest(unseen.z, codes.z)
    found: dict[str, list[dict[str, float]]] = {}
    seeds, shown = range(options.seed, options.seed + options.seeds), []
    with progress((len(priors) + 2) * len(seeds), "Comparing priors", "rows") as advance:
        for seed in seeds:
            own, others = split_images(len(subject.images), count, seed)
            real, same = (
                LabelledImages(subject.images[rows], _at(subject.labels, rows))
                for rows in (others, own)
            )
            seen = np.sort(np.random.default_rng(seed).permutation(len(train))[:count])
            some = Codes(codes.z[seen], _at(codes.labels, seen))
            for name, z, fake, seconds in _rows(run, priors, seed, some, same):
                figures = compared(real, fake, seed, spaces)
                figures |= replayed(fake.images, train.take(seen), real.images)
                if z is not None:
                    figures["nearest_code"] = nearest(z, codes.z) / usual
                if seconds is not None:
                    figures["draw_seconds"] = seconds
                found.setdefault(name, []).append(figures)
                if seed == options.seed:
                    shown.append((name, np.asarray(fake.images[: options.columns])))
                advance(1, name)
    rows = [{"name": name} | over_seeds(each) for name, each in found.items()]
    levels = [name for name in rows[0] if name.startswith("sliced_wasserstein_") and "x" in name]
    numbers = {
        "points": count,
        "seeds": list(seeds),
        "z_dim": run.model.z_dim,
        "kl_weight": float(run.config.loss.kl_weight),
        "levels": [name for name in levels if not name.endswith("_std")],
        "spaces": list(spaces),
        "priors": {prior.name: {"kind": prior.kind} | prior.facts for prior in priors},
        "rows": rows,
    }
    facts = run.provenance | {
        "images per row": f"{count:,}",
        "seeds": ", ".join(map(str, seeds)),
        "classifier": options.classifier or "none",
    }
    shown = [(name, images / (255.0 if images.dtype == np.uint8 else 1)) for name, images in shown]
    return Result(facts, numbers, shown)


def _rows(
    run: Run[VAE], priors: Sequence[Prior], seed: int, codes: Codes, real: LabelledImages
) -> Iterator[tuple[str, np.ndarray | None, LabelledImages, float | None]]:
    """Yields name, points, images and seconds of drawing of every row; None where there are none.

    Args:
        run: The model.
        priors: The priors, which are drawn from with the labels of the real images.
        seed: Seed of the draws.
        codes: As many codes of training images.
        real: Real images.
    """
    for prior in priors:
        began = time.perf_counter()
        z = draw(prior, seed, len(real.images), real.labels)
        seconds = time.perf_counter() - began
        images = decode(run.model, run.variables, z, real.labels)
        yield prior.name, z, LabelledImages(images, real.labels), seconds
    images = decode(run.model, run.variables, codes.z, codes.labels)
    yield CODES, codes.z, LabelledImages(images, codes.labels), None
    yield REAL, None, real, None


def _at(labels: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    return None if labels is None else labels[rows]


def compared(
    real: LabelledImages, fake: LabelledImages, seed: int, spaces: Mapping[str, Space]
) -> dict[str, float]:
    """Returns `sliced_wasserstein`, by level too, and SPACE_FIGURE of `compare_features`."""
    key = make_key(seed)
    distance = sliced_wasserstein(real.images, fake.images, key, keep_contrast=False, **FEWER)
    figures = {"sliced_wasserstein": distance["mean"]}
    figures |= {f"sliced_wasserstein_{name}": v for name, v in distance["levels"].items()}
    for space, features in spaces.items():
        pair = features(real.images, real.labels), features(fake.images, fake.labels)
        figures |= {f"{space}_{name}": v for name, v in compare_features(*pair).items()}
    return figures


def replayed(images: np.ndarray, train: np.ndarray, held_out: np.ndarray) -> dict[str, float]:
    """Returns how much nearer images are to training images than to as many held-out ones.

    Args:
        images: `[N, H, W, C]`, images that a model made.
        train: `[M, H, W, C]`, images that it was trained on.
        held_out: `[M, H, W, C]`, images that it was not trained on.

    Returns:
        `nearest_image`, the mean distance to the nearest training image over that to the nearest
        held-out image, in 8 x 8 pixels: 1 if neither are nearer, 0 if training images are
        repeated.
    """
    features = small_pixels(images)
    ours, theirs = (nearest(features, small_pixels(part)) for part in (train, held_out))
    return {"nearest_image": ours / theirs}


def nearest(points: np.ndarray, others: np.ndarray) -> float:
    """Returns the mean over points `[N, F]` of the distance to the nearest of `others` `[M, F]`."""
    points, others = points.astype(np.float64), others.astype(np.float64)
    found = [np.sqrt(squares.min(axis=1)) for _, squares in distance_chunks(points, others)]
    return float(np.concatenate(found).mean())


# Showing.

DISTANCES = {"sliced_wasserstein": "sliced Wasserstein"}
IN_SPACE = ("frechet_distance", "precision", "recall", "density", "coverage")


def page(result: Result) -> Page:
    """Returns the page: pictures of one seed, charts, and tables with floors and spreads."""
    numbers = result.numbers
    rows = {row["name"]: row for row in numbers["rows"]}
    distances = DISTANCES | {
        f"{space}_frechet_distance": f"Frechet, {SPACES[space]}" for space in numbers["spaces"]
    }
    look = (
        "Column i of every prior is drawn with the same key. Decoded codes are draws of the "
        "posteriors of training images."
    )
    sheet = labelled_sheet(result.shown, len(result.shown[0][1]))
    chart = "Distance from test images; bars are the deviation over seeds, dashed: real to real."
    sections = [
        Section("Samples of one seed", pictures=[Picture("samples", sheet, look)]),
        Section(
            "How near to real images",
            f"{numbers['points']:,} images per row and {counted(len(numbers['seeds']), 'seed')}.",
            [Picture("distances", _chart(rows, distances), chart)],
            [_gap_table(rows, distances), _table(rows, _level_titles(numbers), "{:.4f}")],
        ),
    ]
    for space in numbers["spaces"]:
        titles = {f"{space}_{name}": name.replace("_", " ") for name in IN_SPACE}
        text = (
            "Frechet distance: lower is better. Precision: share of samples near real images; "
            "recall: share of real images near samples; density and coverage: the same, but with "
            "balls around real images alone. The floor is real images against others."
        )
        if space == "encoder_mean":
            text += " This is the model's own encoder: models cannot be ranked by it."
        sections.append(
            Section(
                f"Features: {SPACES[space]}",
                text,
                tables=[_table(rows, titles, "{:.3f}")],
            )
        )
    titles = {
        "nearest_image": "nearest image: training over held-out",
        "nearest_code": "nearest training code: points over codes of test images",
    }
    memory = (
        "Are training images repeated? The distance to the nearest training image over that to the "
        "nearest of as many held-out images, in 8 x 8 pixels, should be 1. The distance of points "
        "to the nearest training code over that of the codes of test images should be 1, too; it "
        "is 0 for points that are training codes."
    )
    sections.append(Section("Memorisation", memory, tables=[_table(rows, titles, "{:.3f}")]))
    sections.append(Section("How they were fitted", tables=[_fitting_table(numbers, rows)]))
    return Page("Priors", _lead(rows, distances), sections, result.facts)


def _level_titles(numbers: Mapping[str, Any]) -> dict[str, str]:
    return {"sliced_wasserstein": "sliced Wasserstein, mean"} | {
        name: name.rsplit("_", 1)[1] for name in numbers["levels"]
    }


def _fitted(rows: Mapping[str, Any]) -> list[str]:
    return [name for name in rows if name not in (NORMAL, CODES, REAL)]


def closed(rows: Mapping[str, Mapping[str, float]], name: str, figure: str) -> float | None:
    """Returns the share of the gap from N(0, I) to decoded codes that a prior closes."""
    normal, codes = rows[NORMAL][figure], rows[CODES][figure]
    return None if normal <= codes else (normal - rows[name][figure]) / (normal - codes)


def _lead(rows: Mapping[str, Any], distances: Mapping[str, str]) -> str:
    sentences = [
        "Points of N(0, I) and of priors that were fitted to the codes of training images were "
        "decoded, with the same seeds, and compared with test images. Distances, each with the "
        "nearest fitted prior, and the share that it closes of the gap between N(0, I) and decoded "
        "codes:"
    ]
    for figure, title in distances.items():
        best = min(_fitted(rows), key=lambda name: rows[name][figure])
        share = closed(rows, best, figure)
        end = "" if share is None else f", which closes {share:.0%} of the gap"
        sentences.append(
            f"{title}: {rows[NORMAL][figure]:.3g} from N(0, I), {rows[best][figure]:.3g} from the "
            f"prior {best}{end}, {rows[CODES][figure]:.3g} for decoded codes."
        )
    return " ".join(sentences)


def _table(rows: Mapping[str, Any], titles: Mapping[str, str], form: str) -> Table:
    body = [[name, *(cell(row, key, form) for key in titles)] for name, row in rows.items()]
    return Table(["", *titles.values()], body, "Mean ± deviation over seeds.")


def _gap_table(rows: Mapping[str, Any], distances: Mapping[str, str]) -> Table:
    body = []
    for name in _fitted(rows):
        shares = [closed(rows, name, figure) for figure in distances]
        body.append([name, *("–" if share is None else f"{share:.0%}" for share in shares)])
    caption = "Share of the gap from N(0, I) to decoded codes that is closed; – if there is no gap."
    return Table(["gap closed", *distances.values()], body, caption)


def _fitting_table(numbers: Mapping[str, Any], rows: Mapping[str, Any]) -> Table:
    body = []
    for name, facts in numbers["priors"].items():
        chosen = {key: facts[key] for key in ("components", "steps") if key in facts}
        judged = next((key for key in facts if key.startswith("held_out_")), "")
        body.append([
            name,
            TITLES.get(facts["kind"], "N(0, I)"),
            ", ".join(f"{value:,} {key}" for key, value in chosen.items()),
            f"{facts[judged]:.4g} ({judged[9:]})" if judged else "",
            f"{facts.get('seconds', 0):.1f} s",
            cell(rows[name], "draw_seconds", "{:.2f}") + " s",
        ])  # fmt: skip
    header = ("", "kind", "chosen", "held out", "fitted in", f"{numbers['points']:,} drawn in")
    return Table(header, body, "Held out: log-likelihood in nats per point, or the loss.")


def _chart(rows: Mapping[str, Any], distances: Mapping[str, str]) -> Image.Image:
    """Draws one panel per distance with one bar per row."""
    names = [name for name in rows if name != REAL]
    figure, panels = new_chart(3.2 * len(distances), 3.4, columns=len(distances))
    colours = {name: COLOURS[k % len(COLOURS)] for k, name in enumerate(names)}
    for axes, (key, title) in zip(panels.flat, distances.items(), strict=True):
        values = [rows[name][key] for name in names]
        bars = np.nan_to_num([rows[name][f"{key}_std"] for name in names])
        places = range(len(names))
        axes.bar(places, values, yerr=bars, color=[colours[name] for name in names], width=0.7)
        axes.axhline(rows[REAL][key], color="0.4", linestyle="--", linewidth=1)
        axes.set_xticks(places, names, rotation=40, ha="right")
        axes.set_title(title)
    return drawn(figure)
