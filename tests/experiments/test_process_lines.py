"""The command lines as two processes on one machine, against one process."""

import signal
import socket
import time

import forks
import pytest

from configs import tiny
from vae_jax.checkpoint.saving import Checkpoints
from vae_jax.run_folder import read_rows
from vae_jax.train.trainer import fit

SPEED = ("images_per_second", "share_waiting")


def start(module, *arguments, count=2):
    """Start `count` processes of `python -m experiments.MODULE`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    together = [f"--coordinator={address}", f"--processes={count}"]
    return [
        forks.Fork("-m", f"experiments.{module}", *arguments, *together, f"--process_id={number}")
        for number in range(count)
    ]


def finish(running, expect=0):
    """Wait for all; their outputs."""
    done = [process.wait(timeout=240) for process in running]
    outputs = [process.stdout + process.stderr for process in done]
    assert {process.returncode for process in done} == {expect}, "\n".join(outputs)
    return outputs


@pytest.fixture
def arguments(tiny_store, tmp_path):
    """Of a training of configs/tiny.py on `tiny_store`."""
    return (
        "--config=configs/tiny.py", f"--workdir={tmp_path / 'run'}",
        "--config.data.name=celeba", f"--config.data.path={tiny_store}",
    )  # fmt: skip


def in_one_process(tiny_store, workdir, epochs=2):
    config = tiny.get_config()
    config.data.name, config.data.path, config.train.epochs = "celeba", str(tiny_store), epochs
    return fit(config, workdir, lambda text: None)


def assert_rows_agree(workdir, reference):
    """Every figure that was logged, but for speeds."""
    for found, expected in zip(read_rows(workdir), read_rows(reference), strict=True):
        for name, value in expected.items():
            if isinstance(value, float) and name not in SPEED:
                assert found[name] == pytest.approx(value, rel=1e-4), name


def test_two_processes_train_as_one_does_and_one_goes_on(arguments, tiny_store, tmp_path):
    outputs = finish(start("train", *arguments, "--config.train.epochs=1"))
    assert "2 x cpu (cpu) in 2 processes" in outputs[0] and "samples.png" in outputs[0]
    assert "epoch 1/1" in outputs[0] and "epoch 1/1" not in outputs[1]
    assert in_one_process(tiny_store, tmp_path / "run").step == 10
    in_one_process(tiny_store, tmp_path / "alone")
    assert_rows_agree(tmp_path / "run", tmp_path / "alone")


@pytest.mark.slow
def test_two_processes_go_on_where_one_stopped(arguments, tiny_store, tmp_path):
    in_one_process(tiny_store, tmp_path / "run", epochs=1)
    assert "resuming at step 5" in finish(start("train", *arguments))[0]
    in_one_process(tiny_store, tmp_path / "alone")
    assert_rows_agree(tmp_path / "run", tmp_path / "alone")


def wait_for_rows(workdir, running):
    deadline = time.monotonic() + 120
    while len(read_rows(workdir)) < 4:
        assert time.monotonic() < deadline and all(p.poll() is None for p in running)
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_sigterm_to_any_process_saves_one_step_in_all(arguments, tmp_path, number):
    running = start("train", *arguments, "--config.train.epochs=100000")
    wait_for_rows(tmp_path / "run", running)
    running[number].send_signal(signal.SIGTERM)
    outputs = finish(running, expect=128 + signal.SIGTERM)
    with Checkpoints(tmp_path / "run" / "checkpoints") as checkpoints:
        step = checkpoints.latest_step()
    assert f"stopped at step {step}; the same command resumes there" in outputs[0]
    epochs = -(-step // 5) + 1
    resumed = finish(start("train", *arguments, f"--config.train.epochs={epochs}"))
    assert f"resuming at step {step}" in resumed[0]


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_where_one_is_killed_the_other_leaves_with_a_sentence(arguments, tmp_path, number):
    running = start("train", *arguments, "--config.train.epochs=100000")
    wait_for_rows(tmp_path / "run", running)
    running[number].kill()
    other, began = running[1 - number], time.monotonic()
    done = other.wait(timeout=60)
    output = done.stdout + done.stderr
    assert time.monotonic() - began < 60, output
    if done.returncode == -signal.SIGABRT:  # The runtime may be first to miss its coordinator.
        assert number == 0 and "This most likely indicates that another task died" in output
    else:
        assert done.returncode == 3, output
        assert f"error: process {1 - number} of 2 stops, since another process" in output
        assert "Traceback" not in output
    running[number].wait()
    rows = read_rows(tmp_path / "run")
    epochs = rows[-1]["epoch"] + 1
    finish(start("train", *arguments, f"--config.train.epochs={epochs}", count=1))


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["in_turn", "together"])
def test_two_processes_train_a_sweep_as_one_does(tiny_store, tmp_path, schedule):
    arguments = (
        "--config=configs/ablation_faces.py", "--config.data.name=celeba",
        f"--config.data.path={tiny_store}", "--config.data.image_shape=(16, 16, 3)",
        "--config.model.encoder.filters=(4, 8, 8)", "--config.model.decoder.filters=(8, 4)",
        "--config.train.batch_size=8", "--config.eval.batch_size=8", "--config.train.epochs=2",
        "--config.sweep.kl_weight=(0.5, 3.0)", "--config.sweep.z_dim=(2, 4)",
        "--config.sweep.seed=(1,)",
        f"--config.sweep.schedule={schedule}", "--nomeasure",
    )  # fmt: skip
    for count in (1, 2):
        finish(start("ablation", *arguments, f"--workdir={tmp_path / str(count)}", count=count))
    folders = sorted((tmp_path / "1" / "members").iterdir())
    assert len(folders) == 4
    for folder in folders:
        assert_rows_agree(tmp_path / "2" / "members" / folder.name, folder)
