"""Medians and ratios of hand-made rounds."""

import pytest

from experiments.speed.summary import machine_lines, print_summary, summarize

MACHINE = {
    "words": "a computer",
    "threads": 2,
    "load_before": 0.4,
    "matmul_flop_per_second": {"float32": 100e9},
    "copy_bytes_per_second": 30e9,
}


def rounds(speeds, first_steps):
    return [
        {"images_per_second": speed, "first_step_seconds": first, "peak_memory_mib": 100.0 + speed}
        for speed, first in zip(speeds, first_steps, strict=True)
    ]


def test_ratios_are_taken_within_a_round():
    # The machine was twice as slow in the last two rounds: the ratio is 3 in four of five.
    results = {
        "ours": rounds([300, 300, 360, 150, 150], [9, 4, 5, 3, 6]),
        "flax": rounds([100, 100, 100, 50, 50], [8, 8, 8, 8, 8]),
    }
    summary = summarize(results)
    assert summary["images_per_second"] == 300
    assert summary["peers"] == {"flax": 100}
    assert summary["ratios"] == {"flax": pytest.approx(3.0)}
    ours = summary["sides"]["ours"]
    assert ours["first_step_seconds_cold"] == 9
    assert ours["first_step_seconds_warm"] == 4.5
    assert ours["peak_memory_mib"] == 460


def test_one_round_has_no_warm_start_and_prints(capsys):
    summary = summarize({"ours": rounds([250], [9])})
    assert summary["sides"]["ours"]["first_step_seconds_warm"] is None
    assert summary["peers"] == summary["ratios"] == {}
    summary |= {"what": "prepare", "files": 100, "machine": MACHINE}
    print_summary(summary)
    shown = capsys.readouterr().out
    assert "preparing 100 JPEGs" in shown and "250" in shown and "a computer" in shown


def test_limits_are_told():
    limits = {"flop_per_image": 50e6, "peak_flop_per_second": 100e9, "images_per_second": 500}
    limits |= {"bytes_per_image": 3e6, "images_per_second_at_bandwidth": 10_000}
    lines = "\n".join(machine_lines({"machine": MACHINE} | limits))
    assert "2,000 images/s at peak" in lines
    assert "10,000 images/s at peak, of which ours reaches 5.0%" in lines


def test_a_busy_machine_is_told():
    assert "WARNING" not in "".join(machine_lines({"machine": MACHINE}))
    lines = machine_lines({"machine": MACHINE | {"load_before": 3.0}})
    assert any("load 3.0 on 2 cores" in line for line in lines)
