"""The page of one or several sweeps: how KL weight and latent size move what models do.

A verdict rests on seeds: what is best is chosen by the mean over seeds on validation images, its
number is that on test images, and another model is worse only if the paired difference over seeds
on test has a 95 % interval without zero. Everything else is "not resolved".
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.ticker import MaxNLocator
from PIL import Image

from vae_jax.metrics.intervals import Interval, interval_of, paired_difference
from vae_jax.priors.fitted import KINDS, TITLES
from vae_jax.report.charts import COLOURS, drawn, new_chart
from vae_jax.report.page import Page, Picture, Section, Table, counted
from vae_jax.studies.cells import Cell, make_cells
from vae_jax.studies.linear_forecast import forecast_section
from vae_jax.studies.sweep_results import MeasuredMember, MeasuredSweep
from vae_jax.types import UserError


class Figure(NamedTuple):
    """A figure of a model: its title, how it is written, and whether more (1) or less (-1) is
    better (0: neither)."""

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
# Where samples come from: what their figures end with, and what it is called.
SOURCES = {"": "N(0, I)"} | {f"_{kind}": f"fitted {TITLES[kind]}" for kind in KINDS}
SOURCES |= {"_codes": "decoded codes"}
OF_SAMPLES = tuple(name for name in FIGURES if name.startswith(("sliced", *SPACES)))
FIGURES |= {
    f"{name}{suffix}": Figure(
        f"{FIGURES[name].title}, {source}",
        FIGURES[name].form,
        0 if suffix == "_codes" else FIGURES[name].better,  # Nobody chooses by training images.
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
# KL share that the first of the claims is about.
SHARE = 0.03
CHOSEN, UNRESOLVED = "●", "○"
NO_BREAK = "\u00a0"  # keeps a number and its interval together in narrow columns
FEW_SEEDS = 3  # below, an interval says so little that charts show the range instead
MARKERS = "osD^vPX*"
NICE = (1, 2, 2.5, 5, 10)  # steps of ticks
SIZE = (4.8, 3.5)  # inches; readable on a phone without zooming


# Naming cells and choosing among them.


def _labels(cells: Sequence[Cell]) -> Callable[[Cell], str]:
    """Returns a function that names a cell; learning rates only where there are several."""
    several = len({cell.learning_rate for cell in cells}) > 1
    rate = ", lr {:g}" if several else ""

    def label(cell: Cell) -> str:
        text = f"Z = {cell.z_dim}, w = {cell.kl_weight:g}{rate.format(cell.learning_rate)}"
        return text.replace(" ", NO_BREAK)

    return label


def _text(name: str, interval: Interval | None) -> str:
    """Writes mean ± standard deviation [interval], or the value of a single seed."""
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
    """Returns the name of a figure without where its samples come from."""
    return next((base for base in OF_SAMPLES if name == base or name.startswith(f"{base}_")), name)


# Verdicts.


@dataclass(frozen=True)
class Choice:
    """The cell that is best by one figure.

    Attributes:
        name: Of the figure.
        best: Chosen by its mean.
        split: That it was chosen on: 'validation', or 'test' where some cell lacks validation.
        unresolved: The other cells that test does not show to be worse.
    """

    name: str
    best: Cell
    split: str
    unresolved: tuple[Cell, ...]


def choose(cells: Sequence[Cell], name: str) -> Choice | None:
    """Chooses the best cell on validation and compares the others with it on test, in pairs.

    Args:
        cells: Of `make_cells`.
        name: Of a figure with a better direction.

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
    return Choice(name, best, split, tuple(unresolved))


def worse(cell: Cell, best: Cell, name: str) -> bool:
    """Tells whether a cell is worse on test: its paired difference's 95 % interval omits 0."""
    sign = FIGURES[name].better
    gap = paired_difference(cell.by_seed(name), best.by_seed(name))
    return gap is not None and gap.resolved and sign * gap.mean < 0


def verdict_table(cells: Sequence[Cell]) -> Table:
    """Returns the best cell by every figure of `VERDICTS`, and which others are as good."""
    label, rows = _labels(cells), []
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
        "resolved: the paired difference over seeds on test has a 95 % interval that holds zero "
        "(each comparison by itself, not corrected for their number).",
    )


def size_table(cells: Sequence[Cell]) -> Table | None:
    """Returns what latent size does at the KL weight of the best samples, against the best size."""
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
    """Returns from which KL weight on the KL share of the loss is above 3 % for all latent sizes.

    A weight counts where the 95 % intervals of all its cells lie above.
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
    """Returns one row per cell; figures that no cell has are left out, and the best are marked."""
    label = _labels(cells)
    used = [name for name in names if any(cell.by_seed(name) for cell in cells)]
    choices = {name: choose(cells, name) for name in used if FIGURES[name].better}
    rows = []
    for cell in cells:
        row = [label(cell)]
        for name in used:
            choice, mark = choices.get(name), ""
            if choice is not None:
                mark = f"{CHOSEN}{NO_BREAK}" * (cell is choice.best)
                mark = mark or f"{UNRESOLVED}{NO_BREAK}" * (cell in choice.unresolved)
            row.append(mark + _text(name, cell.interval(name)))
        rows.append(row)
    floors = [[cell.interval(f"{_base(name)}_floor") for cell in cells] for name in used]
    if any(floor for column in floors for floor in column):
        pick = [next((f for f in column if f is not None), None) for column in floors]
        texts = ["" if f is None else _text(n, f) for n, f in zip(used, pick, strict=True)]
        rows.append(["real to real", *texts])
    return Table(["", *(FIGURES[name].title for name in used)], rows, caption)


def duration(seconds: float) -> str:
    """Returns seconds in words."""
    minutes, rest = divmod(math.floor(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"


# Charts.


def _scale(set_scale: Any, axis: Any, values: Sequence[float]) -> None:
    """A logarithmic axis, linear below 1, where values differ by more than a decade or so."""
    if max(values, default=1.0) > 20 * max(1.0, min(values, default=1.0)):
        set_scale("symlog", linthresh=1.0)
        axis.set_major_formatter("{x:g}")


def _colours(count: int) -> list[Any]:
    scale = matplotlib.colormaps["viridis"]
    return [scale(0.88 * k / max(1, count - 1)) for k in range(count)]


def _lines(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    """Cells by z_dim (and learning rate, if several), each in order of the KL weight."""
    several = len({cell.learning_rate for cell in cells}) > 1
    lines: dict[str, list[Cell]] = {}
    for cell in cells:
        rate = f", lr {cell.learning_rate:g}" if several else ""
        lines.setdefault(f"Z = {cell.z_dim}{rate}", []).append(cell)
    return lines


def _bars(cells: Sequence[Cell], name: str) -> tuple[list[float], list[list[float]] | None]:
    """Means, and how far the bars reach below and above."""
    means, reach = [], [[], []]
    for cell in cells:
        values = list(cell.by_seed(name).values())
        interval = interval_of(values)
        low, high = min(values), max(values)
        if interval.count >= FEW_SEEDS:
            low, high = interval.low, interval.high
        if min(values) >= 0:
            low = max(low, 0.0)  # What cannot be negative is not drawn so.
        means.append(interval.mean)
        reach[0].append(interval.mean - low)
        reach[1].append(high - interval.mean)
    return means, reach if any(len(cell.members) > 1 for cell in cells) else None


def rate_distortion(cells: Sequence[Cell]) -> Image.Image:
    """Draws the reconstruction term against KL, one line per latent size over the KL weights."""
    figure, ((axes,),) = new_chart(*SIZE)
    lines = _lines([cell for cell in cells if cell.by_seed("kl") and cell.by_seed("recon")])
    for k, (label, own) in enumerate(lines.items()):
        (rate, rate_bars), (distortion, bars) = _bars(own, "kl"), _bars(own, "recon")
        axes.errorbar(
            rate, distortion, bars, rate_bars, color=_colours(len(lines))[k],
            marker=MARKERS[k % len(MARKERS)], markersize=4.5, label=label, elinewidth=0.8,
        )  # fmt: skip
        linear = [cell for cell in own if cell.by_seed("linear_kl")]
        axes.plot(
            [cell.mean("linear_kl") for cell in linear],
            [cell.mean("linear_recon") for cell in linear],
            color=_colours(len(lines))[k], linestyle=":", linewidth=1,
            label=f"{label}, linear, closed form" if linear else None,
        )  # fmt: skip
    for cell in [cell for own in list(lines.values())[-1:] for cell in own]:
        (rate,), (distortion,) = _bars([cell], "kl")[0], _bars([cell], "recon")[0]
        axes.annotate(
            f"w = {cell.kl_weight:g}", (rate, distortion), xytext=(4, -9),
            textcoords="offset points", fontsize=7, color="0.35",
        )  # fmt: skip
    rates = [rate for own in lines.values() for rate in _bars(own, "kl")[0]]
    _scale(axes.set_xscale, axes.xaxis, rates)
    axes.set(xlabel="rate: KL [nats per image]", ylabel="distortion: R [nats per image]")
    axes.legend(loc="best", fontsize=8)
    return drawn(figure)


def against_weight(cells: Sequence[Cell], name: str, label: str) -> Image.Image:
    """Draws a figure against the KL weight, one line per latent size.

    The weights stand side by side at equal distances, since 0 may be among them.

    Args:
        cells: Some with the figure.
        name: Of the figure.
        label: Of the vertical axis.
    """
    figure, ((axes,),) = new_chart(*SIZE)
    cells = [cell for cell in cells if cell.by_seed(name)]
    weights = sorted({cell.kl_weight for cell in cells})
    lines = _lines(cells)
    for k, (title, own) in enumerate(lines.items()):
        means, bars = _bars(own, name)
        shift = 0.06 * (k - (len(lines) - 1) / 2)  # Bars of different lines stay apart.
        axes.errorbar(
            [weights.index(cell.kl_weight) + shift for cell in own], means, bars,
            color=_colours(len(lines))[k], marker=MARKERS[k % len(MARKERS)], markersize=4.5,
            label=title, elinewidth=0.8,
        )  # fmt: skip
    floors = {}
    for cell in cells:
        floors |= cell.by_seed(f"{name}_floor")
    if floors:
        floor = interval_of(list(floors.values()))
        axes.axhline(floor.mean, color="0.4", linestyle="--", linewidth=1, label="real to real")
    if name == "kl":
        _scale(axes.set_yscale, axes.yaxis, _bars(cells, name)[0])
    axes.set_xticks(range(len(weights)), [f"{weight:g}" for weight in weights])
    axes.set(xlabel="KL weight", ylabel=label)
    axes.legend(loc="best", fontsize=8)
    return drawn(figure)


def against_prior(cells: Sequence[Cell], name: str) -> Image.Image:
    """Draws a distance of samples against the KL weight, a panel per Z and a line per prior.

    Args:
        cells: Some with the figure.
        name: Of the distance, for N(0, I).
    """
    lines = _lines([cell for cell in cells if cell.by_seed(name)])
    rows = -(-len(lines) // 2)
    columns = min(len(lines), 2)
    figure, panels = new_chart(SIZE[0] * columns, SIZE[1] * rows, rows, columns)
    for axes in panels.flat[len(lines) :]:
        axes.set_axis_off()
    for axes, (title, own) in zip(panels.flat, lines.items(), strict=False):
        weights = [cell.kl_weight for cell in own]
        for k, (suffix, source) in enumerate(SOURCES.items()):
            some = [cell for cell in own if cell.by_seed(f"{name}{suffix}")]
            if some:
                means, bars = _bars(some, f"{name}{suffix}")
                places = [weights.index(cell.kl_weight) for cell in some]
                axes.errorbar(
                    places, means, bars, color=COLOURS[k % len(COLOURS)], label=source,
                    marker=MARKERS[k], markersize=4.5, elinewidth=0.8,
                )  # fmt: skip
        floors = [v for cell in own for v in cell.by_seed(f"{name}_floor").values()]
        if floors:
            axes.axhline(np.mean(floors), color="0.4", linestyle="--", linewidth=1)
        if name.endswith("frechet"):
            axes.set_yscale("log")
        axes.set_xticks(range(len(weights)), [f"{weight:g}" for weight in weights])
        axes.set(title=title, xlabel="KL weight", ylabel=FIGURES[name].title)
        axes.legend(loc="best", fontsize=8)
    return drawn(figure)


def training_curves(members: Sequence[MeasuredMember], z_dim: int) -> Image.Image:
    """Draws R and KL on the test split over epochs, one colour per KL weight, all seeds."""
    figure, ((upper,), (lower,)) = new_chart(SIZE[0], 1.4 * SIZE[1], rows=2)
    weights = sorted({member.kl_weight for member in members})
    colours = dict(zip(weights, _colours(len(weights)), strict=True))
    seen: set[float] = set()
    for member in members:
        weight, curve = member.kl_weight, member.curves["test"]
        label = None if weight in seen else f"w = {weight:g}"
        seen.add(weight)
        for axes, name in ((upper, "recon_nats"), (lower, "kl")):
            values = np.asarray(curve[name], np.float64)  # null becomes NaN
            axes.plot(
                curve["epoch"], values, color=colours[weight], label=label, marker=".",
                linewidth=1,
            )  # fmt: skip
    upper.set(title=f"Z = {z_dim}", ylabel="R [nats]")
    lower.set(xlabel="epoch", ylabel="KL [nats]")
    kls = [v for member in members for v in member.curves["test"]["kl"] if v]
    _scale(lower.set_yscale, lower.yaxis, kls)
    for axes in (upper, lower):
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    upper.legend(fontsize=7, ncols=2)
    return drawn(figure)


def kl_spectra(members: Sequence[MeasuredMember], z_dim: int) -> Image.Image:
    """Draws the KL of every latent dimension, sorted: which units are in use."""
    figure, ((axes,),) = new_chart(*SIZE)
    for member, colour in zip(members, _colours(len(members)), strict=True):
        values = sorted(member.kl_per_dimension, reverse=True)
        label = f"w = {member.kl_weight:g}"
        axes.plot(range(1, len(values) + 1), values, color=colour, label=label)
    axes.set(title=f"Z = {z_dim}", xlabel="latent dimension, by KL", ylabel="KL [nats per image]")
    axes.set_yscale("symlog", linthresh=0.01)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_major_locator(MaxNLocator("auto", steps=NICE, integer=True))
    axes.legend(fontsize=7, ncols=2)
    return drawn(figure)


# The page.


def page(results: Sequence[MeasuredSweep]) -> Page:
    """Returns the page of one or several sweeps.

    Args:
        results: Of `sweep_results.measure` or `read_results`, merged.
    """
    leads, sections, facts = [], [], {}
    for number, result in enumerate(results, start=1):
        several = len(results) > 1
        leads.append(_lead(result))
        tag = f"s{number}-" if several else ""
        own = _sections(result, tag)
        if several:
            title = title_of(result)
            own = [Section(f"{title}: {s.heading}", s.text, s.pictures, s.tables) for s in own]
        sections += own
        prefix = f"sweep {number}, " if several else ""
        facts |= {prefix + name: value for name, value in _facts(result).items()}
    return Page("KL weight and latent size", " ".join(leads), sections, facts)


def numbers(results: Sequence[MeasuredSweep]) -> dict[str, Any]:
    """Returns what results.json holds: a single sweep, or all sweeps of a report."""
    if len(results) == 1:
        return results[0].numbers
    return {"sweeps": [result.numbers for result in results]}


def title_of(result: MeasuredSweep) -> str:
    data = result.config.data
    return f"{data.name}, {'x'.join(map(str, data.image_shape))}"


def _lead(result: MeasuredSweep) -> str:
    finished = sum(member.finished for member in result.members)
    seeds = len({member.seed for member in result.members})
    images, config = result.images, result.config
    text = (
        f"{title_of(result)}: {finished} of {len(result.members)} models finished "
        f"{counted(config.train.epochs, 'epoch')} on {images['train']:,} images, with "
        f"{counted(seeds, 'seed')} of everything that is drawn by chance "
        f"({config.loss.likelihood}, {config.loss.reduction}). Numbers are those of "
        f"{images['test']:,} test images; what is called best was chosen on "
    )
    if images["validation"]:
        text += f"{images['validation']:,} validation images."
    else:
        text += "the same images, since there are no validation images."
    if seeds < 2:
        text += " With one seed, no difference between models is resolved."
    return text


def _facts(result: MeasuredSweep) -> dict[str, str]:
    return (
        {"folder": ", ".join(result.workdirs)}
        | result.facts
        | {name: duration(seconds) for name, seconds in result.seconds.items()}
    )


def _sections(result: MeasuredSweep, tag: str) -> list[Section]:
    cells = make_cells(result.members)
    sections = []
    if cells:
        label = _labels(cells)
        tables = [verdict_table(cells), size_table(cells)]
        sections = [
            Section("Verdicts", share_sentence(cells), tables=[t for t in tables if t]),
            _chart_section(cells, tag),
            *_prior_sections(cells, tag),
            *filter(None, [forecast_section(cells, label)]),
            _number_section(cells, result),
        ]
        shown = [_picture_section(kind, cells, label, tag) for kind in PICTURES]
        sections += [section for section in shown if section.pictures]
    problems = [m for m in result.members if not m.finished]
    if problems:
        rows = [[m.name, m.status, f"{m.step:,}", m.reason] for m in problems]
        table = Table(("member", "status", "step", "reason"), rows)
        sections.insert(0, Section("Without figures", tables=[table]))
    return [*sections, *_training_sections(result, cells, tag), _run_section(result)]


def _chart_section(cells: Sequence[Cell], tag: str) -> Section:
    charts = {
        "kl": ("KL [nats per image]", "KL against its weight."),
        "active_units": (
            "active units",
            "Latent dimensions whose posterior mean varies by more than 0.01 over test images.",
        ),
        "psnr": ("PSNR [dB]", "Reconstructions of test images from the posterior mean; higher is "
                 "better."),
        "sliced_wasserstein": (
            "sliced Wasserstein",
            "Distance of prior samples from test images; lower is better. It looks at patches of "
            "normalised contrast.",
        ),
        "pixels_frechet": (
            "Frechet distance, 8 x 8 pixels",
            "Distance of prior samples from test images by colour and layout; lower is better.",
        ),
        "classifier_frechet": (
            "Frechet distance, classifier",
            "Distance of prior samples from test images in the features of one classifier.",
        ),
    }  # fmt: skip
    pictures = []
    if any(cell.by_seed("recon") for cell in cells):
        caption = (
            "Rate and distortion: each line is one latent size over the KL weights w. Down and to "
            "the left is better; a larger weight moves to the left. Dotted, where it has a "
            "closed form: the best linear VAE at the same weights."
        )
        pictures.append(Picture(f"{tag}rate-distortion", rate_distortion(cells), caption))
    for name, (axis, caption) in charts.items():
        if any(cell.by_seed(name) for cell in cells):
            chart = against_weight(cells, name, axis)
            pictures.append(Picture(f"{tag}{name.replace('_', '-')}", chart, caption))
    seeds = max(len(cell.members) for cell in cells)
    bars = {1: "", 2: " Bars reach from the lower to the higher seed."}
    text = (
        "R is the reconstruction term, KL the divergence from the prior, both in nats per image "
        "and unweighted; w is the KL weight."
    )
    interval = " Points are means over seeds, bars their 95 % intervals (Student's t)."
    return Section("Rate, distortion, quality", text + bars.get(seeds, interval), pictures)


def closed_share(cell: Cell, name: str, suffix: str) -> float | None:
    """Returns which share of the gap from N(0, I) to decoded codes a prior closes, over seeds.

    It is 1 where samples of the prior are as near to images as decoded codes of training images,
    and None where it is not resolved over seeds that these are nearer than samples of N(0, I).
    """
    normal, fitted, codes = (cell.by_seed(f"{name}{end}") for end in ("", suffix, "_codes"))
    gap, closed = paired_difference(normal, codes), paired_difference(normal, fitted)
    if gap is None or closed is None or gap.mean <= 0 or (gap.count > 1 and not gap.resolved):
        return None
    return closed.mean / gap.mean


def priors_table(cells: Sequence[Cell], name: str) -> Table:
    """Returns a distance of samples from images by where they come from, one row per cell."""
    label = _labels(cells)
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
        "of the way from N(0, I) to decoded codes, 100 % is all of it; – where no gap is resolved."
    )
    return Table(header, rows, caption)


def _prior_sections(cells: Sequence[Cell], tag: str) -> list[Section]:
    """Returns the section on fitted priors, where there are figures of any."""
    names = [name for name in DISTANCES if any(cell.by_seed(f"{name}_codes") for cell in cells)]
    if not names:
        return []
    text = (
        "The same decoders, told points of N(0, I) or of a density fitted to the codes of training "
        "images; decoded codes are draws of the posteriors of training images, the best that any "
        "prior can come to but by luck. Where the line of a fitted prior is low at a weight and "
        "that of N(0, I) is not, the weight is good and only the prior was wrong."
    )
    pictures = [
        Picture(
            f"{tag}priors-{name.replace('_', '-')}",
            against_prior(cells, name),
            f"{FIGURES[name].title} of samples against the KL weight, by what they are drawn from; "
            "lower is better. Dashed: real images against real ones.",
        )
        for name in names
    ]
    tables = [priors_table(cells, name) for name in names]
    return [Section("N(0, I) against fitted priors", text, pictures, tables)]


def _number_section(cells: Sequence[Cell], result: MeasuredSweep) -> Section:
    spread = (
        "Mean ± standard deviation over seeds [95 % interval of the mean]. "
        f"{CHOSEN}: best on validation; {UNRESOLVED}: not resolved from it on test."
    )
    objective = (
        "On all test images. KL share: weighted KL over loss. Radius: mean length of posterior "
        f"draws. {spread}"
    )
    count = f"{result.images['compared']:,} prior samples against as many test images"
    quality = (
        f"{count}; each seed draws its own points, half of the test images, patches and "
        "directions. Real to real: training images in place of samples. PSNR: reconstructions of "
        f"all test images. {spread}"
    )
    tables = [
        figures_table(cells, OBJECTIVE, objective),
        figures_table(cells, QUALITY, quality),
    ]
    for (space, title), (suffix, source) in itertools.product(SPACES.items(), SOURCES.items()):
        names = [f"{space}_{name}{suffix}" for name in IN_SPACE]
        if any(cell.by_seed(names[0]) for cell in cells):
            caption = f"{source}: {count}, in one space for all models: {title}. {spread}"
            tables.append(figures_table(cells, names, caption))
    return Section("Numbers", tables=tables)


# File name of a picture of a member: heading and what to see.
PICTURES = {
    f"samples{suffix}": (
        f"Samples of {source}",
        f"Decoded points of {source} of the first seed: within one Z the same random numbers for "
        "every KL weight.",
    )
    for suffix, source in SOURCES.items()
    if suffix != "_codes"
} | {
    "reconstructions": (
        "Reconstructions",
        "The same test images for every model: a row of originals, below it their reconstructions "
        "from the posterior mean.",
    )
}


def _picture_section(
    kind: str, cells: Sequence[Cell], label: Callable[[Cell], str], tag: str
) -> Section:
    pictures, (heading, text) = [], PICTURES[kind]
    samples = kind.startswith("samples")
    names = (f"sliced_wasserstein{kind[7:]}",) if samples else ("psnr", "kl")
    for cell in cells:
        member = cell.members[0]
        path = member.folder / f"{kind}.png"
        # A picture may be left of a prior that this was not measured with.
        if not path.is_file() or (samples and member.test.get(names[0]) is None):
            continue
        try:
            with Image.open(path) as file:
                image = file.convert("RGB")
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise UserError(f"{path} is not a readable picture ({error}); draw it anew") from None
        numbers = [
            f"{FIGURES[name].title.split(' [')[0]} {FIGURES[name].form.format(member.test[name])}"
            for name in names
            if member.test.get(name) is not None
        ]
        of = f"z{cell.z_dim}-w{cell.kl_weight:g}-lr{cell.learning_rate:g}"
        name = f"{tag}{kind.replace('_', '-')}-{of}"
        caption = ": ".join([label(cell), *([", ".join(numbers)] if numbers else [])])
        alt = f"{heading} of the model with {label(cell)}"
        pictures.append(Picture(name, image, caption, alt))
    return Section(heading, text, pictures)


def _training_sections(result: MeasuredSweep, cells: Sequence[Cell], tag: str) -> list[Section]:
    spectra, curves = [], []
    for z_dim in sorted({member.z_dim for member in result.members}):
        first = [cell.members[0] for cell in cells if cell.z_dim == z_dim]
        if first:
            caption = f"Z = {z_dim}: KL of each latent dimension on test images, largest first."
            spectra.append(Picture(f"{tag}spectra-z{z_dim}", kl_spectra(first, z_dim), caption))
        own = [m for m in result.members if m.z_dim == z_dim and "test" in m.curves]
        if own:
            caption = f"Z = {z_dim}: all seeds."
            chart = training_curves(own, z_dim)
            curves.append(Picture(f"{tag}training-z{z_dim}", chart, caption))
    return [
        Section("Latent dimensions in use", "Of the first seed.", spectra),
        Section("Training", "R and KL on the test split after each epoch.", curves),
    ]


def _run_section(result: MeasuredSweep) -> Section:
    fields = Table(
        ("field", "value"),
        [[name, value] for name, value in sorted(result.differences.items())],
        "Fields of the config that differ from configs/default.py.",
    )
    members = Table(
        ("member", "status", "step", "seconds", "config digest"),
        [[m.name, m.status, f"{m.step:,}", f"{m.seconds:.1f}", m.config_digest]
         for m in result.members],
        "All members; seconds of training.",
    )  # fmt: skip
    return Section("What was run", tables=[fields, members] if result.differences else [members])
