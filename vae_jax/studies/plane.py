"""The plane of a told model: all its KL weights and latent sizes, from one training.

A model that is told KL weight and latent size takes the place of a whole sweep. Its cells are
measured as the members of a sweep are, with the same draws, and have the same figures, so that both
can be shown in one report. If a sweep is given, the page also shows the gap to each of its cells,
see `plane_gaps`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from PIL import Image

from vae_jax import config as configs
from vae_jax.data.feeds import Feed
from vae_jax.data.inputs import make_input_stage
from vae_jax.data.splits import Splits
from vae_jax.losses import Objective
from vae_jax.metrics import posterior
from vae_jax.metrics.feature_distances import small_pixels
from vae_jax.models.told import Pair
from vae_jax.models.vae import VAE
from vae_jax.priors.fitted import normal_prior
from vae_jax.progress import track
from vae_jax.report.charts import STAR, heat_map
from vae_jax.report.page import Page, Picture, Section, counted
from vae_jax.report.pictures import labelled_sheet
from vae_jax.run import Run, run_at, run_splits
from vae_jax.run_folder import read_rows
from vae_jax.streams import make_key, stream_key
from vae_jax.studies import ablation
from vae_jax.studies.cells import (
    FIGURES,
    OBJECTIVE,
    QUALITY,
    Cell,
    choose,
    figures_table,
    make_cells,
    verdict_table,
)
from vae_jax.studies.plane_gaps import (
    CellGap,
    check_comparable,
    find_gaps,
    gap_sections,
    gap_sentence,
)
from vae_jax.studies.sweep_measurement import (
    floor_figures,
    held_out_figures,
    image_counts,
    origin,
    posterior_figures,
    prior_samples,
    set_figures,
)
from vae_jax.studies.sweep_results import (
    Figures,
    MeasuredMember,
    MeasuredSweep,
    in_order,
    read_results,
)
from vae_jax.train.engine import pad_latent
from vae_jax.train.epoch import EpochMeans, Pace, compiled_steps, run_epoch
from vae_jax.train.evaluation_steps import EvalCarry, make_eval_step
from vae_jax.train.rows import complete_row, with_one_sigma
from vae_jax.train.state import Hyper
from vae_jax.train.validation import make_feeds
from vae_jax.types import UserError

WEIGHTS = 5  # KL weights of the plane, at equal ratios
SPACES = {"pixels": small_pixels}
BLOCK = 2  # images along a side of a cell of a sheet
SHOWN_HEIGHT = 64  # pixels at least, of an image of a sheet
HEAT_MAPS = ("kl", "active_units", "psnr", "sliced_wasserstein")


@dataclass(frozen=True)
class Options:
    """What is shown.

    Attributes:
        kl_weights: KL weights; empty for five over the whole range, or those of the sweep.
        sizes: Latent sizes; empty for all that the model was trained for, or those of the sweep.
        against: Folder of a sweep to compare with; empty for none.
    """

    kl_weights: tuple[float, ...] = ()
    sizes: tuple[int, ...] = ()
    against: str = ""


@dataclass(frozen=True)
class Bench:
    """What all pairs of a run are judged by.

    Attributes:
        splits: Splits of its data.
        feeds: Batches of the held-out splits.
        floor: Figures of training images in place of samples.
    """

    splits: Splits
    feeds: Mapping[str, Feed]
    floor: Figures


@dataclass(frozen=True)
class Result:
    """What was found.

    Attributes:
        cells: Results with one member per pair and seed, as those of a sweep.
        gaps: Gaps to the cells of a sweep; empty without one.
        samples: By pair, decoded points of one seed, `[N, H, W, C]` in [0, 1].
        reconstructions: By pair, reconstructions of the first test images.
        originals: These images.
    """

    cells: MeasuredSweep
    gaps: tuple[CellGap, ...]
    samples: dict[Pair, np.ndarray] = field(repr=False)
    reconstructions: dict[Pair, np.ndarray] = field(repr=False)
    originals: np.ndarray = field(repr=False)

    @property
    def numbers(self) -> dict[str, Any]:
        """The numbers of results.json."""
        return {"cells": self.cells.numbers, "gaps": [asdict(gap) for gap in self.gaps]}


# Measuring.


def measure(planes: Sequence[Run[VAE]], options: Options) -> Result:
    """Measures every pair of one or several told models that differ in their seed alone.

    Args:
        planes: Runs opened by `open_plane`.
        options: Which pairs to measure, and what to compare them with.

    Raises:
        UserError: A model that is told nothing, models of different configs, a pair outside of
            what they were trained for, or a sweep of other images.
    """
    began, first = time.monotonic(), planes[0]
    _check(planes)
    sweep = read_results(options.against) if options.against else None
    pairs = chosen_pairs(first, options, sweep)
    splits = run_splits(first)
    feeds = make_feeds(first.config, splits).held_out
    images = image_counts(splits)
    if sweep is not None:
        check_comparable(first, sweep, images)
    cells, samples, back = [], {}, {}
    originals = np.zeros(0)
    for plane in planes:
        show = plane is first
        floor = floor_figures(splits.test, splits.train, plane.config.seed, SPACES)
        bench = Bench(splits, feeds, floor)
        for pair in track(pairs, len(pairs), f"Seed {plane.config.seed}", "pairs"):
            cell, shown_samples, pictures = measure_cell(plane, pair, bench)
            cells.append(replace(cell, seconds=_training_seconds(plane) / len(pairs)))
            if show:
                samples[pair], (originals, back[pair]) = shown_samples, pictures
    measured = MeasuredSweep(
        workdirs=tuple(str(plane.workdir) for plane in planes),
        config=first.config,
        images=images,
        facts=origin(first.config) | {"checkpoint step": str(first.step)},
        seconds={
            "training": sum(_training_seconds(plane) for plane in planes),
            "measuring": time.monotonic() - began,
        },
        differences={},
        members=in_order(cells),
    )
    gaps = () if sweep is None else tuple(find_gaps(measured, sweep))
    return Result(measured, gaps, samples, back, originals)


def _check(planes: Sequence[Run[VAE]]) -> None:
    first = planes[0]
    for plane in planes:
        if plane.model.told is None:
            raise UserError(
                f"the model in {str(plane.workdir)!r} is told neither KL weight nor latent size: "
                "it is one point of a plane; configs/plane_mnist.py trains a whole one"
            )
        fields = [configs.flatten(run.config) for run in (first, plane)]
        differing = [
            name for name in fields[0].keys() | fields[1].keys()
            if name not in ("seed", "data.path")
            and fields[0].get(name) != fields[1].get(name)
        ]  # fmt: skip
        if differing:
            raise UserError(
                f"the models in {str(first.workdir)!r} and {str(plane.workdir)!r} differ in "
                f"config.{min(differing)}: only seeds of one model become one page"
            )


def chosen_pairs(plane: Run[VAE], options: Options, sweep: MeasuredSweep | None) -> list[Pair]:
    """Returns the pairs of the page, in order of latent size and KL weight.

    Raises:
        UserError: One that the model was not trained for.
    """
    told = plane.model.told
    assert told is not None
    own = configs.told_pair(plane.config, Pair())
    assert own is not None
    sizes, weights = told.z_dim or (own.z_dim,), (own.kl_weight,)
    if told.kl_weight:
        low, high = told.kl_weight
        inner = np.geomspace(low, high, WEIGHTS)[1:-1]
        weights = (low, *(float(f"{w:.2g}") for w in inner), high)
    if sweep is not None:
        members = [member for member in sweep.members if member.finished]
        low, high = weights[0], weights[-1]
        weights = {low, high} | {m.kl_weight for m in members if low <= m.kl_weight <= high}
        sizes = {m.z_dim for m in members if sizes[0] <= m.z_dim <= sizes[-1]}
        if not sizes:
            raise UserError(
                f"--against={sweep.workdirs[0]} has no latent size that this model was trained for"
            )
    asked = [
        Pair(weight, size)
        for size in sorted(options.sizes or sizes)
        for weight in sorted(options.kl_weights or weights)
    ]
    for pair in asked:
        configs.told_pair(plane.config, pair if told.kl_weight else Pair(z_dim=pair.z_dim))
    return asked


def measure_cell(
    plane: Run[VAE], pair: Pair, bench: Bench
) -> tuple[MeasuredMember, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Measures a told model at one pair, as a member of a sweep is measured.

    Args:
        plane: A run opened by `open_plane`.
        pair: KL weight and latent size.
        bench: What the pair is judged by.

    Returns:
        The cell; decoded points of N(0, I); the first test images and their reconstructions.
    """
    run, seed, size = _widened(plane, pair), plane.config.seed, int(pair.z_dim)
    rows = objective_rows(run, bench.feeds, size)
    figures, real, (mean, log_var), pictures = held_out_figures(run, bench.splits, rows)
    mean, log_var = mean[:, :size], log_var[:, :size]
    figures["test"] |= posterior_figures(mean, log_var, seed) | bench.floor
    prior = normal_prior(run.model.z_dim, len(run.label_names))
    fake = prior_samples(run, prior, real)
    shown = fake.pop("shown")
    with ThreadPoolExecutor() as pool:  # Most of the time is spent on sorting in NumPy.
        found = {
            name: pool.submit(set_figures, real[name].images, samples, seed, SPACES)
            for name, samples in fake.items()
        }
    for name, done in found.items():
        figures[name] |= done.result()
    member = MeasuredMember(
        name=f"w{pair.kl_weight:g}-z{size}-s{seed}",
        z_dim=size,
        kl_weight=float(pair.kl_weight),
        learning_rate=float(plane.config.optimizer.learning_rate),
        seed=seed,
        status="finished",
        reason="",
        step=plane.step,
        seconds=0.0,
        config_digest=configs.digest(run.config),
        curves={},
        kl_per_dimension=posterior.kl_per_dimension(mean, log_var).tolist(),
        folder=plane.workdir,
        **figures,
    )
    return member, shown, pictures


def _widened(plane: Run[VAE], pair: Pair) -> Run[VAE]:
    """Returns the run at a pair with the plane's own latent size, the additional weights zero.

    Dimensions that the pair leaves out then have no KL and no effect on images, and all pairs share
    one program.
    """
    told = plane.model.told
    assert told is not None
    pair = pair if told.kl_weight else Pair(z_dim=pair.z_dim)
    run, widest = run_at(plane, pair), run_at(plane, pair._replace(z_dim=plane.model.z_dim))
    variables = pad_latent(run.variables, widest.variables, run.model.z_dim)
    return replace(run, model=widest.model, variables=variables)


def objective_rows(
    run: Run[VAE], feeds: Mapping[str, Feed], size: int
) -> dict[str, dict[str, float]]:
    """Returns what validation would log of a model: R, K and the loss of every held-out split.

    Args:
        run: A run at one pair, perhaps with more latent dimensions than it uses.
        feeds: Batches of the held-out splits.
        size: Latent dimensions that the run uses.
    """
    config, model = run.config, run.model
    loss, stage = config.loss, make_input_stage(config.data)
    objective = Objective(loss.likelihood, loss.reduction, loss.free_bits, loss.sigma)
    program = compiled_steps(make_eval_step(model, objective, stage))
    key = stream_key(make_key(config.seed), "evaluation")
    mask = (np.arange(model.z_dim) < size).astype(np.float32)
    hyper = Hyper(float(config.loss.kl_weight), 0.0, jnp.asarray(mask))
    rows = {}
    for split, feed in feeds.items():
        means, carry = EpochMeans(), EvalCarry(run.variables, jnp.zeros((), jnp.int32))
        for _, metrics in run_epoch(program, carry, feed, key, hyper, Pace()):
            means.add(metrics)
        found = with_one_sigma(means.means(), objective, model.image_shape)
        weight = float(config.loss.kl_weight)
        rows[split] = complete_row(found, objective, weight, model.image_shape, size, model.sample)
    return rows


def _training_seconds(plane: Run[VAE]) -> float:
    rows = [row for row in read_rows(plane.workdir) if row["split"] == "train"]
    return sum(row["images"] / row["images_per_second"] for row in rows)


# The page.


def page(result: Result) -> Page:
    """Returns the page of a plane."""
    measured = result.cells
    cells, told = make_cells(measured.members), configs.what_is_told(measured.config)
    assert told is not None
    weights = sorted({cell.kl_weight for cell in cells})
    seeds = len({member.seed for member in measured.members})
    lead = (
        f"{ablation.title_of(measured)}: one model for {len(cells)} pairs of KL weight and latent "
        f"size, trained for {counted(measured.config.train.epochs, 'epoch')} on "
        f"{measured.images['train']:,} images, with {counted(seeds, 'seed')}. "
        f"It covers {_range_text(told)}. {_best_sentence(cells)}{gap_sentence(result.gaps)}"
    )
    columns = "KL weights from the left: " + ", ".join(f"{w:g}" for w in weights) + "."
    sections = [
        Section("Verdicts", tables=[verdict_table(cells)]),
        Section(
            "Rate and distortion",
            "Each line is one latent size over the KL weights w. Lower and further left is better.",
            [Picture("rate-distortion", ablation.rate_distortion(cells), "R against KL.")],
        ),
        _heat_section(cells),
        *gap_sections(result.gaps),
        Section(
            "Samples",
            "Decoded points of N(0, I) of one seed: the same points in every cell, of which a "
            f"smaller latent size has the first components. {columns}",
            [Picture("samples", _sheet(result.samples), "KL weight to the right, Z downwards.")],
        ),
        Section(
            "Reconstructions",
            f"The same test images in every cell, from the means of their posteriors. {columns}",
            [
                Picture(
                    "reconstructions",
                    _sheet(result.reconstructions, result.originals),
                    "KL weight to the right, Z downwards; the images themselves in the first row.",
                )
            ],
        ),
        _number_section(cells, measured),
    ]
    facts = {"folder": ", ".join(measured.workdirs)} | measured.facts
    facts |= {name: ablation.duration(seconds) for name, seconds in measured.seconds.items()}
    return Page("One training, the whole plane", lead, sections, facts)


def _range_text(told: Any) -> str:
    parts = []
    if told.kl_weight:
        parts.append(f"KL weights from {told.kl_weight[0]:g} to {told.kl_weight[1]:g}")
    if told.z_dim:
        parts.append(f"latent sizes from {told.z_dim[0]} to {told.z_dim[-1]}")
    return " and ".join(parts)


def _best_sentence(cells: Sequence[Cell]) -> str:
    choice = choose(cells, "sliced_wasserstein")
    if choice is None:
        return ""
    best = choice.best
    distance, floor = best.interval("sliced_wasserstein"), best.interval("sliced_wasserstein_floor")
    text = f"Samples are nearest to images at Z = {best.z_dim} and KL weight {best.kl_weight:g}"
    assert distance is not None
    text += f": a sliced Wasserstein distance of {distance.mean:.4f}"
    return text + ("." if floor is None else f", where real to real is {floor.mean:.4f}.")


def _heat_section(cells: Sequence[Cell]) -> Section:
    pictures = []
    for name in HEAT_MAPS:
        found = {(cell.z_dim, cell.kl_weight): cell.interval(name) for cell in cells}
        if not any(found.values()):
            continue
        values = {pair: each.mean if each else np.nan for pair, each in found.items()}
        figure = FIGURES[name]
        choice = choose(cells, name) if figure.better else None
        best = None if choice is None else (choice.best.z_dim, choice.best.kl_weight)
        caption = f"{figure.title}."
        if best is not None:
            caption += f" {STAR}: best on validation, or on test without validation images."
        floor = cells[0].interval(f"{name}_floor")
        if floor is not None:
            caption += f" Real to real: {figure.form.format(floor.mean)}."
        chart = heat_map(values, figure.title, figure.form, ("Z", "KL weight"), best)
        pictures.append(Picture(f"heat-{name.replace('_', '-')}", chart, caption))
    return Section("Over the plane", "Means over seeds, on test images.", pictures)


def _sheet(images: Mapping[Pair, np.ndarray], originals: np.ndarray | None = None) -> Image.Image:
    """Returns a block of images per pair: KL weight to the right, latent size downwards."""
    rows: dict[str, list[np.ndarray]] = {}
    for pair, some in images.items():
        rows.setdefault(f"Z = {pair.z_dim}", []).append(_block(some))
    columns = max(len(blocks) for blocks in rows.values())
    named = [(name, np.stack(blocks)) for name, blocks in rows.items()]
    if originals is not None:
        named.insert(0, ("images", _block(originals)[None]))
    return labelled_sheet(named, columns)


def _block(images: np.ndarray) -> np.ndarray:
    """Returns one picture of the first four of `[N, H, W, C]` images, small ones enlarged."""
    enlarge = max(1, SHOWN_HEIGHT // images.shape[1])
    images = images.repeat(enlarge, axis=1).repeat(enlarge, axis=2)
    lines = [np.concatenate(list(images[i : i + BLOCK]), axis=1) for i in (0, BLOCK)]
    return np.concatenate(lines, axis=0)


def _number_section(cells: Sequence[Cell], measured: MeasuredSweep) -> Section:
    spread = "Mean ± standard deviation over seeds [95 % interval]." if any(
        len(cell.members) > 1 for cell in cells
    ) else "Of one seed."  # fmt: skip
    count = f"{measured.images['compared']:,} prior samples against as many test images."
    tables = [
        figures_table(cells, OBJECTIVE, f"On all test images. {spread}"),
        figures_table(cells, QUALITY, f"{count} {spread}"),
    ]
    return Section("Numbers", tables=tables)
