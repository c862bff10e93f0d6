"""The pictures of a layer's patterns: sheet, evolution, curves, test images, several seeds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from vae_jax.filters.layer import Study
from vae_jax.filters.study import logarithmic_steps, spectral_agreement
from vae_jax.report.filters import captioned_grid, response_curves
from vae_jax.report.pictures import save_png
from vae_jax.types import UserError

SHEET_COLUMNS = 12
SHOWN_MAPS = 10  # rows of the pages that compare
SHOWN_IMAGES = 8


def write_pages(study: Study, out: Path, evolve: int | None, seeds: int) -> list[Path]:
    """Write all pictures and the JSON beside `out`; returns their paths."""
    if evolve is not None and evolve not in study.maps:
        raise UserError(f"--evolve={evolve} is not among the maps {study.maps.tolist()}")
    figures = _figures(study)
    pages = {}
    if len(study.order):
        strongest = int(study.maps[study.order[0]]) if evolve is None else evolve
        pages = {"": _sheet(study), "-evolution": _evolution(study, strongest)}
        pages["-curves"] = response_curves(
            study.found.curves[:, study.order], [f"map {m}" for m in study.maps[study.order]]
        )
        pages["-images"] = _beside_images(study)
        pages["-seeds"], figures["spectral_agreement"] = _several_seeds(study, seeds)
    facts = study.layer.run.provenance | {"layer": study.layer.name, "seed": str(study.seed)}
    paths = []
    for suffix, picture in pages.items():
        paths.append(out.with_stem(out.stem + suffix))
        save_png(paths[-1], picture, facts)
    paths.append(out.with_suffix(".json"))
    paths[-1].parent.mkdir(parents=True, exist_ok=True)
    paths[-1].write_text(json.dumps(facts | figures, indent=2) + "\n")
    return paths


def _figures(study: Study) -> dict[str, Any]:
    found, best = study.found, study.image_responses.argmax(axis=0)
    maps = [
        {
            "map": int(study.maps[i]),
            "response": float(found.responses[i]),
            "loss": -float(found.responses[i]),
            "steps": int(found.steps[i]),
            "converged": bool(found.converged[i]),
            "best_test_image": int(best[i]),
            "best_test_response": float(study.image_responses[best[i], i]),
        }
        for i in study.order
    ]
    settings = study.settings._asdict() | {"ascent": study.settings.ascent._asdict()}
    projection = study.projection._asdict()
    return {"settings": settings, "projection": projection, "maps": maps, "dead": study.dead}


def _sheet(study: Study) -> Any:
    captions = [f"{study.maps[i]}: {study.found.responses[i]:.2f}" for i in study.order]
    return captioned_grid(study.found.patterns[study.order], captions, SHEET_COLUMNS)


def _evolution(study: Study, index: int) -> Any:
    steps = logarithmic_steps(sum(study.settings.steps))
    found = study.find([index], snapshots=steps)
    return captioned_grid(found.snapshots[:, 0], [f"step {step}" for step in steps], len(steps))


def _beside_images(study: Study) -> Any:
    images, captions = [], []
    for i in study.order[:SHOWN_MAPS]:
        best = np.argsort(-study.image_responses[:, i], kind="stable")[:SHOWN_IMAGES]
        images += [study.found.patterns[i], *(study.images[best] / np.float32(255))]
        captions.append(f"{study.maps[i]}: {study.found.responses[i]:.2f}")
        captions += [f"{study.image_responses[k, i]:.2f}" for k in best]
    return captioned_grid(np.stack(images), captions, len(images) // len(study.order[:SHOWN_MAPS]))


def _several_seeds(study: Study, seeds: int) -> tuple[Any, dict[str, float] | None]:
    maps = study.maps[study.order[:SHOWN_MAPS]]
    found = [study.find(maps, study.seed + k) for k in range(seeds)]
    patterns = np.stack([one.patterns for one in found], axis=1)  # [R, S, H, W, C]
    captions = [
        f"{index}: {found[k].responses[row]:.2f}"
        for row, index in enumerate(maps)
        for k in range(seeds)
    ]
    picture = captioned_grid(patterns.reshape(-1, *patterns.shape[2:]), captions, seeds)
    if len(maps) < 2:
        return picture, None
    same, other = spectral_agreement(patterns)
    return picture, {"same_map": same, "other_maps": other}
