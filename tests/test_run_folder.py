"""Rows neither lost nor doubled; one writer per folder, named in the error, no stale lock."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from configs import ablation_faces, classifier_mnist, tiny
from vae_jax.config import KINDS
from vae_jax.run_folder import (
    MetricsLog,
    read_config,
    read_rows,
    run_lock,
    saved_config,
    write_config,
)
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


def test_a_row_cut_short_is_ignored(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(json.dumps(row(1)) + "\n" + '{"split": "tr')
    assert [r["step"] for r in read_rows(tmp_path)] == [1]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (b"garbage", "metrics.jsonl:2 is not JSON"),
        (b"[" * 10**5, "metrics.jsonl:2 is not JSON"),
        (b"9" * 5000, "metrics.jsonl:2 is not JSON"),
        (b"7", "metrics.jsonl:2 is not a row with 'split'"),
        (b'{"split": "train", "epoch": 1}', "metrics.jsonl:2 is not a row with 'step'"),
        (b'{"split": "train", "epoch": 1, "step": "2"}', "not a row with 'step'"),
        (b"\xff\xfe", "metrics.jsonl is not UTF-8"),
    ],
)
def test_a_broken_row_is_named(tmp_path, line, sentence):
    (tmp_path / "metrics.jsonl").write_bytes(json.dumps(row(1)).encode() + b"\n" + line + b"\n")
    with pytest.raises(UserError, match=sentence):
        read_rows(tmp_path)


def test_a_folder_in_place_of_the_rows_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(UserError, match="cannot read .*metrics.jsonl: it is a folder"):
        read_rows(tmp_path)


def test_rows_without_the_folder_of_checkpoints_are_not_dropped(tmp_path):
    log = MetricsLog(tmp_path, step=0)
    log.write(row(4))
    log.close()
    MetricsLog(tmp_path, step=4).close()  # killed before its first checkpoint: goes on
    (tmp_path / "checkpoints").rmdir()
    with pytest.raises(UserError, match="rows up to step 4, but .*checkpoints is gone: restore it"):
        MetricsLog(tmp_path, step=0)
    assert read_rows(tmp_path) == [row(4)]


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


def of_kind(kind):
    config = classifier_mnist.get_config() if kind == "classifier" else tiny.get_config()
    if kind == "sweep":
        with config.unlocked():
            config.sweep = ablation_faces.get_config().sweep
    return config


@pytest.mark.parametrize("found", KINDS)
@pytest.mark.parametrize("wanted", KINDS)
def test_a_folder_is_of_one_kind(tmp_path, found, wanted):
    assert saved_config(tmp_path, wanted) is None
    write_config(tmp_path, of_kind(found))
    if found == wanted:
        assert saved_config(tmp_path, wanted) == of_kind(found)
    else:
        remedy = "members/NAME" if found == "sweep" else "name another folder"
        with pytest.raises(UserError, match=f"holds a {found}, but a {wanted} .*{remedy}"):
            saved_config(tmp_path, wanted)


def edits(values, path=()):
    """Paths of all sections and fields of a config."""
    for name, value in values.items():
        yield (*path, name)
        if isinstance(value, dict):
            yield from edits(value, (*path, name))


WRONG = [None, -1, 1.5, "text", True, [], ["text"], [[1]], {}, {"a": {"b": 1}}, 10**400, "absent"]


def test_every_wrong_type_in_config_json_is_one_sentence(tmp_path):
    whole = tiny.get_config().to_dict()
    paths, refused = list(edits(whole)), 0
    for number, path in enumerate(paths):
        for wrong in WRONG[number % 3 :: 3]:
            values = json.loads(json.dumps(whole))
            section = values
            for name in path[:-1]:
                section = section[name]
            section[path[-1]] = wrong
            if wrong == "absent":
                del section[path[-1]]
            (tmp_path / "config.json").write_text(json.dumps(values))
            try:
                read_config(tmp_path, "run")
            except UserError as error:
                refused += 1
                assert str(error).startswith(str(tmp_path / "config.json"))
                assert path[-1] in str(error) or path[0] in str(error)
    assert len(paths) > 60 and refused > 3 * len(paths)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"", "is not valid JSON"),
        (b"[1]", "is not valid JSON .no object in braces"),
        (b'{"seed":' * 10**5, "is not valid JSON"),
        (b'{"a.b": 1}', "config"),
        (b"\xff", "is not UTF-8"),
    ],
)
def test_a_broken_config_json_is_named(tmp_path, text, sentence):
    (tmp_path / "config.json").write_bytes(text)
    with pytest.raises(UserError, match=f"config.json.*{sentence}"):
        read_config(tmp_path)
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").mkdir()
    with pytest.raises(UserError, match="cannot read .*config.json: it is a folder"):
        read_config(tmp_path)
