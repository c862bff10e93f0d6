"""Runs the sides of a comparison, each in a process of its own, in alternated rounds."""

from __future__ import annotations

import json
import os
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
        packages: that come with the extra `benchmark` only.
    """

    name: str
    module: str
    variant: str = ""
    packages: tuple[str, ...] = ()


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

    def require(self, programs: Sequence[Program]) -> None:
        """Raise UserError, before anything long is started, if a package is missing."""
        for program in programs:
            for package in program.packages:
                find = f"import importlib.util as u; raise SystemExit(not u.find_spec({package!r}))"
                if self._start(program, "-c", find).returncode:
                    raise UserError(
                        f"{program.name} needs the package {package!r}, which "
                        f"{self._python(program)} does not have: install the extra `benchmark`, "
                        "or name another interpreter with --peer_python"
                    )

    def run(self, program: Program, action: str) -> Result:
        """Run one side once.

        Args:
            program: the side.
            action: 'check' or 'time'.

        Returns:
            What it printed.

        Raises:
            UserError: the side cannot be started, fails, or takes too long.
        """
        arguments = [str(self.folder), action, str(time.time()), program.variant]
        done = self._start(program, "-m", program.module, *arguments, action=action)
        for line in reversed(done.stdout.splitlines()):
            if done.returncode == 0 and line.startswith(RESULT):
                return json.loads(line.removeprefix(RESULT))
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["no message"]
        raise UserError(f"{program.name} failed with exit code {done.returncode}: {said[-1]}")

    def _python(self, program: Program) -> str:
        return self.peer_python if program.packages else sys.executable

    def _start(
        self, program: Program, *arguments: str, action: str = "check"
    ) -> subprocess.CompletedProcess:
        python = self._python(program)
        try:
            return subprocess.run(
                [python, *arguments],
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
