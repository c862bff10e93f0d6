"""Medians, spreads and ratios of a comparison, as a table and as JSON."""

from __future__ import annotations

import statistics
from typing import Any

from rich.console import Console
from rich.table import Table

OURS = "ours"


def summarize(results: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Medians over the rounds.

    Args:
        results: of every side, one a round, with `images_per_second` and, where they were
            measured, `first_step_seconds` (the first round compiles) and `peak_memory_mib`.

    Returns:
        `images_per_second`, the median of ours; `peers`, the medians of the others; `ratios`,
        ours over theirs, the median of the ratios within each round; `sides`, everything.
    """
    speeds = {
        name: [result["images_per_second"] for result in rounds] for name, rounds in results.items()
    }
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    peers = [name for name in results if name != OURS]
    ratios = {
        name: statistics.median(a / b for a, b in zip(speeds[OURS], speeds[name], strict=True))
        for name in peers
    }
    return {
        "images_per_second": medians[OURS],
        "peers": {name: medians[name] for name in peers},
        "ratios": ratios,
        "sides": {name: _side(rounds) for name, rounds in results.items()},
    }


def _side(rounds: list[dict[str, float]]) -> dict[str, Any]:
    side: dict[str, Any] = {"images_per_second": [r["images_per_second"] for r in rounds]}
    if "first_step_seconds" in rounds[0]:
        warm = [result["first_step_seconds"] for result in rounds[1:]]
        side["first_step_seconds_cold"] = rounds[0]["first_step_seconds"]
        side["first_step_seconds_warm"] = statistics.median(warm) if warm else None
        side["peak_memory_mib"] = max(result["peak_memory_mib"] for result in rounds)
    return side


def print_table(summary: dict[str, Any], title: str, caption: str) -> None:
    """Show a summary; `flop_per_image` and `peak_flop_per_second` in it add the share of peak."""
    table = Table(title=title, caption=caption, caption_justify="left")
    table.add_column("side")
    flop, peak = summary.get("flop_per_image"), summary.get("peak_flop_per_second")
    columns = ["images/s", "lowest", "highest", "ours/side"]
    columns += ["share of peak"] if flop and peak else []
    details = ["first step cold, s", "warm, s", "memory, MiB"]
    columns += details if "peak_memory_mib" in summary["sides"][OURS] else []
    for column in columns:
        table.add_column(column, justify="right")
    for name, side in summary["sides"].items():
        speeds = side["images_per_second"]
        median = statistics.median(speeds)
        ratio = summary["ratios"].get(name)
        row = [_number(median), _number(min(speeds)), _number(max(speeds))]
        row.append("" if ratio is None else f"{ratio:.2f}")
        if flop and peak:
            row.append(f"{median * flop / peak:.1%}")
        if details[0] in columns:
            warm = side["first_step_seconds_warm"]
            row.append(f"{side['first_step_seconds_cold']:.1f}")
            row.append("" if warm is None else f"{warm:.1f}")
            row.append(f"{side['peak_memory_mib']:.0f}")
        table.add_row(name, *row)
    Console().print(table)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
