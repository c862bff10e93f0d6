"""What tests of command lines share."""

import forks
import pytest


@pytest.fixture(scope="session")
def command():
    """Runs `python -m experiments.MODULE` and returns stdout and stderr together."""

    def run(module, *arguments, expect=0, cwd=forks.ROOT):
        done = forks.run("-m", f"experiments.{module}", *arguments, cwd=cwd)
        output = done.stdout + done.stderr
        assert done.returncode == expect, output
        return output

    return run
