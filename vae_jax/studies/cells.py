"""Cells of a sweep: models that differ in their seed alone, and which of them are better.

A verdict rests on seeds: what is best is chosen by the mean over seeds on validation images, its
number is that on test images, and another cell is worse only if the paired difference over seeds on
test has a 95 % interval without zero. Everything else is "not resolved".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from vae_jax.metrics.intervals import Interval, interval_of, paired_difference
from vae_jax.priors.fitted import KINDS, TITLES
from vae_jax.report.page import Table
from vae_jax.studies.sweep_results import MeasuredMember


class Figure(NamedTuple):
    """A figure of a model.

    Attributes:
        title: Title of its column.
        form: Format of its values.
        better: 1 if more is better, -1 if less is, 0 if neither.
    """

    title: str
    form: str
    better: int = 0


FIGURES = {
    "beta": Figure("beta", "{:.3g}"),
    "recon": Figure("R [nats]", "{:,.1f}", -1),
    "kl": Figure("KL [nats]", "{:,.1f}"),
    "elbo": Figure("ELBO [nats]", "{:,.1f}", 1),
    "kl_share": Figure("KL share", "{:.2%}"),
    "active_units": Figure("active units", "{:.3g}"),
    "radius_mean": Figure("radius", "{:.2f}"),
    "radius_prior_mean": Figure("radius of N(0, I)", "{:.2f}"),
    "psnr": Figure("PSNR [dB]", "{:.2f}", 1),
    "sliced_wasserstein": Figure("sliced Wasserstein", "{:.4f}", -1),
}
IN_SPACE = {
    "frechet": Figure("Frechet", "{:.3f}", -1),
    "precision": Figure("precision", "{:.3f}", 1),
    "recall": Figure("recall", "{:.3f}", 1),
    "density": Figure("density", "{:.3f}", 1),
    "coverage": Figure("coverage", "{:.3f}", 1),
}
SPACES = {"pixels": "8 x 8 pixels", "classifier": "classifier's features"}
FIGURES |= {
    f"{space}_{name}": figure._replace(title=f"{figure.title}, {title}")
    for space, title in SPACES.items()
    for name, figure in IN_SPACE.items()
}
# What samples are drawn from, by the end of the names of their figures.
SOURCES = {"": "N(0, I)"} | {f"_{kind}": f"fitted {TITLES[kind]}" for kind in KINDS}
SOURCES |= {"_codes": "decoded codes"}
OF_SAMPLES = tuple(name for name in FIGURES if name.startswith(("sliced", *SPACES)))
FIGURES |= {
    f"{name}{suffix}": Figure(
        f"{FIGURES[name].title}, {source}",
        FIGURES[name].form,
        0 if suffix == "_codes" else FIGURES[name].better,  # Nothing is chosen by it.
    )
    for suffix, source in SOURCES.items()
    if suffix
    for name in OF_SAMPLES
}
OBJECTIVE = ("beta", "recon", "kl", "elbo", "kl_share", "active_units", "radius_mean",
             "radius_prior_mean")  # fmt: skip
QUALITY = ("psnr", "sliced_wasserstein")
VERDICTS = {
    "elbo": "Highest ELBO",
    "psnr": "Best reconstructions",
}
DISTANCES = {
    "sliced_wasserstein": "sliced Wasserstein",
    "pixels_frechet": "Frechet, 8 x 8 pixels",
    "classifier_frechet": "Frechet, classifier's features",
}
VERDICTS |= {
    f"{name}{suffix}": f"Samples of {SOURCES[suffix]} nearest to images, {title}"
    for name, title in DISTANCES.items()
    for suffix in SOURCES
    if suffix != "_codes"
}
SHARE = 0.03  # of the loss, that `share_sentence` is about
BEST, UNRESOLVED = "●", "○"
NO_BREAK = "\u00a0"  # a space that keeps a number and its interval on one line


@dataclass(frozen=True)
class Cell:
    """The finished members of one latent size, KL weight and learning rate.

    Attributes:
        z_dim: Latent size.
        kl_weight: KL weight of the config.
        learning_rate: Learning rate of the config.
        members: One member for each seed.
    """

    z_dim: int
    kl_weight: float
    learning_rate: float
    members: tuple[MeasuredMember, ...]

    def by_seed(self, name: str, split: str = "test") -> dict[int, float]:
        """Returns the values of a figure by seed; empty unless every member has it."""
        values = {m.seed: getattr(m, split).get(name) for m in self.members}
        return {} if None in values.values() else values

    def interval(self, name: str, split: str = "test") -> Interval | None:
        """Returns the mean of a figure over seeds and its interval; None without the figure."""
        values = self.by_seed(name, split)
        return interval_of(list(values.values())) if values else None

    def mean(self, name: str) -> float:
        """Returns the mean over seeds on test of a figure that every member has."""
        return float(np.mean(list(self.by_seed(name).values())))


def make_cells(members: Sequence[MeasuredMember]) -> list[Cell]:
    """Returns the cells of all finished members, in order of z_dim, KL weight, learning rate."""
    groups: dict[tuple[int, float, float], list[MeasuredMember]] = {}
    for member in members:
        if member.finished:
            key = (member.z_dim, member.kl_weight, member.learning_rate)
            groups.setdefault(key, []).append(member)
    return [Cell(*key, tuple(own)) for key, own in sorted(groups.items())]


def cell_label(cells: Sequence[Cell]) -> Callable[[Cell], str]:
    """Returns the function that labels a cell, with its learning rate if there are several."""
    several = len({cell.learning_rate for cell in cells}) > 1
    rate = ", lr {:g}" if several else ""

    def label(cell: Cell) -> str:
        text = f"Z = {cell.z_dim}, w = {cell.kl_weight:g}{rate.format(cell.learning_rate)}"
        return text.replace(" ", NO_BREAK)

    return label


def _text(name: str, interval: Interval | None) -> str:
    """Returns the text mean ± standard deviation [interval], or the value of a single seed."""
    if interval is None:
        return "–"
    form = FIGURES[name].form
    mean = form.format(interval.mean)
    if interval.count == 1:
        return mean
    low, high = form.format(interval.low), form.format(interval.high)
    spread = f"{mean} ± {form.format(interval.std)}".replace(" ", NO_BREAK)
    return f"{spread} [{low},{NO_BREAK}{high}]"


def _base(name: str) -> str:
    """Returns the name of a figure without the source of its samples."""
    return next((base for base in OF_SAMPLES if name == base or name.startswith(f"{base}_")), name)


# Which cells are best.


@dataclass(frozen=True)
class Choice:
    """The cell that is best by one figure.

    Attributes:
        best: The cell with the best mean.
        split: Split that it was chosen on: 'validation', or 'test' if a cell has no validation.
        unresolved: The other cells that are not shown to be worse on test.
    """

    best: Cell
    split: str
    unresolved: tuple[Cell, ...]


def choose(cells: Sequence[Cell], name: str) -> Choice | None:
    """Chooses the best cell on validation and compares the others with it on test, in pairs.

    Args:
        cells: Cells of a sweep.
        name: Name of a figure of which more or less is better.

    Returns:
        The choice; None if no cell has the figure.
    """
    cells = [cell for cell in cells if cell.by_seed(name)]
    if not cells:
        return None
    sign = FIGURES[name].better
    split = "validation" if all(cell.by_seed(name, "validation") for cell in cells) else "test"
    means = [np.mean(list(cell.by_seed(name, split).values())) for cell in cells]
    best = cells[int(np.argmax(sign * np.asarray(means)))]
    unresolved = [cell for cell in cells if cell is not best and not worse(cell, best, name)]
    return Choice(best, split, tuple(unresolved))


def worse(cell: Cell, best: Cell, name: str) -> bool:
    """Returns whether a cell is worse on test: the interval of the paired difference omits 0."""
    sign = FIGURES[name].better
    gap = paired_difference(cell.by_seed(name), best.by_seed(name))
    return gap is not None and gap.resolved and sign * gap.mean < 0


def verdict_table(cells: Sequence[Cell]) -> Table:
    """Returns the best cell by every figure of `VERDICTS`, and the others that may be as good."""
    label, rows = cell_label(cells), []
    for name, question in VERDICTS.items():
        choice = choose(cells, name)
        if choice is None:
            continue
        others = [label(cell) for cell in choice.unresolved]
        shown = "; ".join(others[:4]) + (f"; and {len(others) - 4} more" if len(others) > 4 else "")
        where = label(choice.best) + ("" if choice.split == "validation" else " (chosen on test)")
        number = _text(name, choice.best.interval(name))
        floor = choice.best.interval(f"{_base(name)}_floor")
        real = "" if floor is None else FIGURES[name].form.format(floor.mean)
        rows.append([question, where, number, real, shown or "all others are worse"])
    return Table(
        ("", "best on validation", "on test", "real to real", "not resolved from"),
        rows,
        "Chosen by the mean over seeds on validation images; the number is that on test images: "
        "mean ± standard deviation over seeds [95 % interval of the mean, Student's t]. Not "
        "resolved: the paired difference over seeds on test has a 95 % interval that contains zero "
        "(of each comparison alone, not corrected for their number).",
    )


def size_table(cells: Sequence[Cell]) -> Table | None:
    """Returns figures by latent size, at the KL weight of the best samples, and the best size."""
    best = choose(cells, "sliced_wasserstein")
    if best is None:
        return None
    weight, rate = best.best.kl_weight, best.best.learning_rate
    same = [cell for cell in cells if (cell.kl_weight, cell.learning_rate) == (weight, rate)]
    names = [n for n in ("psnr", *DISTANCES) if all(cell.by_seed(n) for cell in same)]
    if len(same) < 2:
        return None
    rows = []
    for cell in same:
        row = [f"Z = {cell.z_dim}".replace(" ", NO_BREAK)]
        for name in names:
            choice = choose(same, name)
            assert choice is not None  # since every cell has the figure
            row += [_text(name, cell.interval(name)), _against(cell, choice.best, name)]
        rows.append(row)
    header = [""] + [title for name in names for title in (FIGURES[name].title, "against the best")]
    return Table(
        header,
        rows,
        f"Latent sizes at KL weight {weight:g}, where samples are best. Against the best: paired "
        "difference over seeds to the size that is best on validation, with its 95 % interval.",
    )


def _against(cell: Cell, best: Cell, name: str) -> str:
    if cell is best:
        return "best"
    gap = paired_difference(cell.by_seed(name), best.by_seed(name))
    if gap is None or gap.count < 2:
        return "one seed: not resolved"
    form = FIGURES[name].form.replace("{:", "{:+")
    verdict = "not resolved"
    if gap.resolved:
        verdict = "worse" if FIGURES[name].better * gap.mean < 0 else "better"
    low, high = form.format(gap.low), form.format(gap.high)
    return f"{form.format(gap.mean)} [{low}, {high}]: {verdict}"


def share_sentence(cells: Sequence[Cell]) -> str:
    """Returns a sentence on the smallest KL weight whose cells all have a KL share above `SHARE`.

    It says so if the 95 % interval of one of these cells reaches below.
    """
    weights: dict[float, list[Interval]] = {}
    for cell in cells:
        interval = cell.interval("kl_share")
        if interval is not None:
            weights.setdefault(cell.kl_weight, []).append(interval)
    if not weights:
        return ""
    above = [w for w, own in weights.items() if all(i.mean > SHARE for i in own)]
    if not above:
        most = max(i.mean for own in weights.values() for i in own)
        return (
            f"No KL weight gives all models a KL share above {SHARE:.0%}; the most is {most:.2%}."
        )
    weight = min(above)
    means = [i.mean for i in weights[weight]]
    certain = all(i.low > SHARE for i in weights[weight])
    doubt = "" if certain else "; not resolved, since an interval over seeds reaches below"
    span = f"{min(means):.2%} to {max(means):.2%}" if len(means) > 1 else f"{means[0]:.2%}"
    return (
        f"KL weight {weight:g} is the smallest whose models all have a KL share of the loss above "
        f"{SHARE:.0%} on test images ({span}{doubt})."
    )


# Tables.


def figures_table(cells: Sequence[Cell], names: Sequence[str], caption: str) -> Table:
    """Returns one row per cell, the best marked, and a column per figure that some cell has."""
    label = cell_label(cells)
    used = [name for name in names if any(cell.by_seed(name) for cell in cells)]
    choices = {name: choose(cells, name) for name in used if FIGURES[name].better}
    rows = []
    for cell in cells:
        row = [label(cell)]
        for name in used:
            choice, mark = choices.get(name), ""
            if choice is not None:
                mark = f"{BEST}{NO_BREAK}" * (cell is choice.best)
                mark = mark or f"{UNRESOLVED}{NO_BREAK}" * (cell in choice.unresolved)
            row.append(mark + _text(name, cell.interval(name)))
        rows.append(row)
    floors = [
        next(filter(None, (cell.interval(f"{_base(name)}_floor") for cell in cells)), None)
        for name in used
    ]
    if any(floors):
        texts = [_text(name, f) if f else "" for name, f in zip(used, floors, strict=True)]
        rows.append(["real to real", *texts])
    return Table(["", *(FIGURES[name].title for name in used)], rows, caption)


def closed_share(cell: Cell, name: str, suffix: str) -> float | None:
    """Returns the share of the gap from N(0, I) to decoded codes that a prior closes, over seeds.

    It is 1 if samples of the prior are as near to images as decoded codes of training images, and
    None unless these are nearer than samples of N(0, I), resolved over seeds.
    """
    normal, fitted, codes = (cell.by_seed(f"{name}{end}") for end in ("", suffix, "_codes"))
    gap, closed = paired_difference(normal, codes), paired_difference(normal, fitted)
    if gap is None or closed is None or gap.mean <= 0 or (gap.count > 1 and not gap.resolved):
        return None
    return closed.mean / gap.mean


def priors_table(cells: Sequence[Cell], name: str) -> Table:
    """Returns a distance of samples from images by their source, one row per cell."""
    label = cell_label(cells)
    used = [suffix for suffix in SOURCES if any(cell.by_seed(f"{name}{suffix}") for cell in cells)]
    fitted = [suffix for suffix in used if suffix not in ("", "_codes")]
    rows = []
    for cell in cells:
        shares = [closed_share(cell, name, suffix) for suffix in fitted]
        rows.append(
            [label(cell)]
            + [_text(name, cell.interval(f"{name}{suffix}")) for suffix in used]
            + ["–" if share is None else f"{share:.0%}" for share in shares]
        )
    header = ["", *(SOURCES[s] for s in used), *(f"gap closed by {SOURCES[s]}" for s in fitted)]
    caption = (
        f"{FIGURES[name].title}: mean ± standard deviation over seeds [95 % interval]. Gap closed: "
        "share of the gap from N(0, I) to decoded codes; – where no gap is resolved."
    )
    return Table(header, rows, caption)
