"""metrics.jsonl: complete rows, neither lost nor doubled."""

import json

import numpy as np
import pytest

from vae_jax.metrics_log import MetricsLog, read_rows
from vae_jax.types import UserError


def row(step, loss=1.0):
    return {"split": "train", "epoch": step, "step": step, "loss": loss}


def test_resuming_drops_the_rows_that_will_be_written_again(tmp_path):
    log = MetricsLog(tmp_path, step=0)
    for step in (1, 2, 3):
        log.write(row(step))
    log.close()
    log = MetricsLog(tmp_path, step=2)
    assert [r["step"] for r in read_rows(tmp_path)] == [1, 2]
    log.write(row(3, loss=0.5))
    log.close()
    assert [r["loss"] for r in read_rows(tmp_path)] == [1.0, 1.0, 0.5]


def test_a_row_cut_short_is_ignored_and_a_broken_one_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps(row(1)) + "\n" + '{"split": "tr')
    assert [r["step"] for r in read_rows(tmp_path)] == [1]
    path.write_text("garbage\n")
    with pytest.raises(UserError, match="metrics.jsonl:1 is not JSON"):
        read_rows(tmp_path)


def test_non_finite_figures_are_null(tmp_path):
    log = MetricsLog(tmp_path, step=0)
    log.write(row(1, loss=float("nan")))
    log.close()
    assert read_rows(tmp_path)[0]["loss"] is None


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_events_hold_the_same_figures(tmp_path):
    log = MetricsLog(tmp_path, step=0, tensorboard=True)
    log.write(row(7, loss=2.5))
    log.close()
    (events,) = (tmp_path / "tensorboard").iterdir()
    data = events.read_bytes()
    assert b"train/loss" in data and np.float32(2.5).tobytes() in data
