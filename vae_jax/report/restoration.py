"""The table of restored images against what needs no training."""

from __future__ import annotations

import math
from collections.abc import Mapping

HEADER = ("", "PSNR [dB]", "SSIM", "PSNR of erased pixels [dB]", "recognised")
FORMATS = {"psnr": "{:.2f}", "ssim": "{:.3f}", "psnr_erased": "{:.2f}", "recognised": "{:.2%}"}


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
