"""Rows neither lost nor doubled; one writer per folder, named in the error, no stale lock."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from vae_jax.run_folder import MetricsLog, read_rows, run_lock
from vae_jax.types import UserError

HOLDER = """
import sys, time
from vae_jax.run_folder import run_lock
with run_lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""

FORKING_HOLDER = """
import os, sys, time
from vae_jax.run_folder import run_lock
with run_lock(sys.argv[1]):
    if os.fork() == 0:
        print(os.getpid(), flush=True)
        time.sleep(60)
        os._exit(0)
    time.sleep(60)
"""


def start(script, workdir):
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(workdir)], stdout=subprocess.PIPE, text=True
    )
    return process, process.stdout.readline().strip()


def stop(process):
    process.kill()
    process.wait()
    process.stdout.close()


def test_second_process_is_refused_by_name_and_a_killed_holder_frees_the_lock(tmp_path):
    process, said = start(HOLDER, tmp_path)
    try:
        assert said == "held"
        holder = json.loads((tmp_path / ".lock").read_text())
        assert holder["pid"] == process.pid
        began = time.monotonic()
        with pytest.raises(UserError) as caught, run_lock(tmp_path):
            pass
        assert time.monotonic() - began < 2
        for fact in (f"process {process.pid} ", holder["host"], holder["since"], str(tmp_path)):
            assert fact in str(caught.value)
    finally:
        stop(process)
    with run_lock(tmp_path):  # the file is still there, the lock is not
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()


def test_child_of_a_killed_holder_does_not_keep_the_lock(tmp_path):
    process, child = start(FORKING_HOLDER, tmp_path)
    try:
        with pytest.raises(UserError), run_lock(tmp_path):
            pass
        stop(process)
        os.kill(int(child), 0)  # the child is alive
        with run_lock(tmp_path):
            pass
    finally:
        os.kill(int(child), signal.SIGKILL)


def test_lock_is_exclusive_within_a_process_and_released_on_an_error(tmp_path):
    workdir = tmp_path / "new" / "run"
    with pytest.raises(RuntimeError, match="inner"), run_lock(workdir):
        with pytest.raises(UserError, match=f"process {os.getpid()} "), run_lock(workdir):
            pass
        raise RuntimeError("inner")
    with run_lock(workdir):
        pass


def test_nameless_holder_is_still_refused_in_time(tmp_path):
    with run_lock(tmp_path):
        (tmp_path / ".lock").write_text("[]")
        began = time.monotonic()
        with pytest.raises(UserError, match="left no name"), run_lock(tmp_path):
            pass
        assert time.monotonic() - began < 2


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
