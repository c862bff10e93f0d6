"""All members of a sweep measured, as one JSON-able record and one table."""

from __future__ import annotations

import csv
import json
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from vae_jax import config as configs
from vae_jax.data.splits import Splits
from vae_jax.evaluate import member_metrics
from vae_jax.evaluate.member_metrics import MemberPictures, member_figures, quality_floor
from vae_jax.run import Run, open_run
from vae_jax.run_folder import read_rows
from vae_jax.train.sweep import Member, SweepResult, member_folder, read_record

RESULTS_JSON, RESULTS_CSV, FIGURES = "results.json", "results.csv", "figures.json"
SCHEMA = 1
Draw = Callable[[Run, MemberPictures], dict[str, str]]
CURVES = ("loss", "recon_nats", "kl")
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")
CSV_COLUMNS: tuple[str, ...] = (
    "name", "kl_weight", "z_dim", "learning_rate", "seed", "beta", "recon", "kl", "elbo",
    "kl_share", "active_units", "psnr", "sliced_wasserstein", "sliced_wasserstein_floor",
    "radius_mean", "radius_std", "radius_prior_mean", "offset_norm", "effective_dimensions",
    "status", "reason", "step", "seconds", "config_digest",
)  # fmt: skip


def collect_results(
    config: ConfigDict,
    workdir: str | Path,
    result: SweepResult,
    splits: Splits,
    draw: Draw,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Measure every finished member and gather what is known of all.

    A member's figures are kept in its folder beside its pictures, and
    measured again only after more training.

    Args:
        config: of the sweep.
        workdir: of the sweep.
        result: of `fit_sweep`.
        splits: the data.
        draw: writes a member's pictures into its folder and returns their names by kind.
        say: prints a line a member.

    Returns:
        The results: `members`, a list in order of z_dim, KL weight, learning rate and seed, each
        with its values, figures, `curves` and `pictures` (paths below `workdir`); and what was
        run: config, versions, device, wall time.
    """
    began, workdir = time.monotonic(), Path(workdir)
    floor = quality_floor(splits)
    rows = []
    for number, member in enumerate(result.members, start=1):
        rows.append(_member_row(member, workdir, result, splits, draw))
        say(f"measured {number}/{len(result.members)}: {member.name}, {rows[-1]['status']}")
        rows[-1]["sliced_wasserstein_floor"] = floor
    order = ("z_dim", "kl_weight", "learning_rate", "seed")
    rows.sort(key=lambda row: [row[name] for name in order])
    device = jax.devices()[0]
    return {
        "schema": SCHEMA,
        "workdir": str(workdir),
        "created": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "config": config.to_dict(),
        "config_digest": configs.digest(config),
        "versions": {"python": platform.python_version()}
        | {package: version(package) for package in PACKAGES},
        "device": f"{len(jax.devices())} x {device.device_kind} ({device.platform})",
        "train_images": len(splits.train),
        "test_images": len(splits.test),
        "quality": {
            "images": min(len(splits.test), len(splits.train), member_metrics.QUALITY_IMAGES),
            "sample_seed": member_metrics.SAMPLE_SEED,
            "sliced_wasserstein_floor": floor,
            **member_metrics.QUALITY_SETTINGS,
        },
        "seconds": {
            "training": sum(row["seconds"] for row in rows),
            "measuring": time.monotonic() - began,
        },
        "members": rows,
    }


def _member_row(
    member: Member, workdir: Path, result: SweepResult, splits: Splits, draw: Draw
) -> dict[str, Any]:
    folder, outcome = member_folder(workdir, member), result.outcomes[member.name]
    row = {
        "name": member.name,
        **member.values(),
        **outcome._asdict(),
        "seconds": read_record(folder).get("seconds", 0.0),
        "config_digest": configs.digest(member.config),
        "curves": _curves(folder),
    }
    if outcome.status != "finished":
        return row
    measured = _measured(member, folder, outcome.step, splits, draw)
    beside = folder.relative_to(workdir)
    pictures = {kind: str(beside / name) for kind, name in measured["pictures"].items()}
    return row | measured["figures"] | {"pictures": pictures}


def _measured(
    member: Member, folder: Path, step: int, splits: Splits, draw: Draw
) -> dict[str, Any]:
    key = {"step": step, "config_digest": configs.digest(member.config), "schema": SCHEMA}
    path = folder / FIGURES
    if path.exists():
        kept = json.loads(path.read_text())
        if kept["key"] == key:
            return kept
    run = open_run(folder, step)
    figures, pictures = member_figures(run, splits)
    measured = {"key": key, "figures": figures, "pictures": draw(run, pictures)}
    _write(path, json.dumps(measured, indent=1, allow_nan=False) + "\n")
    return measured


def _curves(folder: Path) -> dict[str, dict[str, list[float | None]]]:
    curves = {}
    for split in ("train", "test"):
        rows = [row for row in read_rows(folder) if row["split"] == split]
        curves[split] = {name: [row.get(name) for row in rows] for name in ("epoch", *CURVES)}
    return curves


def write_results(workdir: str | Path, results: dict[str, Any]) -> list[Path]:
    """Write WORKDIR/results.json and the table of its members as WORKDIR/results.csv."""
    paths = [Path(workdir) / name for name in (RESULTS_JSON, RESULTS_CSV)]
    _write(paths[0], json.dumps(results, indent=1, allow_nan=False) + "\n")
    temporary = paths[1].with_suffix(".tmp")
    with temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, CSV_COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(_flat(row) for row in results["members"])
    temporary.replace(paths[1])
    return paths


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    radius, covariance = row.get("radius", {}), row.get("covariance", {})
    return row | {
        "radius_mean": radius.get("mean"),
        "radius_std": radius.get("std"),
        "radius_prior_mean": radius.get("prior_mean"),
        "offset_norm": covariance.get("offset_norm"),
        "effective_dimensions": covariance.get("effective_dimensions"),
    }


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    temporary.replace(path)
