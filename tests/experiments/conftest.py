"""What tests of command lines share."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def command():
    """Runs `python -m experiments.MODULE` and returns stdout and stderr together."""

    def run(module, *arguments, expect=0, cwd=ROOT, timeout=300):
        done = subprocess.run(
            [sys.executable, "-m", f"experiments.{module}", *arguments],
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        output = done.stdout + done.stderr
        assert done.returncode == expect, output
        return output

    return run
