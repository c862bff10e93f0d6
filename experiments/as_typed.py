"""The command as it was typed, for the pages that it makes."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path


def command() -> str:
    """Returns the command line that started this process, ready for a shell."""
    return shlex.join(["python", "-m", f"experiments.{Path(sys.argv[0]).stem}", *sys.argv[1:]])
