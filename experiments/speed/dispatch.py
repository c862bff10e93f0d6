"""Starts a side in a process of its own, in whatever environment its library lives.

`python -m experiments.speed.dispatch MODULE:FUNCTION FOLDER ACTION STARTED VARIANT` calls the
function with a `side.Call` and prints what it returns on the last line of its output.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

from experiments.speed.side import RESULT, Call
from vae_jax.memory import keep_freed_memory


def main() -> None:
    """Calls the side and hands its result to the process that started this one."""
    entry, folder, action, started, variant = sys.argv[1:]
    module, function = entry.split(":")
    if ".peers." not in module:
        keep_freed_memory()  # as every command of ours does
    call = Call(Path(folder), action, float(started), variant)
    result = getattr(importlib.import_module(module), function)(call)
    print(RESULT + json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
