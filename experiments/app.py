"""What every command line shares: flags, errors in one sentence, the compilation cache."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import jax
from absl import app, flags, logging

from vae_jax import processes
from vae_jax.types import UserError

USER_ERROR_CODE = 2
INTERRUPTED_CODE = 128 + signal.SIGINT
LOST_CODE = 3  # another process of the run is gone

_USER_CACHE = str(Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "vae_jax" / "programs")
_COMPILATION_CACHE = flags.DEFINE_string(
    "compilation_cache",
    os.environ.get("JAX_COMPILATION_CACHE_DIR", _USER_CACHE),
    "Folder where compiled programs are kept for the next start; empty for none.",
)


def _fail(text: str, code: int) -> int:
    print(f"error: {text}", file=sys.stderr, flush=True)
    if processes.joined():
        os._exit(code)  # A usual exit would wait for the other processes, which wait for this one.
    return code


def run(main: Callable[[], int | None]) -> None:
    """Parse the flags, call `main`, and exit with its code; a `UserError` prints one sentence."""

    def guarded(arguments: list[str]) -> int | None:
        logging.set_verbosity(logging.WARNING)
        if _COMPILATION_CACHE.value:
            folder = str(Path(_COMPILATION_CACHE.value).expanduser())
            jax.config.update("jax_compilation_cache_dir", folder)
            jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
        try:
            if len(arguments) > 1:
                stray = arguments[1]
                raise UserError(f"argument {stray!r} is no flag; write flags as --name=value")
            return main()
        except UserError as error:
            return _fail(str(error), USER_ERROR_CODE)
        except KeyboardInterrupt:  # Not while training: that saves a checkpoint first.
            print("interrupted", file=sys.stderr)
            return INTERRUPTED_CODE
        except Exception as error:
            lost = processes.describe_loss(error)
            if lost is None and not processes.joined():
                raise
            return _fail(lost or traceback.format_exc(), LOST_CODE if lost else 1)

    app.run(guarded)
