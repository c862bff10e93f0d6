"""Runs a command line: reads its flags, prints its help, and words its errors in one sentence.

A module defines its flags when it is imported, and imports what computes inside its `main`, so that
`--help` and mistakes are answered at once. Exit codes: 0 done, 1 a defect (with a traceback), 2
something a user can put right (one line on standard error), 3 another process of the run is gone,
and 128 + N after signal N.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import signal
import sys
import textwrap
import tomllib
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from absl import flags

from experiments import command_line, config_file, console
from vae_jax.files import reason_of
from vae_jax.memory import keep_freed_memory
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
_TRACEBACK = flags.DEFINE_bool("traceback", False, "Show where in the code an error arose.")
HELP = {"help", "helpshort", "helpfull", "h", "?"}


def run(main: Callable[[], int | None]) -> None:
    """Reads the flags, calls `main`, and exits with its code; an error prints one sentence."""
    console.make_lasting()
    code = _guarded(main, sys.argv[1:])
    lost = console.lost_output()
    if lost is not None and not code:
        code = _fail(f"standard output could not be written: {reason_of(lost)}", USER_ERROR_CODE)
    sys.exit(code)


def _guarded(main: Callable[[], int | None], arguments: list[str]) -> int:
    try:
        asked = {argument.lstrip("-") for argument in arguments if argument.startswith("-")}
        if asked & HELP:
            print(_help(sys.modules[main.__module__].__doc__ or ""))
            return 0
        if "version" in asked:
            print(_version())
            return 0
        command_line.read(config_file.take_overrides(arguments))
        _keep_programs(_COMPILATION_CACHE.value)
        keep_freed_memory()
        if sys.stderr.isatty():
            print("starting", file=sys.stderr)  # What computes takes seconds to import.
        return main() or 0
    except KeyboardInterrupt:  # Not while training: that saves a checkpoint first.
        print("interrupted", file=sys.stderr)
        console.leave(INTERRUPTED_CODE)
        raise
    except Exception as error:
        if flags.FLAGS.is_parsed() and _TRACEBACK.value:
            traceback.print_exc()
        sentence = _sentence(error)
        if sentence is not None:
            return _fail(sentence, USER_ERROR_CODE)
        lost = _devices().describe_loss(error) if _joined() else None
        return _fail(lost, LOST_CODE) if lost else _fail(traceback.format_exc(), 1, lines=True)


def _fail(text: str, code: int, lines: bool = False) -> int:
    print(text if lines else f"error: {' '.join(text.split())}", file=sys.stderr)
    if "jax" in sys.modules:
        # A usual exit would wait for what still computes, and for other processes of the run.
        console.leave(code)
    return code


def _sentence(error: BaseException) -> str | None:
    """Returns what a user can do about an error, or None where it is a defect."""
    text = str(error)
    if isinstance(error, UserError):
        return text
    if isinstance(error, flags.Error):
        return command_line.sentence(error)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {reason_of(error)}"
    if isinstance(error, OSError):
        return reason_of(error)
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text:
        asked = f" ({text.splitlines()[0][:160]})" if text else ""
        return f"not enough memory{asked}; ask for less, or use a machine with more"
    return _missing_platform()


def _missing_platform() -> str | None:
    """Returns a sentence if JAX finds no device of the kind that the environment asks for."""
    platforms = os.environ.get("JAX_PLATFORMS")
    if not platforms or "jax" not in sys.modules:
        return None
    try:
        sys.modules["jax"].devices()
    except Exception:  # JAX raises several kinds.
        return (
            f"JAX finds no device for JAX_PLATFORMS={platforms}; leave the variable out to compute "
            "on what there is"
        )
    return None


def _keep_programs(folder: str) -> None:
    """Tells JAX, which is not imported yet, where to keep compiled programs."""
    if not folder:
        return
    try:
        path = str(Path(folder).expanduser())
    except RuntimeError:  # No HOME, and nobody's password entry.
        return
    os.environ["JAX_COMPILATION_CACHE_DIR"] = path
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
    # A program that cannot be kept, or was kept badly, is compiled again: nothing to tell.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")


def _devices():
    from vae_jax import devices

    return devices


def _joined() -> bool:
    """Returns whether this is one of several processes; importing what could tell costs seconds."""
    return "vae_jax.devices" in sys.modules and _devices().joined()


def _help(text: str) -> str:
    """Returns the module's docstring and every flag with its default."""
    width = min(shutil.get_terminal_size().columns, 100)
    own = [
        flag
        for module, defined in flags.FLAGS.flags_by_module_dict().items()
        if not module.startswith("absl")
        for flag in defined
    ]
    return "\n".join([text.strip(), "", "Flags:", *_flag_lines(own, width)])


def _flag_lines(shown: list[flags.Flag], width: int) -> Iterator[str]:
    indent = " " * 6
    for flag in sorted(shown, key=lambda flag: (not command_line.is_required(flag), flag.name)):
        default = "" if flag.default in (None, [], "") else f"={command_line.written(flag.default)}"
        yield f"  --{'[no]' if flag.boolean else ''}{flag.name}{default}"
        text = flag.help + ("" if not command_line.is_required(flag) else " Required.")
        yield textwrap.fill(text, width, initial_indent=indent, subsequent_indent=indent)


def _version() -> str:
    project = tomllib.loads((config_file.CHECKOUT / "pyproject.toml").read_text("utf-8"))
    python = ".".join(map(str, sys.version_info[:3]))
    jax = importlib.metadata.version("jax")
    return f"vae_jax {project['project']['version']} (JAX {jax}, Python {python})"
