"""`experiments.train` that kills itself: `train_and_die.py PHASE EVENT SECONDS FLAGS...`

It dies by SIGKILL at the EVENT-th change of the file system that is made in PHASE (saving,
deleting, logging), counted over all its windows; or, if EVENT is 0, SECONDS after a window of that
phase was entered and before it is left (sooner in each later window, if it was too short).
PHASE `anywhere` dies SECONDS after the imports, `never` does not die. On stdout: `saved STEP` once
a checkpoint is on disk, `dies PHASE` at the end.
"""

import contextlib
import os
import runpy
import signal
import sys
import threading

from vae_jax import run_folder
from vae_jax.checkpoint.saving import Checkpoints
from vae_jax.checkpoint.step_folders import StepFolders
from vae_jax.run_folder import MetricsLog
from vae_jax.studies import training
from vae_jax.train import trainer

CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.fsync")
PHASE, EVENT, SECONDS = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])

windows: list[str] = []  # the phases that the process is in: training logs while a save runs
seen = opened = 0


def dying() -> bool:
    return PHASE == "anywhere" or (
        PHASE in windows and not (PHASE == "saving" and "deleting" in windows)
    )


def die() -> None:
    if dying():
        os.write(1, f"dies {PHASE}\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)


def count(event: str, arguments: tuple) -> None:
    global seen
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_ACCMODE
    on_main_thread = threading.current_thread() is threading.main_thread()
    if (writes or event in CHANGES) and on_main_thread == (PHASE == "logging") and dying():
        seen += 1
        if seen == EVENT:
            die()


@contextlib.contextmanager
def window(phase: str):
    global opened
    windows.append(phase)
    timer = threading.Timer(SECONDS * 0.7**opened, die)
    timer.daemon = True
    if phase == PHASE and EVENT == 0:
        opened += 1
        timer.start()
    try:
        yield
    finally:
        timer.cancel()
        windows.remove(phase)


def within(phase: str, owner: object, name: str) -> None:
    function = getattr(owner, name)

    def wrapped(*args, **kwargs):
        with window(phase):
            return function(*args, **kwargs)

    setattr(owner, name, wrapped)


def acknowledge(self: Checkpoints, facts: dict, *rest: object) -> None:
    write(self, facts, *rest)
    os.write(1, f"saved {facts['step']}\n".encode())


within("saving", Checkpoints, "_write")
within("deleting", StepFolders, "discard")
within("logging", MetricsLog, "__init__")
within("logging", MetricsLog, "write")
within("logging", run_folder, "write_config")
write, Checkpoints._write = Checkpoints._write, acknowledge
fsync = os.fsync
os.fsync = lambda descriptor: (sys.audit("os.fsync", descriptor), fsync(descriptor))[1]
training.draw_run = lambda workdir, command: []  # after the end of the training
assert trainer.folders is run_folder  # whose functions were wrapped
sys.addaudithook(count)
if PHASE == "anywhere":
    clock = threading.Timer(SECONDS, die)
    clock.daemon = True
    clock.start()
sys.argv[1:4] = []
runpy.run_module("experiments.train", run_name="__main__", alter_sys=True)
