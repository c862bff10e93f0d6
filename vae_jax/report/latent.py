"""Charts of the aggregate posterior and of paths: summaries and arrays in, pictures out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from PIL import Image

from vae_jax.report.charts import COLOURS, drawn, new_chart

BINS = 40


def posterior_chart(
    summary: Mapping[str, Any],
    radii: np.ndarray,
    radii_of_means: np.ndarray,
    prior_radius: tuple[np.ndarray, np.ndarray],
) -> Image.Image:
    """Six views of the aggregate posterior.

    Args:
        summary: of `vae_jax.metrics.posterior.summary`.
        radii: `[N]`, |z| of draws of the aggregate posterior.
        radii_of_means: `[N]`.
        prior_radius: places `[R]` and probability density `[R]` of |z| under N(0, I).

    Returns:
        The chart.
    """
    figure, axes = new_chart(11, 6.4, 2, 3)
    blue, red, green = COLOURS[:3]
    radius, spectrum, kl = axes[0]
    radius.hist(radii, BINS, density=True, color=blue, alpha=0.6, label="draws of q(z)")
    radius.hist(radii_of_means, BINS, density=True, color=green, alpha=0.6, label="means E[z|x]")
    radius.plot(*prior_radius, color=red, label="N(0, I): chi law")
    radius.set(title="Radius |z|", xlabel="|z|", ylabel="density")
    ranks = np.arange(1, len(summary["spectrum"]) + 1)
    spectrum.plot(ranks, summary["spectrum"], ".-", color=blue, label="aggregate posterior")
    spectrum.plot(ranks, summary["spectrum_of_means"], ".-", color=green, label="means")
    spectrum.axhline(1, color=red, lw=1, label="N(0, I)")
    spectrum.set(title="Eigenvalues of the covariance", xlabel="rank", yscale="log")
    order = np.argsort(summary["kl_per_dimension"])[::-1]
    active = np.array(summary["active_mask"])[order]
    heights = np.array(summary["kl_per_dimension"])[order]
    kl.bar(ranks, heights, 1.0, color=np.where(active, blue, "#bbbbbb"))
    count = f"{summary['active_units']} of {summary['z_dim']} active"
    kl.set(title=f"KL by dimension ({count})", xlabel="rank", ylabel="nats")
    shape, quantiles, variance = axes[1]
    shape.plot(summary["skewness"], summary["excess_kurtosis"], "o", color=blue, ms=4)
    shape.plot([0], [0], "+", color=red, ms=12, mew=2, label="a Gaussian")
    shape.set(title="Marginals of q(z)", xlabel="skewness", ylabel="excess kurtosis")
    qq = summary["mahalanobis"]
    quantiles.plot(qq["chi_square"], qq["observed"], ".", color=blue, label="q(z)")
    quantiles.plot(qq["chi_square"], qq["chi_square"], color=red, lw=1, label="any Gaussian")
    quantiles.set(title="Squared Mahalanobis distance", xlabel="chi-square", ylabel="observed")
    variance.plot(ranks, np.array(summary["variance_of_means"])[order], ".", color=green)
    variance.plot(ranks, np.array(summary["mean_variance"])[order], ".", color=blue)
    variance.plot([], [], ".", color=green, label="variance of the means")
    variance.plot([], [], ".", color=blue, label="mean variance")
    variance.plot(ranks, np.array(summary["offset"])[order] ** 2, "x", color=red, ms=4)
    variance.plot([], [], "x", color=red, label="squared mean offset")
    variance.set(title="Where the variance is, by dimension", xlabel="rank of the KL")
    for axis in (radius, spectrum, shape, quantiles, variance):
        axis.legend(fontsize=8)
    return drawn(figure)


def scatter_chart(
    points: np.ndarray, groups: np.ndarray | None, names: Sequence[str], axis_names: Sequence[str]
) -> Image.Image:
    """Codes in two dimensions, a colour for each group.

    Args:
        points: `[N, 2]`.
        groups: `[N]` number of each point's group, or None.
        names: of the groups.
        axis_names: of the two dimensions.

    Returns:
        The chart.
    """
    figure, axes = new_chart(6.5, 5.5)
    axis = axes[0, 0]
    if groups is None:
        axis.plot(*points.T, ".", ms=3, color=COLOURS[0])
    else:
        palette = [colormaps["tab10"](i) for i in range(10)]
        for number, name in enumerate(names):
            some = points[groups == number]
            colour = palette[number % len(palette)]
            axis.plot(*some.T, ".", ms=4, alpha=0.7, color=colour, label=name)
        axis.legend(fontsize=8, markerscale=2, loc="center left", bbox_to_anchor=(1, 0.5))
    axis.set(xlabel=axis_names[0], ylabel=axis_names[1], aspect="equal")
    return drawn(figure)


def block_chart(changes: Mapping[int, float]) -> Image.Image:
    """Mean change of an image against how many components were moved."""
    figure, axes = new_chart(5.5, 3.5)
    axis = axes[0, 0]
    axis.plot(list(changes), list(changes.values()), "o-", color=COLOURS[0])
    axis.set(xlabel="components moved together", ylabel="RMS change of pixels", xscale="log")
    axis.set_xticks(list(changes), [str(size) for size in changes])
    axis.minorticks_off()
    return drawn(figure)


SUMMARY = (
    ("images", "images", "{:,}"),
    ("z_dim", "Z", "{}"),
    ("kl", "KL, nats per image", "{:.2f}"),
    ("active_units", "active units, Var E[z|x] > 0.01", "{}"),
    ("offset_norm", "distance of the mean code from the origin", "{:.3f}"),
    ("mmd", "MMD to the prior (IMQ kernels, squared)", "{:.4f}"),
)
PARTS = {
    "mutual_information": "mutual information of image and code, nats",
    "total_correlation": "total correlation, nats",
    "dimension_kl": "KL of the marginals, nats",
}


def summary_rows(summary: Mapping[str, Any]) -> list[list[str]]:
    """Rows `[meaning, value]` of `vae_jax.metrics.posterior.summary`."""
    rows = [[meaning, form.format(summary[key])] for key, meaning, form in SUMMARY]
    rows += [[text, f"{summary['kl_decomposition'][key]:.2f}"] for key, text in PARTS.items()]
    for key, text in (
        ("radius", "radius of q(z)"),
        ("radius_of_means", "radius of the means"),
        ("radius_prior", "radius of N(0, I)"),
    ):
        part = summary[key]
        rows.append([text, f"{part['mean']:.2f} +- {part['std']:.2f}"])
        if key != "radius_prior":
            rows.append([f"{text}: distance to the chi law", f"{part['ks_distance']:.3f}"])
    return rows


def smoothness_rows(figures: Mapping[str, Mapping[str, float]]) -> list[list[str]]:
    """Rows of `vae_jax.latent.path_study.Interpolation.figures`; see `SMOOTHNESS_HEADER`."""
    return [
        [
            kind,
            f"{row['mean_step']:.4f}",
            f"{row['jump']:.2f}",
            f"{row['path_length']:.2f}",
            f"{row['second_difference']:.2f}",
            f"{row['least_radius']:.2f}" if "least_radius" in row else "",
        ]
        for kind, row in figures.items()
    ]


SMOOTHNESS_HEADER = (
    "path", "mean step", "largest / mean step", "length / distance of ends",
    "second / first difference", "least |z| on the way / |z| of the ends",
)  # fmt: skip
