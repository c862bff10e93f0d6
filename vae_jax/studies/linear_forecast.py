"""What a linear VAE reaches in closed form, beside what the members of a sweep have reached.

The forecast needs training images, a KL weight and a latent size, but no training: see
`metrics.linear_vae`. A VAE can do all that a linear one can, so that its objective should lie below
the forecast; one whose objective lies above is under-trained.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vae_jax.metrics.linear_vae import FORECAST
from vae_jax.report.page import Section, Table
from vae_jax.studies.cells import Cell, cell_label


def forecast_section(cells: Sequence[Cell]) -> Section | None:
    """Returns the forecast beside what was measured; None if no cell of a sweep has one."""
    label = cell_label(cells)
    cells = [cell for cell in cells if cell.by_seed("linear_kl")]
    if not cells:
        return None
    rows, errors, above = [], [], []
    for cell in cells:
        beta, kl, recon, active = map(cell.mean, ("beta", "kl", "recon", "active_units"))
        linear = {name: cell.mean(f"linear_{name}") for name in FORECAST}
        gap = recon + beta * kl - linear["recon"] - beta * linear["kl"]
        errors.append((linear["kl"] / kl - 1, linear["active_units"] / max(active, 1) - 1))
        above += [label(cell)] if gap > 0 else []
        row = [f"{beta:.3g}", f"{kl:.2f}", f"{linear['kl']:.2f}", f"{errors[-1][0]:+.0%}"]
        row += [f"{active:.3g}", f"{linear['active_units']:g}", f"{gap:+.2f}"]
        rows.append([label(cell), *row])
    of_kl, of_active = np.median(np.abs(errors), axis=0)
    verdict = "Every cell lies below the linear VAE's objective, as a trained network should."
    if above:
        verdict = (
            "Above the linear VAE's objective, and so not trained long enough: "
            + ", ".join(above) + "."
        )  # fmt: skip
    text = (
        "A linear VAE is solved in closed form from the eigenvalues of the training images, before "
        f"anything is trained. Its KL is off by {of_kl:.0%}, its active units by {of_active:.0%} "
        f"(medians over cells of the relative error). {verdict}"
    )
    header = ("", "beta", "KL", "linear", "error", "active units", "linear", "objective - linear")
    caption = (
        "KL and the objective R + beta KL in nats per image, means over seeds. Measured on test "
        "images; the linear VAE is that of training images."
    )
    tables = [Table(header, rows, caption), _collapse_table(cells)]
    return Section("A linear VAE, in closed form", text, tables=tables)


def _collapse_table(cells: Sequence[Cell]) -> Table:
    """Returns the betas from which the first and the last dimension die, forecast and measured."""
    rows = []
    for z_dim in sorted({cell.z_dim for cell in cells}):
        own = sorted((cell for cell in cells if cell.z_dim == z_dim), key=lambda c: c.mean("beta"))
        first, last = (own[0].mean(f"linear_{name}_collapse") for name in ("first", "last"))
        rows.append(
            [f"Z = {z_dim}", f"{first:.3g}", _between(own, z_dim - 0.5), f"{last:.3g}",
             _between(own, 0.5)]
        )  # fmt: skip
    header = ("", "first dies at, linear", "measured", "last dies at, linear", "measured")
    caption = "Values of beta. Measured: between which cells the count of active units falls."
    return Table(header, rows, caption)


def _between(cells: Sequence[Cell], fewer_than: float) -> str:
    """Returns between which betas of cells, rising, the active units fall below a number."""
    betas = [cell.mean("beta") for cell in cells]
    fallen = [cell.mean("active_units") < fewer_than for cell in cells]
    if not any(fallen):
        return f"above {betas[-1]:.3g}"
    k = fallen.index(True)
    return f"below {betas[0]:.3g}" if k == 0 else f"{betas[k - 1]:.3g} to {betas[k]:.3g}"
