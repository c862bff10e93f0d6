"""Summarises comparisons: medians, spreads and ratios, as a table and as JSON."""

from __future__ import annotations

import statistics
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from experiments.speed.programs import OURS

LEGEND = "cold, warm: process start to first step done, without and with programs kept from before"
BUSY = 0.75  # Load per core from which on ratios mean little.


def summarize(results: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Returns medians over the rounds.

    Args:
        results: The results of every side, one per round, with `images_per_second` and, where they
            were measured, `first_step_seconds` (the first round compiles) and `peak_memory_mib`.

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
    if "peak_memory_mib" in rounds[0]:
        side["peak_memory_mib"] = max(result["peak_memory_mib"] for result in rounds)
    return side


def print_summary(summary: dict[str, Any]) -> None:
    """Prints a comparison as a table."""
    console, flop = Console(), summary.get("flop_per_image")
    timed = "first_step_seconds_cold" in summary["sides"][OURS]
    columns = ["images/s", "lowest..highest", "ours/side"]
    columns += ["of peak"] if flop else []
    columns += ["cold, s", "warm, s", "MiB"] if timed else []
    table = Table("side", title=_title(summary), box=box.SIMPLE, padding=(0, 1, 0, 0))
    for column in columns:
        table.add_column(column, justify="right")
    for name, side in summary["sides"].items():
        speeds = side["images_per_second"]
        median, ratio = statistics.median(speeds), summary["ratios"].get(name)
        row = [_number(median), f"{_number(min(speeds))}..{_number(max(speeds))}"]
        row.append("" if ratio is None else f"{ratio:.2f}")
        if flop:
            row.append(f"{median * flop / summary['peak_flop_per_second']:.1%}")
        if timed:
            warm = side["first_step_seconds_warm"]
            row.append(f"{side['first_step_seconds_cold']:.1f}")
            row.append("" if warm is None else f"{warm:.1f}")
            row.append(f"{side['peak_memory_mib']:,.0f}")
        table.add_row(name, *row)
    console.print(table)
    _print_lines(console, [LEGEND] * timed + machine_lines(summary))


def _title(summary: dict[str, Any]) -> str:
    if summary["what"] == "prepare":
        return f"preparing {summary['files']:,} JPEGs"
    if summary["what"] == "sweep":
        seconds = statistics.median(summary["seconds"][OURS])
        return f"{summary['members']} members, {seconds:.0f} s as one command"
    config = summary["config"]
    shape = "x".join(map(str, config["data"]["image_shape"]))
    head = f"{shape}, Z = {config['model']['z_dim']}, {summary['dtype']}"
    if summary["what"] == "decode":
        return f"decoding, {head}"
    return f"training, {head}, batches of {summary['batch_size']}"


def machine_lines(summary: dict[str, Any]) -> list[str]:
    """Returns lines on the machine, its peaks and what they would allow."""
    machine = summary["machine"]
    peaks = ", ".join(
        f"{dtype} {value / 1e9:,.0f} GFLOP/s"
        for dtype, value in machine["matmul_flop_per_second"].items()
    )
    bandwidth = machine["copy_bytes_per_second"] / 1e9
    lines = [
        f"machine: {machine['words']}; {machine['threads']} threads a side, huge pages",
        f"measured peaks: matrix products {peaks}; memory {bandwidth:,.0f} GB/s",
    ]
    if machine["load_before"] > BUSY * machine["threads"]:
        lines.append(
            f"WARNING: the machine was busy before (load {machine['load_before']:.1f} on "
            f"{machine['threads']} cores): these figures mean little"
        )
    if flop := summary.get("flop_per_image"):
        limit = summary["peak_flop_per_second"] / flop
        lines.append(
            f"arithmetic: {flop / 1e6:,.1f} MFLOP per image, {limit:,.0f} images/s at peak"
        )
    if least := summary.get("bytes_per_image"):
        limit = summary["images_per_second_at_bandwidth"]
        line = f"memory: at least {least / 1e6:.2f} MB per image, {limit:,.0f} images/s at peak"
        if speed := summary.get("images_per_second"):
            line += f", of which ours reaches {speed / limit:.1%}"
        lines.append(line)
    return lines


def print_profile(profile: dict[str, Any]) -> None:
    """Prints where the time of a step goes."""
    console, step = Console(), profile["step"]["step"]
    table = Table("part", title="one training step")
    table.add_column("ms", justify="right")
    table.add_column("of the step", justify="right")
    for name, value in profile["step"].items():
        table.add_row(name, f"{value:.1f}", f"{value / step:.1%}")
    console.print(table)
    table = Table("layer", title="every layer alone")
    for column in ("forward, ms", "of peak", "gradients, ms", "of peak"):
        table.add_column(column, justify="right")
    peak, totals = profile["peak_flop_per_second"], [0.0, 0.0]
    for layer in profile["layers"]:
        row = []
        for i, (name, factor) in enumerate((("forward", 1), ("gradients", 2 - layer["first"]))):
            totals[i] += layer[name]
            share = factor * layer["flop"] / (layer[name] / 1000) / peak
            row += [f"{layer[name]:.1f}", f"{share:.0%}"]
        table.add_row(layer["name"], *row)
    table.add_row("all", f"{totals[0]:.1f}", "", f"{totals[1]:.1f}", "")
    console.print(table)
    rest = step - sum(totals)
    line = f"the rest of the step: {rest:.1f} ms, {rest / step:.0%}"
    _print_lines(console, [line, *machine_lines(profile)])


def print_report(report: dict[str, Any]) -> None:
    """Prints what `compare.report` adds to the comparisons."""
    speeds = [f"{size}: {_number(speed)}" for size, speed in report["batch_sizes"].items()]
    runs = [
        f"whole run, {run['epochs']} epochs of {run['count']:,} images in batches of {size}: "
        f"{run['seconds']:.1f} s from the start of the process"
        for size, run in report["whole_runs"].items()
    ]
    _print_lines(Console(), [f"images/s by batch size: {', '.join(speeds)}", *runs])


def _print_lines(console: Console, lines: list[str]) -> None:
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
