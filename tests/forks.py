"""Python programs in forks of one process that has imported what they need: each saves seconds.

What a fresh interpreter may do otherwise (read settings when JAX is imported, import little, end)
is tested with `subprocess`.
"""

from __future__ import annotations

import multiprocessing
import os
import pkgutil
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import vae_jax

ROOT = Path(__file__).parents[1]
OUTPUTS = ("stdout", "stderr")
_FORKS = multiprocessing.get_context("forkserver")
# Importing starts no device and no threads but those of BLAS, which survive a fork.
_FORKS.set_forkserver_preload(
    [name for _, name, _ in pkgutil.walk_packages(vae_jax.__path__, "vae_jax.")]
)


class Fork:
    """`python ARGUMENTS...` in a process of its own; wait for its end."""

    def __init__(self, *arguments: object, cwd: object = ROOT):
        self.arguments = [str(argument) for argument in arguments]
        self._folder = tempfile.mkdtemp()
        self._process = _FORKS.Process(
            target=_become, args=(self.arguments, str(cwd), self._folder)
        )
        self._process.start()
        self.pid = self._process.pid

    def printed(self) -> tuple[str, str]:
        """Returns what standard output and standard error got so far."""
        paths = (Path(self._folder, name) for name in OUTPUTS)
        out, error = (path.read_text("utf-8", "replace") if path.exists() else "" for path in paths)
        return out, error

    def poll(self) -> int | None:
        """Returns the exit code, or minus the number of the signal that ended it, if it ended."""
        return self._process.exitcode

    def wait(self, timeout: float = 300) -> subprocess.CompletedProcess:
        """Returns how it ended, and what it printed; kills it when the time is over."""
        self._process.join(timeout)
        late = self.poll() is None
        if late:
            self.kill()
        printed = self.printed()
        shutil.rmtree(self._folder, ignore_errors=True)
        if late:
            raise subprocess.TimeoutExpired(self.arguments, timeout, *printed)
        return subprocess.CompletedProcess(self.arguments, self.poll(), *printed)

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()
        self._process.join()


def run(*arguments: object, cwd: object = ROOT) -> subprocess.CompletedProcess:
    """Runs `python ARGUMENTS...` to its end."""
    return Fork(*arguments, cwd=cwd).wait()


def _become(arguments: list[str], cwd: str, folder: str) -> None:
    """Does in a fork what the interpreter does with `-m MODULE`, `-c TEXT` or a file."""
    for number, name in enumerate(OUTPUTS, 1):
        os.dup2(os.open(f"{folder}/{name}", os.O_WRONLY | os.O_CREAT), number)
    for number in (signal.SIGINT, signal.SIGHUP):  # However the tests were started.
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(cwd)
    first, *rest = arguments
    if first == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = arguments
        runpy.run_path(first, run_name="__main__")
