"""The page of restored images: arrays and scores in, picture, table and HTML out."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vae_jax.report.pictures import image_grid, paired_rows, save_png
from vae_jax.report.plain_page import Section, text_table, write_page

HEADER = ("", "PSNR [dB]", "SSIM", "PSNR of erased pixels [dB]", "recognised")
FORMATS = {"psnr": "{:.2f}", "ssim": "{:.3f}", "psnr_erased": "{:.2f}", "recognised": "{:.2%}"}
COLUMNS = 8


def write_restoration(
    out: Path,
    facts: Mapping[str, str],
    shown: Mapping[str, np.ndarray],
    scores: Mapping[str, Mapping[str, float]],
) -> str:
    """Write restoration.png, restoration.json (without NaN) and index.html.

    Args:
        out: folder.
        facts: checkpoint, corruption and count.
        shown: `[M, H, W, C]` images by name, one under the other in the picture.
        scores: see `restoration_table`.

    Returns:
        The table as text.
    """
    picture = image_grid(paired_rows(list(shown.values()), COLUMNS), COLUMNS)
    save_png(out / "restoration.png", picture, facts)
    known = {
        name: {key: value for key, value in values.items() if not math.isnan(value)}
        for name, values in scores.items()
    }
    (out / "restoration.json").write_text(json.dumps({**facts, "scores": known}, indent=2) + "\n")
    header, table = restoration_table(scores)
    sections = [
        Section("Test images", f"Rows: {'; '.join(shown)}.", "restoration.png"),
        Section("In numbers", "Means over the test images.", header=header, rows=table),
    ]
    write_page(out / "index.html", "Restored test images", facts, sections)
    return text_table(header, table)


def restoration_table(
    scores: Mapping[str, Mapping[str, float]],
) -> tuple[list[str], list[list[str]]]:
    """Columns that no method has are left out.

    Args:
        scores: by method, a number (NaN for none) for each key of `FORMATS`.

    Returns:
        Header and rows of text; the first cell of a row names the method.
    """
    used = [
        name for name in FORMATS if not all(math.isnan(values[name]) for values in scores.values())
    ]
    header = [HEADER[0]] + [
        title for name, title in zip(FORMATS, HEADER[1:], strict=True) if name in used
    ]
    rows = [
        [method] + ["" if math.isnan(values[n]) else FORMATS[n].format(values[n]) for n in used]
        for method, values in scores.items()
    ]
    return header, rows
