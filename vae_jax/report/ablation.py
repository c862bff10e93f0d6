"""The report of one or several sweeps as a single HTML file, from their results alone."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from vae_jax.report import ablation_figures as figures
from vae_jax.report import ablation_tables as tables

TEMPLATE = Path(__file__).with_name("ablation.html")


def write_report(workdirs: Sequence[str | Path], out: str | Path) -> Path:
    """Write the report of the sweeps in `workdirs` to `out`, all or nothing.

    Args:
        workdirs: of sweeps, each with results.json.
        out: the HTML file; it needs no other file and no network.

    Returns:
        `out`.

    Raises:
        UserError: a folder has no results.
    """
    studies = tables.merge_studies([tables.read_results(workdir) for workdir in workdirs])
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(TEMPLATE.read_text())
    text = template.render(studies=[_study(study) for study in studies])
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(out.name + ".tmp")
    temporary.write_text(text)
    temporary.replace(out)
    return out


def _study(study: dict[str, Any]) -> dict[str, Any]:
    """What the template shows of one study."""
    members = study["members"]
    finished = [member for member in members if member["status"] == "finished"]
    rows = tables.seed_spread(members)
    floor = study["quality"]["sliced_wasserstein_floor"]
    z_dims = sorted({member["z_dim"] for member in finished})
    config, seconds = study["config"], study["seconds"]
    return {
        "title": f"{config['data']['name']}, {'x'.join(map(str, config['data']['image_shape']))}",
        "objective": f"{config['loss']['likelihood']}, {config['loss']['reduction']}",
        "workdirs": study["workdirs"],
        "count": len(members),
        "finished": len(finished),
        "seeds": len({member["seed"] for member in members}),
        "epochs": config["train"]["epochs"],
        "train_images": study["train_images"],
        "test_images": study["test_images"],
        "findings": tables.findings(rows, floor),
        "problems": tables.problems(members),
        "charts": _charts(rows, floor) if rows else [],
        "tables": [
            (z, *tables.spread_table([row for row in rows if row["z_dim"] == z])) for z in z_dims
        ],
        "samples": [(z, _pictures(finished, z, "samples")) for z in z_dims],
        "reconstructions": [(z, _pictures(finished, z, "reconstructions")) for z in z_dims],
        "spectra": [
            (
                f"KL per dimension, Z = {z}",
                _uri("svg+xml", figures.kl_spectra(_one_seed(finished, z))),
            )
            for z in z_dims
        ],
        "curves": [
            (
                f"Training curves, Z = {z}",
                _uri("svg+xml", figures.training_curves(_of(members, z), f"Z = {z}")),
            )
            for z in sorted({member["z_dim"] for member in members})
        ],
        "quality": study["quality"],
        "facts": {
            "created": study["created"],
            "training": tables.duration(seconds["training"]),
            "measuring": tables.duration(seconds["measuring"]),
            "device": study["device"],
            "versions": ", ".join(f"{name} {v}" for name, v in study["versions"].items()),
            "config digest": study["config_digest"],
        },
        "differences": sorted(study.get("differences_from_default", {}).items()),
        "members": members,
    }


def _of(members: Sequence[dict[str, Any]], z_dim: int) -> list[dict[str, Any]]:
    return [member for member in members if member["z_dim"] == z_dim]


def _one_seed(members: Sequence[dict[str, Any]], z_dim: int) -> list[dict[str, Any]]:
    """The first seed of every KL weight and learning rate."""
    first: dict[tuple[float, float], dict[str, Any]] = {}
    for member in _of(members, z_dim):
        first.setdefault((member["kl_weight"], member["learning_rate"]), member)
    return list(first.values())


def _charts(rows: Sequence[dict[str, Any]], floor: float) -> list[tuple[str, str]]:
    charts = [
        ("Rate and distortion over the KL weight", figures.rate_distortion(rows)),
        (
            "KL against its weight",
            figures.against_weight(rows, "kl", "KL [nats per image]"),
        ),
        (
            "Active units against the KL weight",
            figures.against_weight(rows, "active_units", "active units"),
        ),
        (
            "Quality of prior samples (lower is better)",
            figures.against_weight(rows, "sliced_wasserstein", "sliced Wasserstein", floor),
        ),
        (
            "Quality of reconstructions (higher is better)",
            figures.against_weight(rows, "psnr", "PSNR [dB]"),
        ),
    ]
    return [(title, _uri("svg+xml", svg)) for title, svg in charts]


def _pictures(
    members: Sequence[dict[str, Any]], z_dim: int, kind: str
) -> list[tuple[str, str, str]]:
    """Title, caption and data URI of a picture of each member of the first seed."""
    several = len({member["learning_rate"] for member in members}) > 1
    shown = []
    for member in _one_seed(members, z_dim):
        path = Path(member["folder"]) / member["pictures"][kind]
        if not path.exists():
            continue
        title = f"w = {member['kl_weight']:g}"
        if several:
            title += f", lr {member['learning_rate']:g}"
        figure = (
            f"SW {member['sliced_wasserstein']:.4f}"
            if kind == "samples"
            else f"R {member['recon']:,.1f}, KL {member['kl']:,.1f}"
        )
        shown.append((title, figure, _uri("png", path.read_bytes())))
    return shown


def _uri(kind: str, content: str | bytes) -> str:
    data = content.encode() if isinstance(content, str) else content
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
