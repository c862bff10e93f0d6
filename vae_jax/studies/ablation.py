"""The page of one or several sweeps: how KL weight and latent size change what models do."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.ticker import MaxNLocator
from PIL import Image

from vae_jax.metrics.intervals import interval_of
from vae_jax.report.charts import COLOURS, drawn, new_chart
from vae_jax.report.page import Page, Picture, Section, Table, counted
from vae_jax.studies.cells import (
    BEST,
    DISTANCES,
    FIGURES,
    IN_SPACE,
    OBJECTIVE,
    QUALITY,
    SOURCES,
    SPACES,
    UNRESOLVED,
    Cell,
    cell_label,
    figures_table,
    make_cells,
    priors_table,
    share_sentence,
    size_table,
    verdict_table,
)
from vae_jax.studies.linear_forecast import forecast_section
from vae_jax.studies.sweep_results import MeasuredMember, MeasuredSweep
from vae_jax.types import UserError

FEW_SEEDS = 3  # with fewer, charts show the range of the seeds instead of an interval
MARKERS = "osD^vPX*"
TICK_STEPS = (1, 2, 2.5, 5, 10)
SIZE = (4.8, 3.5)  # inches; readable on a phone without zooming


def duration(seconds: float) -> str:
    """Returns seconds as text, with minutes from one minute on."""
    minutes, rest = divmod(math.floor(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"


# Charts.


def _scale(set_scale: Any, axis: Any, values: Sequence[float]) -> None:
    """Makes an axis logarithmic, linear below 1, where values differ by more than a decade."""
    if max(values, default=1.0) > 20 * max(1.0, min(values, default=1.0)):
        set_scale("symlog", linthresh=1.0)
        axis.set_major_formatter("{x:g}")


def _colours(count: int) -> list[Any]:
    scale = matplotlib.colormaps["viridis"]
    return [scale(0.88 * k / max(1, count - 1)) for k in range(count)]


def _lines(cells: Sequence[Cell]) -> dict[str, list[Cell]]:
    """Returns cells by z_dim (and learning rate, if several), each in order of KL weight."""
    several = len({cell.learning_rate for cell in cells}) > 1
    lines: dict[str, list[Cell]] = {}
    for cell in cells:
        rate = f", lr {cell.learning_rate:g}" if several else ""
        lines.setdefault(f"Z = {cell.z_dim}{rate}", []).append(cell)
    return lines


def _bars(cells: Sequence[Cell], name: str) -> tuple[list[float], list[list[float]] | None]:
    """Returns means, and how far the bars reach below and above; None for one seed."""
    means, reach = [], [[], []]
    for cell in cells:
        values = list(cell.by_seed(name).values())
        interval = interval_of(values)
        low, high = min(values), max(values)
        if interval.count >= FEW_SEEDS:
            low, high = interval.low, interval.high
        if min(values) >= 0:
            low = max(low, 0.0)  # The figure cannot be negative.
        means.append(interval.mean)
        reach[0].append(interval.mean - low)
        reach[1].append(high - interval.mean)
    return means, reach if any(len(cell.members) > 1 for cell in cells) else None


def _plot(axes: Any, k: int, x: Any, y: Any, bars: Any, x_bars: Any = None, **style: Any) -> None:
    """Draws line number k of a chart, with error bars."""
    marker = MARKERS[k % len(MARKERS)]
    axes.errorbar(x, y, bars, x_bars, marker=marker, markersize=4.5, elinewidth=0.8, **style)


def _mark_weights(axes: Any, weights: Sequence[float]) -> None:
    axes.set_xticks(range(len(weights)), [f"{weight:g}" for weight in weights])


def rate_distortion(cells: Sequence[Cell]) -> Image.Image:
    """Draws the reconstruction term against KL, one line per latent size over the KL weights."""
    figure, ((axes,),) = new_chart(*SIZE)
    lines = _lines([cell for cell in cells if cell.by_seed("kl") and cell.by_seed("recon")])
    for k, (label, own) in enumerate(lines.items()):
        (rate, rate_bars), (distortion, bars) = _bars(own, "kl"), _bars(own, "recon")
        colour = _colours(len(lines))[k]
        _plot(axes, k, rate, distortion, bars, rate_bars, color=colour, label=label)
        linear = [cell for cell in own if cell.by_seed("linear_kl")]
        axes.plot(
            [cell.mean("linear_kl") for cell in linear],
            [cell.mean("linear_recon") for cell in linear],
            color=colour, linestyle=":", linewidth=1,
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

    The weights are shown at equal distances, since 0 may be among them.

    Args:
        cells: Cells, some of which have the figure.
        name: Name of the figure.
        label: Label of the vertical axis.
    """
    figure, ((axes,),) = new_chart(*SIZE)
    cells = [cell for cell in cells if cell.by_seed(name)]
    weights = sorted({cell.kl_weight for cell in cells})
    lines = _lines(cells)
    for k, (title, own) in enumerate(lines.items()):
        means, bars = _bars(own, name)
        shift = 0.06 * (k - (len(lines) - 1) / 2)  # Bars of different lines must not overlap.
        places = [weights.index(cell.kl_weight) + shift for cell in own]
        _plot(axes, k, places, means, bars, color=_colours(len(lines))[k], label=title)
    floors = {}
    for cell in cells:
        floors |= cell.by_seed(f"{name}_floor")
    if floors:
        floor = interval_of(list(floors.values()))
        axes.axhline(floor.mean, color="0.4", linestyle="--", linewidth=1, label="real to real")
    if name == "kl":
        _scale(axes.set_yscale, axes.yaxis, _bars(cells, name)[0])
    _mark_weights(axes, weights)
    axes.set(xlabel="KL weight", ylabel=label)
    axes.legend(loc="best", fontsize=8)
    return drawn(figure)


def against_prior(cells: Sequence[Cell], name: str) -> Image.Image:
    """Draws a distance of samples against the KL weight, a panel per Z and a line per prior.

    Args:
        cells: Cells, some of which have the figure.
        name: Name of the distance, for N(0, I).
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
                colour = COLOURS[k % len(COLOURS)]
                _plot(axes, k, places, means, bars, color=colour, label=source)
        floors = [v for cell in own for v in cell.by_seed(f"{name}_floor").values()]
        if floors:
            axes.axhline(
                np.mean(floors), color="0.4", linestyle="--", linewidth=1, label="real to real"
            )
        if name.endswith("frechet"):
            axes.set_yscale("log")
        _mark_weights(axes, weights)
        axes.set(title=title, xlabel="KL weight", ylabel=FIGURES[name].title)
    shown = {
        label: line
        for axes in panels.flat
        for line, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=3, fontsize=8)
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
    axes.xaxis.set_major_locator(MaxNLocator("auto", steps=TICK_STEPS, integer=True))
    axes.legend(fontsize=7, ncols=2)
    return drawn(figure)


# The page.


def page(results: Sequence[MeasuredSweep]) -> Page:
    """Returns the page of one or several sweeps.

    Args:
        results: Results of `sweep_measurement.measure` or `read_results`, merged.
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
    """Returns the numbers of results.json: those of one sweep, or of all sweeps of a report."""
    if len(results) == 1:
        return results[0].numbers
    return {"sweeps": [result.numbers for result in results]}


def title_of(result: MeasuredSweep) -> str:
    """Returns the name and the image shape of the data of a sweep."""
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
        tables = [verdict_table(cells), size_table(cells)]
        sections = [
            Section("Verdicts", share_sentence(cells), tables=[t for t in tables if t]),
            _chart_section(cells, tag),
            *_prior_sections(cells, tag),
            *filter(None, [forecast_section(cells)]),
            _number_section(cells, result),
        ]
        shown = [_picture_section(kind, cells, tag) for kind in PICTURES]
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
            "Distance of prior samples from test images, by patches of normalised contrast; lower "
            "is better.",
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
            "Rate and distortion: each line is one latent size over the KL weights w. Lower and "
            "further left is better; larger weights lie further left. Dotted, where there is a "
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


def _prior_sections(cells: Sequence[Cell], tag: str) -> list[Section]:
    """Returns the section on fitted priors; no section without their figures."""
    names = [name for name in DISTANCES if any(cell.by_seed(f"{name}_codes") for cell in cells)]
    if not names:
        return []
    text = (
        "The same decoders, given points of N(0, I) or of a density fitted to the codes of "
        "training images. Decoded codes are draws of the posteriors of training images, which no "
        "prior can beat but by luck. Where the line of a fitted prior is low at a weight and that "
        "of N(0, I) is not, the weight is good and only the prior was wrong."
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
        f"{BEST}: best on validation; {UNRESOLVED}: not resolved from it on test."
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


# By file name of a member's picture: its heading and caption.
PICTURES = {
    f"samples{suffix}": (
        f"Samples of {source}",
        f"Decoded points of {source}, of the first seed: every KL weight of one Z has the same "
        "random numbers.",
    )
    for suffix, source in SOURCES.items()
    if suffix != "_codes"
} | {
    "reconstructions": (
        "Reconstructions",
        "The same test images for every model: a row of originals, and below it their "
        "reconstructions from the posterior mean.",
    )
}


def _picture_section(kind: str, cells: Sequence[Cell], tag: str) -> Section:
    pictures, (heading, text) = [], PICTURES[kind]
    label = cell_label(cells)
    samples = kind.startswith("samples")
    names = (f"sliced_wasserstein{kind[7:]}",) if samples else ("psnr", "kl")
    for cell in cells:
        member = cell.members[0]
        path = member.folder / f"{kind}.png"
        # There may be an old picture of a prior that the member was not measured with this time.
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
