"""The charts of an ablation report: rows of results in, SVG text out."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

Row = dict[str, Any]

# Narrow enough to be read on a phone without zooming.
SIZE = (4.4, 3.3)
MARKERS = "osD^vPX*"
NICE = (1, 2, 2.5, 5, 10)  # steps of ticks
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "vae_jax",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "lines.markersize": 4.5,
    "lines.linewidth": 1.4,
}


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def _scale(set_scale: Any, axis: Any, values: Sequence[float]) -> None:
    """A logarithmic axis, linear below 1, where values differ by more than a decade or so."""
    if max(values, default=1.0) > 20 * max(1.0, min(values, default=1.0)):
        set_scale("symlog", linthresh=1.0)
        axis.set_major_formatter("{x:g}")


def _colours(count: int) -> list[Any]:
    scale = matplotlib.colormaps["viridis"]
    return [scale(0.88 * k / max(1, count - 1)) for k in range(count)]


def series(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows of `seed_spread` by z_dim (and learning rate, if several), each by KL weight."""
    several = len({row["learning_rate"] for row in rows}) > 1
    lines: dict[str, list[Row]] = {}
    for row in rows:
        rate = f", lr {row['learning_rate']:g}" if several else ""
        lines.setdefault(f"Z = {row['z_dim']}{rate}", []).append(row)
    return lines


def _errors(rows: Sequence[Row], name: str) -> list[list[float]] | None:
    if all(len(row["seeds"]) == 1 for row in rows):
        return None
    return [
        [row[name]["mean"] - row[name]["low"] for row in rows],
        [row[name]["high"] - row[name]["mean"] for row in rows],
    ]


def rate_distortion(rows: Sequence[Row]) -> str:
    """Reconstruction term against KL, one line a z_dim over the KL weights.

    Args:
        rows: of `seed_spread`; bars span the seeds.

    Returns:
        SVG.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(SIZE, layout="constrained")
        axes = figure.add_subplot()
        lines = series(rows)
        for k, (label, own) in enumerate(lines.items()):
            axes.errorbar(
                [row["kl"]["mean"] for row in own],
                [row["recon"]["mean"] for row in own],
                _errors(own, "recon"),
                _errors(own, "kl"),
                color=_colours(len(lines))[k],
                marker=MARKERS[k % len(MARKERS)],
                label=label,
                elinewidth=0.8,
            )
        for row in [row for own in list(lines.values())[-1:] for row in own]:
            axes.annotate(
                f"w = {row['kl_weight']:g}",
                (row["kl"]["mean"], row["recon"]["mean"]),
                xytext=(4, -9),
                textcoords="offset points",
                fontsize=7,
                color="0.35",
            )
        _scale(axes.set_xscale, axes.xaxis, [row["kl"]["mean"] for row in rows])
        axes.set_xlabel("rate: KL [nats per image]")
        axes.set_ylabel("distortion: R [nats per image]")
        axes.legend(loc="best", fontsize=8)
        return _svg(figure)


def against_weight(rows: Sequence[Row], name: str, label: str, floor: float | None = None) -> str:
    """A figure against the KL weight, one line a z_dim.

    Args:
        rows: of `seed_spread`; bars span the seeds.
        name: of the figure.
        label: of the vertical axis.
        floor: drawn as a dashed line.

    Returns:
        SVG. The weights stand side by side at equal distances, since 0 may be among them.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(SIZE, layout="constrained")
        axes = figure.add_subplot()
        weights = sorted({row["kl_weight"] for row in rows})
        lines = series([row for row in rows if name in row])
        for k, (title, own) in enumerate(lines.items()):
            shift = 0.06 * (k - (len(lines) - 1) / 2)  # Bars of different lines stay apart.
            axes.errorbar(
                [weights.index(row["kl_weight"]) + shift for row in own],
                [row[name]["mean"] for row in own],
                _errors(own, name),
                color=_colours(len(lines))[k],
                marker=MARKERS[k % len(MARKERS)],
                label=title,
                elinewidth=0.8,
            )
        if floor is not None:
            axes.axhline(floor, color="0.4", linestyle="--", linewidth=1, label="real vs. real")
        if name == "kl":
            _scale(axes.set_yscale, axes.yaxis, [row[name]["mean"] for row in rows])
        axes.set_xticks(range(len(weights)), [f"{weight:g}" for weight in weights])
        axes.set_xlabel("KL weight")
        axes.set_ylabel(label)
        axes.legend(loc="best", fontsize=8)
        return _svg(figure)


def training_curves(members: Sequence[Row], title: str) -> str:
    """R and KL on the test split over epochs, a colour a KL weight, all seeds.

    Args:
        members: rows of results, of one z_dim.
        title: of the chart.

    Returns:
        SVG.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure((SIZE[0], 1.25 * SIZE[1]), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True)
        weights = sorted({member["kl_weight"] for member in members})
        colours = dict(zip(weights, _colours(len(weights)), strict=True))
        seen: set[float] = set()
        for member in members:
            weight, curve = member["kl_weight"], member["curves"]["test"]
            label = None if weight in seen else f"w = {weight:g}"
            seen.add(weight)
            for axes, name in ((upper, "recon_nats"), (lower, "kl")):
                values = [float("nan") if v is None else v for v in curve[name]]
                axes.plot(
                    curve["epoch"], values, color=colours[weight], label=label, marker=".",
                    linewidth=1,
                )  # fmt: skip
        upper.set_title(title, fontsize=9)
        upper.set_ylabel("R [nats]")
        lower.set_ylabel("KL [nats]")
        _scale(
            lower.set_yscale,
            lower.yaxis,
            [v for m in members for v in m["curves"]["test"]["kl"] if v],
        )
        lower.set_xlabel("epoch")
        lower.xaxis.get_major_locator().set_params(integer=True)
        upper.legend(fontsize=7, ncols=2)
        return _svg(figure)


def kl_spectra(members: Sequence[Row]) -> str:
    """KL of every latent dimension, sorted, for the first seed: which units are in use.

    Args:
        members: finished rows of results, of one z_dim.

    Returns:
        SVG.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(SIZE, layout="constrained")
        axes = figure.add_subplot()
        for member, colour in zip(members, _colours(len(members)), strict=True):
            values = sorted(member["kl_per_dimension"], reverse=True)
            axes.plot(
                range(1, len(values) + 1),
                values,
                color=colour,
                label=f"w = {member['kl_weight']:g}",
            )
        axes.set_title(f"Z = {members[0]['z_dim']}", fontsize=9)
        axes.set_yscale("symlog", linthresh=0.01)
        axes.yaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_major_locator(MaxNLocator("auto", steps=NICE, integer=True))
        axes.set_xlabel("latent dimension, by KL")
        axes.set_ylabel("KL [nats per image]")
        axes.legend(fontsize=7, ncols=2)
        return _svg(figure)
