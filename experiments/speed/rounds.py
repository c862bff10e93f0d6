"""Runs the sides of a comparison, each in a process of its own, in alternated rounds.

A side belongs to a session of its own: when this process ends, by SIGTERM or Ctrl-C too, so do the
side and all workers that it started.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from experiments.speed.programs import Program
from experiments.speed.side import RESULT, Result
from vae_jax.progress import progress
from vae_jax.types import UserError

# Large arrays on huge pages: helps JAX and PyTorch alike.
HUGE_PAGES = "glibc.malloc.hugetlb=1"
TIMEOUT_SECONDS = 1800.0
DISPATCH = "experiments.speed.dispatch"
CHECKOUT = Path(__file__).parents[2]


class Runner:
    """Starts sides on a task folder.

    Args:
        folder: The folder of the task; caches of compiled programs are kept in it too.
        peer_python: The interpreter of sides that need the extra `benchmark`.
    """

    def __init__(self, folder: Path, peer_python: str) -> None:
        self.folder, self.peer_python = folder, peer_python
        for package in ("experiments", "vae_jax"):  # A peer must not see the rest of ours.
            link = folder / package
            if not link.exists():
                link.symlink_to(CHECKOUT / package)

    def require(self, programs: Sequence[Program]) -> None:
        """Raises a UserError if a package is missing, before anything long is started."""
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
        """Runs one side once.

        Args:
            program: The side.
            action: 'check' or 'time'.

        Returns:
            Its result.

        Raises:
            UserError: The side cannot be started, fails, or takes too long.
        """
        arguments = [program.entry, str(self.folder), action, str(time.time()), program.variant]
        done = self._start(program, "-m", DISPATCH, *arguments, action=action)
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
            process = subprocess.Popen(
                [python, *arguments],
                cwd=self.folder,
                env=self._environment(action),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        except OSError as error:
            raise UserError(f"--peer_python={python} cannot be started ({error})") from None
        try:
            out, err = process.communicate(timeout=TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            raise UserError(
                f"{program.name} took more than {TIMEOUT_SECONDS:.0f} s; give fewer --seconds"
            ) from None
        finally:  # However this ends: the side ends too, with the workers that it started.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

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
    """Lets every side compute the same numbers from our weights, a batch and noise.

    Args:
        runner: Starts the sides.
        ours: Our side, which runs first and leaves weights and noise in the folder.
        peers: The other sides.
        tolerances: The largest relative difference of each number.

    Returns:
        The numbers by side.

    Raises:
        UserError: A side differs; names both numbers.
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
    """Times every side once per round, in an order that changes from round to round.

    Returns:
        The results of every side, one per round.
    """
    results: dict[str, list[Result]] = {program.name: [] for program in programs}
    with progress(rounds * len(programs), "Timing", "measurements") as advance:
        for i in range(rounds):
            first = i % len(programs)
            for program in (*programs[first:], *programs[:first]):
                results[program.name].append(runner.run(program, "time"))
                advance(note=program.name)
    return results
