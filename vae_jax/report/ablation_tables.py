"""The results of sweeps as tables: read, merged, averaged over seeds, put into words."""

from __future__ import annotations

import copy
import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vae_jax.types import UserError

RESULTS = "results.json"
SCHEMA = 1
AVERAGED = ("recon", "kl", "elbo", "kl_share", "beta", "active_units", "psnr", "sliced_wasserstein",
            "radius_mean", "effective_dimensions")  # fmt: skip
# Title and format of the columns of a study's tables.
COLUMNS = {
    "beta": ("beta", "{:.3g}"),
    "recon": ("R [nats]", "{:,.1f}"),
    "kl": ("KL [nats]", "{:,.1f}"),
    "elbo": ("ELBO [nats]", "{:,.1f}"),
    "kl_share": ("KL share", "{:.2%}"),
    "active_units": ("active units", "{:.3g}"),
    "psnr": ("PSNR [dB]", "{:.2f}"),
    "sliced_wasserstein": ("SW of samples", "{:.4f}"),
    "radius_mean": ("radius (prior)", "{:.2f}"),
}
# KL share that the first of the claims is about.
SHARE = 0.03


def read_results(workdir: str | Path) -> dict[str, Any]:
    """The results of one sweep.

    Raises:
        UserError: there are none, or they are not what this version writes.
    """
    path = Path(workdir) / RESULTS
    if not path.exists():
        raise UserError(f"{str(workdir)!r} has no {RESULTS}; run experiments.ablation there first")
    try:
        results = json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); measure the sweep again") from None
    if not isinstance(results, dict) or results.get("schema") != SCHEMA:
        raise UserError(f"{path} has another format; run experiments.ablation again to renew it")
    for member in results["members"]:
        member["folder"] = str(workdir)
    return results


def merge_studies(all_results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put sweeps together whose configs agree in all but what is swept.

    Args:
        all_results: of `read_results`.

    Returns:
        Studies, in the order given: results with the members of all sweeps that belong together;
        of members with one name the last one stays. `workdirs` names the sweeps.
    """
    studies: dict[str, dict[str, Any]] = {}
    for results in all_results:
        results = copy.deepcopy(results)
        key = _common_config(results["config"])
        if key not in studies:
            studies[key] = results | {"workdirs": [results["workdir"]]}
            continue
        study = studies[key]
        members = {member["name"]: member for member in study["members"]}
        members |= {member["name"]: member for member in results["members"]}
        study["members"] = sorted(members.values(), key=_order)
        study["workdirs"].append(results["workdir"])
        for kind, seconds in results["seconds"].items():
            study["seconds"][kind] += seconds
    return list(studies.values())


def _common_config(config: dict[str, Any]) -> str:
    config = copy.deepcopy(config)
    config.pop("sweep", None)
    config.pop("seed")
    config["data"].pop("path")
    for section, field in (
        ("loss", "kl_weight"), ("model", "z_dim"), ("optimizer", "learning_rate"),
    ):  # fmt: skip
        config[section].pop(field)
    return json.dumps(config, sort_keys=True)


def _order(member: dict[str, Any]) -> tuple[float, ...]:
    return tuple(member[name] for name in ("z_dim", "kl_weight", "learning_rate", "seed"))


def seed_spread(members: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over seeds, and how far the seeds are apart.

    Args:
        members: rows of results.

    Returns:
        A row for each (z_dim, KL weight, learning rate) with at least one finished member: these
        values, `seeds`, and for every averaged figure that all have `{"mean", "std", "low",
        "high"}` (standard deviation with n - 1; None for a single seed).
    """
    groups: dict[tuple[float, ...], list[dict[str, Any]]] = {}
    for member in sorted(members, key=_order):
        if member["status"] == "finished":
            groups.setdefault(_order(member)[:3], []).append(flat_figures(member))
    rows = []
    for (z_dim, kl_weight, learning_rate), same in groups.items():
        row: dict[str, Any] = {
            "z_dim": z_dim,
            "kl_weight": kl_weight,
            "learning_rate": learning_rate,
            "seeds": [member["seed"] for member in same],
            "radius_prior": same[0]["radius_prior"],
        }
        for name in AVERAGED:
            values = [member[name] for member in same if member.get(name) is not None]
            if len(values) == len(same):
                row[name] = {
                    "mean": statistics.fmean(values),
                    "std": statistics.stdev(values) if len(values) > 1 else None,
                    "low": min(values),
                    "high": max(values),
                }
        rows.append(row)
    return rows


def flat_figures(member: dict[str, Any]) -> dict[str, Any]:
    """A finished member with the figures of its nested records beside the others."""
    return member | {
        "radius_mean": member["radius"]["mean"],
        "radius_prior": member["radius"]["prior_mean"],
        "effective_dimensions": member["covariance"]["effective_dimensions"],
    }


def spread_table(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Header and cells of the rows of one z_dim; columns that no row has are left out."""
    several = len({row["learning_rate"] for row in rows}) > 1
    used = [name for name in COLUMNS if any(name in row for row in rows)]
    header = ["KL weight"] + ["learning rate"] * several + [COLUMNS[name][0] for name in used]
    cells = []
    for row in rows:
        values = [_cell(name, row.get(name)) for name in used]
        if "radius_mean" in used:
            values[used.index("radius_mean")] += f" ({row['radius_prior']:.2f})"
        rate = [f"{row['learning_rate']:g}"] * several
        cells.append([f"{row['kl_weight']:g}", *rate, *values])
    return header, cells


def _cell(name: str, figure: dict[str, Any] | None) -> str:
    if figure is None:
        return "–"
    form = COLUMNS[name][1]
    text = form.format(figure["mean"])
    spread = figure["std"]
    return f"{text} ± {form.format(spread)}" if spread else text


def findings(rows: Sequence[dict[str, Any]], floor: float) -> list[str]:
    """The most asked-for comparisons, as sentences with their numbers."""
    if not rows:
        return ["No member is finished."]

    def name(row: dict[str, Any]) -> str:
        return f"KL weight {row['kl_weight']:g}, Z = {row['z_dim']}"

    sentences = []
    with_elbo = [row for row in rows if "elbo" in row]
    if with_elbo:
        best = max(with_elbo, key=lambda row: row["elbo"]["mean"])
        sentences.append(f"Best ELBO: {best['elbo']['mean']:,.1f} nats per image ({name(best)}).")
    measured = [row for row in rows if "psnr" in row]
    if measured:
        best = max(measured, key=lambda row: row["psnr"]["mean"])
        sentences.append(f"Best reconstructions: {best['psnr']['mean']:.2f} dB ({name(best)}).")
    best = min(rows, key=lambda row: row["sliced_wasserstein"]["mean"])
    sentences.append(
        f"Prior samples nearest to test images: sliced Wasserstein "
        f"{best['sliced_wasserstein']['mean']:.4f} ({name(best)}); real against real {floor:.4f}."
    )
    return sentences + _size_finding(rows, best) + [_share_finding(rows)]


def _size_finding(rows: Sequence[dict[str, Any]], best: dict[str, Any]) -> list[str]:
    """What a larger Z does at the weight of the best samples."""
    swept = ("kl_weight", "learning_rate")
    same = [row for row in rows if all(row[name] == best[name] for name in swept)]
    if len(same) < 2:
        return []
    samples = ", ".join(f"{r['sliced_wasserstein']['mean']:.4f} (Z = {r['z_dim']})" for r in same)
    text = (
        f"At KL weight {best['kl_weight']:g}, distance of prior samples by latent size: {samples}"
    )
    if all("psnr" in row for row in same):
        decibels = ", ".join(f"{r['psnr']['mean']:.2f} dB (Z = {r['z_dim']})" for r in same)
        text += f"; reconstructions: {decibels}"
    return [text + "."]


def _share_finding(rows: Sequence[dict[str, Any]]) -> str:
    shares: dict[float, list[float]] = {}
    for row in rows:
        shares.setdefault(row["kl_weight"], []).append(row["kl_share"]["mean"])
    above = [weight for weight, values in shares.items() if min(values) > SHARE]
    if not above:
        largest = max(max(values) for values in shares.values())
        return (
            f"No KL weight gives all models a KL share above {SHARE:.0%}; the most: {largest:.2%}."
        )
    weight = min(above)
    low, high = min(shares[weight]), max(shares[weight])
    span = f"{low:.2%} to {high:.2%}" if high > low else f"{low:.2%}"
    return (
        f"KL weight {weight:g} is the smallest whose models all have a KL share of the loss above "
        f"{SHARE:.0%}: {span}."
    )


def problems(members: Sequence[dict[str, Any]]) -> list[str]:
    """Members without figures, and why."""
    return [
        f"{member['name']}: {member['status']} at step {member['step']}. {member['reason']}"
        for member in members
        if member["status"] != "finished"
    ]


def duration(seconds: float) -> str:
    """Seconds in words."""
    minutes, rest = divmod(math.floor(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"
