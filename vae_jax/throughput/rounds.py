"""Runs the sides of a comparison, each in a process of its own, in alternated rounds."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import vae_jax
from vae_jax.progress import progress
from vae_jax.throughput.side import RESULT
from vae_jax.types import UserError

# Large arrays on huge pages: helps JAX and PyTorch alike.
HUGE_PAGES = "glibc.malloc.hugetlb=1"
TIMEOUT_SECONDS = 1800.0

Result = dict[str, Any]


@dataclass(frozen=True)
class Program:
    """How to start a side.

    Attributes:
        name: in the table.
        module: what `python -m` runs.
        variant: handed to it.
        needs_extra: whether its libraries come with the extra `benchmark` only.
    """

    name: str
    module: str
    variant: str = ""
    needs_extra: bool = True


class Runner:
    """Starts sides on a task folder.

    Args:
        folder: of the task; caches of compiled programs are kept in it too.
        peer_python: interpreter for sides that need the extra `benchmark`.
    """

    def __init__(self, folder: Path, peer_python: str) -> None:
        self.folder, self.peer_python = folder, peer_python
        # A peer's environment may lack this package, and must not see the rest of ours.
        for package in (
            Path(vae_jax.__file__).parent,
            Path(vae_jax.__file__).parents[1] / "experiments",
        ):
            link = folder / package.name
            if package.is_dir() and not link.exists():
                link.symlink_to(package.resolve())

    def run(self, program: Program, action: str) -> Result:
        """Run one side once.

        Args:
            program: the side.
            action: 'check' or 'time'.

        Returns:
            What it printed.

        Raises:
            UserError: a library is missing, or the side failed.
        """
        python = self.peer_python if program.needs_extra else sys.executable
        arguments = [str(self.folder), action, str(time.time()), program.variant]
        try:
            done = subprocess.run(
                [python, "-m", program.module, *arguments],
                cwd=self.folder,
                env=self._environment(action),
                capture_output=True,
                text=True,
                timeout=TIMEOUT_SECONDS,
            )
        except OSError as error:
            raise UserError(f"--peer_python={python} cannot be started ({error})") from None
        except subprocess.TimeoutExpired:
            raise UserError(
                f"{program.name} took more than {TIMEOUT_SECONDS:.0f} s; give fewer --seconds"
            ) from None
        for line in reversed(done.stdout.splitlines()):
            if done.returncode == 0 and line.startswith(RESULT):
                return json.loads(line.removeprefix(RESULT))
        raise UserError(_failure(program, python, done))

    def _environment(self, action: str) -> dict[str, str]:
        tunables = [os.environ.get("GLIBC_TUNABLES"), HUGE_PAGES]
        # The first round compiles, the later ones find what it kept; checks keep theirs apart.
        cache = self.folder / f"programs-{action}"
        return os.environ | {
            "GLIBC_TUNABLES": ":".join(filter(None, tunables)),
            "JAX_COMPILATION_CACHE_DIR": str(cache / "jax"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
            "TORCHINDUCTOR_CACHE_DIR": str(cache / "torch"),
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }


def _failure(program: Program, python: str, done: subprocess.CompletedProcess) -> str:
    if missing := re.search(r"No module named '([\w.]+)'", done.stderr):
        return (
            f"{program.name} needs the package {missing[1]!r}, which {python} does not have: "
            "install the extra `benchmark`, or name another interpreter with --peer_python"
        )
    lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
    return f"{program.name} failed (exit code {done.returncode}): {lines[-1]}"


def check_agreement(
    runner: Runner, ours: Program, peers: Sequence[Program], tolerances: dict[str, float]
) -> dict[str, Result]:
    """Let every side compute the same numbers from our weights, a batch and noise.

    Args:
        runner: starts the sides.
        ours: runs first and leaves weights and noise in the folder.
        peers: the others.
        tolerances: largest relative difference of each number.

    Returns:
        The numbers by side.

    Raises:
        UserError: a side differs; both numbers are named.
    """
    found = {ours.name: runner.run(ours, "check")}
    for peer in peers:
        found[peer.name] = runner.run(peer, "check")
        for name, expected in found[ours.name].items():
            value = found[peer.name][name]
            if not abs(value - expected) <= tolerances[name] * abs(expected):
                raise UserError(
                    f"{peer.name} does not compute what we compute: {name} is {value:.8g} there "
                    f"and {expected:.8g} here, for the same weights, images and noise; "
                    "a comparison of speed would mean nothing"
                )
    return found


def run_rounds(runner: Runner, programs: Sequence[Program], rounds: int) -> dict[str, list[Result]]:
    """Time every side once a round, in an order that changes from round to round.

    Returns:
        The results of every side, one a round.
    """
    results: dict[str, list[Result]] = {program.name: [] for program in programs}
    with progress(rounds * len(programs), "Timing", "measurements") as advance:
        for i in range(rounds):
            first = i % len(programs)
            for program in (*programs[first:], *programs[:first]):
                results[program.name].append(runner.run(program, "time"))
                advance(note=program.name)
    return results
