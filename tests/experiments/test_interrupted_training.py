"""Real trainings under SIGTERM and SIGINT, and two of them on one run folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import forks
import pytest

from vae_jax.checkpoint.saving import Checkpoints
from vae_jax.train.interruption import StopSignals
from vae_jax.train.trainer import fit

TRAIN = "import runpy; runpy.run_module('experiments.train', run_name='__main__', alter_sys=True)"
# The same without runpy, so that the time is that from the end of the imports to the exit.
TIMED = """
import time
import vae_jax.studies.training, vae_jax.train.trainer  # what `main` imports, the heavy part
from experiments import app, console, train
began, leave = time.monotonic(), console.leave
console.leave = lambda code: (print("seconds", time.monotonic() - began), leave(code))
app.run(train.main)
"""
SLOW_SAVES = f"""
import time
from vae_jax.train import trainer
write = trainer.Checkpoints._write
def slow(self, facts, *rest):
    write(self, facts, *rest)
    print("written", facts["step"])
    time.sleep(100)
trainer.Checkpoints._write = slow
{TRAIN}
"""


def start(script, workdir, store, epochs=10**6):
    return forks.Fork(
        "-c", script,
        "--config=configs/tiny.py", f"--workdir={workdir}", "--config.data.name=celeba",
        f"--config.data.path={store}", f"--config.train.epochs={epochs}",
    )  # fmt: skip


def wait_for(process, text):
    """Waits until a process has printed a text, here or there."""
    while not any(text in printed for printed in process.printed()):
        assert process.poll() is None, f"{text!r} never came: {process.printed()}"
        time.sleep(0.01)


def end(process, number, within):
    """Sends a signal; the process must be gone `within` seconds. Returns its code and output."""
    began = time.monotonic()
    process.send_signal(number)
    done = process.wait(timeout=60)
    assert time.monotonic() - began < within
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(autouse=True)
def signals_that_end():
    """A background job ignores Ctrl-C, one under nohup a hangup, and so would what they start."""
    ends = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    previous = {number: signal.signal(number, handler) for number, handler in ends.items()}
    yield
    for number, handler in previous.items():
        signal.signal(number, handler)


@pytest.fixture
def processes():
    started = []
    yield started
    for process in started:
        process.kill()
        process.wait()


def test_interrupted_trainings_save_at_once_and_resume_bit_for_bit(
    tiny_store, tiny_config, tmp_path, processes, assert_same_run
):
    workdir = tmp_path / "run"
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        process = start(TRAIN, workdir, tiny_store)
        processes.append(process)
        wait_for(process, "epoch ")
        if number == signal.SIGTERM:
            refused_by(process, workdir, tiny_store)
        ended, output = end(process, number, within=30)
        assert ended == code
        assert f"{number.name}: saving a checkpoint" in output
        with Checkpoints(workdir / "checkpoints") as checkpoints:
            step = checkpoints.latest_step()
        assert f"stopped at step {step}; the same command resumes there" in output
        assert f"wrote {workdir / 'samples.png'}" in output  # of what it can do by then
    tiny_config.train.epochs = step // 5 + 2
    fit(tiny_config, workdir, lambda line: None)
    fit(tiny_config, tmp_path / "uninterrupted", lambda line: None)
    assert_same_run(tiny_config, workdir, tmp_path / "uninterrupted")
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        assert checkpoints.latest_step() == 5 * tiny_config.train.epochs


def refused_by(holder, workdir, store):
    """A second training on the folder of `holder` is refused within 2 s of its imports."""
    second = start(TIMED, workdir, store)
    done = second.wait(timeout=60)
    assert done.returncode == 2
    refusal = f"error: Run folder {workdir} is in use by process {holder.pid} on "
    assert done.stderr.startswith(refusal) and done.stderr.count("\n") == 1
    assert float(done.stdout.removeprefix("seconds ")) < 2


def leaves_at_the_second(number, process, once_it_says):
    """The first signal announces a checkpoint; the second ends the process within 2 s."""
    wait_for(process, once_it_says)
    process.send_signal(number)
    wait_for(process, f"{number.name}: saving a checkpoint")
    assert end(process, number, within=2)[0] == 128 + number


def test_a_second_signal_leaves_a_slow_save_at_once(tiny_store, tmp_path, processes):
    process = start(SLOW_SAVES, tmp_path, tiny_store)
    processes.append(process)
    leaves_at_the_second(signal.SIGHUP, process, "written 5")
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.restore({}, step=5).step == 5  # what was written is whole


def test_a_killed_trainer_leaves_no_stale_lock(tiny_store, tiny_config, tmp_path, processes):
    process = start(TRAIN, tmp_path, tiny_store)
    processes.append(process)
    wait_for(process, "epoch 1/")
    process.kill()
    process.wait()
    assert f'"pid": {process.pid}' in (tmp_path / ".lock").read_text()  # its name, but no lock
    tiny_config.train.epochs = 1
    assert fit(tiny_config, tmp_path, lambda line: None).step >= 5


def test_an_interrupt_while_data_are_prepared_ends_it(tmp_path, processes):
    faces = tmp_path / "faces"
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments.train", "--config=configs/tiny.py",
         f"--workdir={tmp_path / 'run'}", f"--config.data.path={faces}",
         "--config.data.generate_count=20000"],
        cwd=forks.ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    processes.append(process)
    while not list(faces.rglob("*.jpg*")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=10)[0]
    assert process.returncode == 130 and "Traceback" not in output
    assert output.endswith("interrupted\n") and "checkpoint" not in output


BUSY = """
import jax, jax.numpy as jnp
from vae_jax.train.interruption import StopSignals
spin = jax.jit(lambda n, x: jax.lax.fori_loop(0, n, lambda i, x: jnp.sin(x), x))
jax.block_until_ready(spin(1, jnp.ones(1000)))
with StopSignals():
    print("busy", flush=True)
    jax.block_until_ready(spin(10**8, jnp.ones(1000)))  # about two minutes
"""


def test_a_second_signal_does_not_wait_for_the_device(processes):
    process = forks.Fork("-c", BUSY)
    processes.append(process)
    leaves_at_the_second(signal.SIGINT, process, "busy")


def test_handlers_and_descriptors_are_given_back():
    before = (
        [signal.getsignal(number) for number in StopSignals.SIGNALS],
        len(os.listdir("/proc/self/fd")),
    )
    threads = threading.active_count()
    with StopSignals() as outer, StopSignals() as inner:
        signal.raise_signal(signal.SIGTERM)
        assert inner.received == signal.SIGTERM and outer.received is None
    after = (
        [signal.getsignal(number) for number in StopSignals.SIGNALS],
        len(os.listdir("/proc/self/fd")),
    )
    assert before == after and threading.active_count() == threads
    noted = []
    thread = threading.Thread(target=lambda: noted.append(StopSignals().__enter__().received))
    thread.start()
    thread.join()
    assert noted == [None]  # other threads may not set handlers


def test_a_hangup_asks_to_stop_unless_nohup_ignores_it():
    previous = signal.getsignal(signal.SIGHUP)
    try:
        for handler, received in ((signal.SIG_DFL, signal.SIGHUP), (signal.SIG_IGN, None)):
            signal.signal(signal.SIGHUP, handler)
            with StopSignals() as stop:
                signal.raise_signal(signal.SIGHUP)
                assert stop.received == received
            assert signal.getsignal(signal.SIGHUP) == handler
    finally:
        signal.signal(signal.SIGHUP, previous)
