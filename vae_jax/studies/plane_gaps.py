"""How far a told model is from models that were trained alone, each for one cell of a sweep.

Three gaps per cell: in the objective R + beta K, in R at equal K, and in the quality of samples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vae_jax.models.vae import VAE
from vae_jax.report.charts import heat_map
from vae_jax.report.page import Picture, Section, Table, plus_minus
from vae_jax.run import Run
from vae_jax.studies.cells import NO_BREAK, Cell, make_cells
from vae_jax.studies.sweep_results import MeasuredSweep
from vae_jax.types import UserError


@dataclass(frozen=True)
class FigureGap:
    """A figure of the plane beside that of members that were trained for one cell alone.

    Attributes:
        ours: Mean over the seeds of the plane.
        alone: Mean over the seeds of the members.
        spread: Standard deviation over the members' seeds; NaN for one seed.
        seeds: Number of the members' seeds.
    """

    ours: float
    alone: float
    spread: float
    seeds: int

    @property
    def relative(self) -> float:
        """By how much the figure of the plane is larger, as a share of that of the members."""
        return self.ours / self.alone - 1


@dataclass(frozen=True)
class CellGap:
    """A cell of a sweep beside the told model at the same latent size and KL weight.

    Attributes:
        z_dim: Latent size.
        kl_weight: KL weight that the members were trained with.
        asked: KL weight that the told model was given: the nearest one of its range.
        objective: R + beta K in nats per image, with the members' beta.
        recon: R in nats per image where the told model has the members' K; None if it never has.
        sliced_wasserstein: Sliced Wasserstein distance of samples.
    """

    z_dim: int
    kl_weight: float
    asked: float
    objective: FigureGap
    recon: FigureGap | None
    sliced_wasserstein: FigureGap | None

    @property
    def inside(self) -> bool:
        """Whether the told model was trained for the members' KL weight."""
        return self.asked == self.kl_weight


# Measuring.


def check_comparable(plane: Run[VAE], sweep: MeasuredSweep, images: Mapping[str, int]) -> None:
    """Checks that a plane and a sweep are about the same images and the same objective.

    Args:
        plane: A run opened by `open_plane`.
        sweep: Results of the sweep.
        images: Numbers of images that the plane is measured with, see `image_counts`.

    Raises:
        UserError: They differ.
    """
    ours, theirs = plane.config, sweep.config
    for name, one, other in (
        ("data.digest", ours.data.digest, theirs.data.digest or ours.data.digest),
        ("data.image_shape", tuple(ours.data.image_shape), tuple(theirs.data.image_shape)),
        ("loss.likelihood", ours.loss.likelihood, theirs.loss.likelihood),
        ("loss.reduction", ours.loss.reduction, theirs.loss.reduction),
        ("the numbers of images", dict(images), dict(sweep.images)),
    ):
        if one != other:
            raise UserError(
                f"--against={sweep.workdirs[0]} is a sweep with other images or another objective "
                f"({name}: {other} there, {one} here); compare with one of the same"
            )


def find_gaps(plane: MeasuredSweep, sweep: MeasuredSweep) -> list[CellGap]:
    """Compares a plane with every cell of a sweep that has one of its latent sizes.

    Args:
        plane: Results of the plane.
        sweep: Results of members that were trained for one pair alone.
    """
    plane_cells = {(cell.z_dim, cell.kl_weight): cell for cell in make_cells(plane.members)}
    weights = sorted({weight for _, weight in plane_cells})
    gaps = []
    for alone in make_cells(sweep.members):
        asked = min(max(alone.kl_weight, weights[0]), weights[-1])
        cell = plane_cells.get((alone.z_dim, asked))
        if cell is None or not alone.by_seed("recon"):
            continue
        beta = alone.members[0].test["beta"]
        assert beta is not None
        objective = _gap_between(_objective(cell, beta), _objective(alone, beta))
        same_size = [other for other in plane_cells.values() if other.z_dim == alone.z_dim]
        at_rate = recon_at_rate(same_size, alone.mean("kl"))
        recon = None if at_rate is None else _gap_between([at_rate], _values(alone, "recon"))
        distance = None
        if alone.by_seed("sliced_wasserstein"):
            distance = _gap_between(*(_values(c, "sliced_wasserstein") for c in (cell, alone)))
        gaps.append(CellGap(alone.z_dim, alone.kl_weight, asked, objective, recon, distance))
    return gaps


def _values(cell: Cell, name: str) -> list[float]:
    return list(cell.by_seed(name).values())


def _objective(cell: Cell, beta: float) -> list[float]:
    recon, rate = cell.by_seed("recon"), cell.by_seed("kl")
    return [recon[seed] + beta * rate[seed] for seed in recon]


def _gap_between(ours: Sequence[float], alone: Sequence[float]) -> FigureGap:
    spread = float(np.std(alone, ddof=1)) if len(alone) > 1 else math.nan
    return FigureGap(float(np.mean(ours)), float(np.mean(alone)), spread, len(alone))


def recon_at_rate(cells: Sequence[Cell], rate: float) -> float | None:
    """Returns R at a given K, by linear interpolation between cells.

    Args:
        cells: Cells of one latent size.
        rate: K in nats per image.

    Returns:
        R in nats per image; None beyond the smallest and the largest K.
    """
    points = sorted((cell.mean("kl"), cell.mean("recon")) for cell in cells)
    rates, recons = zip(*points, strict=True)
    return float(np.interp(rate, rates, recons)) if rates[0] <= rate <= rates[-1] else None


# Showing.


def gap_sentence(gaps: Sequence[CellGap]) -> str:
    """Returns a sentence on how far the plane is from members that were trained alone."""
    inside = [gap for gap in gaps if gap.inside]
    if not inside:
        return ""
    worst = max(inside, key=lambda gap: gap.objective.relative)
    below = sum(gap.objective.relative <= 0 for gap in inside)
    mean = np.mean([gap.objective.relative for gap in inside])
    return (
        f" Against members that were trained for one pair alone, R + beta K is {mean:+.2%} on "
        f"average and {worst.objective.relative:+.2%} at worst (Z = {worst.z_dim}, KL weight "
        f"{worst.kl_weight:g}); {below} of {len(inside)} cells are at or below their members."
    )


def gap_sections(gaps: Sequence[CellGap]) -> list[Section]:
    """Returns the section of the gaps: a chart and a table; none without gaps."""
    if not gaps:
        return []
    inside = {(gap.z_dim, gap.kl_weight): gap.objective for gap in gaps if gap.inside}
    pictures = []
    if inside:
        percent = {pair: 100 * gap.relative for pair, gap in inside.items()}
        title = "Gap in R + beta K [%]"
        chart = heat_map(percent, title, "{:+.1f}", ("Z", "KL weight"), centred=True)
        text = "Gap to the members in R + beta K: below zero the told model is better."
        pictures.append(Picture("gap", chart, text))
    return [Section("Gap to a sweep", "", pictures, [_gap_table(gaps)])]


def _gap_table(gaps: Sequence[CellGap]) -> Table:
    header = ["", "R + beta K", "alone", "gap", "R at equal K", "alone", "gap",
              "sliced Wasserstein", "alone", "gap"]  # fmt: skip
    rows = []
    for gap in gaps:
        where = f"Z = {gap.z_dim}, w = {gap.kl_weight:g}"
        if not gap.inside:
            where += f" (asked for {gap.asked:g})"
        row = [where.replace(" ", NO_BREAK), *_texts(gap.objective, 1)]
        row += [*_texts(gap.recon, 1), *_texts(gap.sliced_wasserstein, 4)]
        rows.append(row)
    caption = (
        "The told model beside members that were trained for one cell alone: mean ± standard "
        "deviation over their seeds, on test images, in nats per image except for the distance. "
        "R at equal K: R on the line of the told model at this latent size, where it has the "
        "members' K. Members whose KL weight lies outside of what the model was trained for are "
        "compared with the nearest one, and enter no summary."
    )
    return Table(header, rows, caption)


def _texts(gap: FigureGap | None, digits: int) -> list[str]:
    if gap is None:
        return ["–", "–", "–"]
    form = f"{{:,.{digits}f}}"
    alone = plus_minus(gap.alone, gap.spread, form).replace(" ", NO_BREAK)
    return [form.format(gap.ours), alone, f"{gap.relative:+.1%}"]
