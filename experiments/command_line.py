"""Defines the flags that several command lines share, and words what is wrong with a flag.

`--workdir`, `--step`, `--seed` and `--out` mean the same everywhere. The help says whether `--out`
is a file or a folder, and every output is checked before anything is computed.
"""

from __future__ import annotations

import difflib
import math
import os
import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from absl import flags

from vae_jax.files import check_replaceable
from vae_jax.types import UserError

MAX_SEED = 2**32 - 1  # that of vae_jax.streams, which imports JAX
MAY_BE_EMPTY = ("compilation_cache",)

_files: dict[str, flags.FlagHolder] = {}
_folders: dict[str, flags.FlagHolder] = {}
_below: dict[str, str] = {}  # default folders below that of --workdir


def workdir(kind: str = "run") -> flags.FlagHolder[str]:
    """Defines --workdir, the folder of a trained run or of a sweep."""
    return flags.DEFINE_string("workdir", None, f"Folder of the {kind}.", required=True)


def step() -> flags.FlagHolder[int | None]:
    """Defines --step, the checkpoint to open."""
    return flags.DEFINE_integer(
        "step", None, "Checkpoint step; the newest by default.", lower_bound=0
    )


def data() -> flags.FlagHolder[str | None]:
    """Defines --data, which says where the images of a run lie if they have been moved."""
    return flags.DEFINE_string(
        "data", None, "Where the run's images lie or may be prepared; as in its config by default."
    )


def seed(help_text: str) -> flags.FlagHolder[int]:
    """Defines --seed, a whole number of 32 bits."""
    return flags.DEFINE_integer("seed", 0, help_text, lower_bound=0, upper_bound=MAX_SEED)


def count(
    name: str, default: int, help_text: str, low: int = 1, high: int = 10_000_000
) -> flags.FlagHolder[int]:
    """Defines a flag that counts things, from `low` to `high`."""
    return flags.DEFINE_integer(name, default, help_text, lower_bound=low, upper_bound=high)


def out_file(default: str | None, help_text: str, name: str = "out") -> flags.FlagHolder:
    """Defines a flag that names a file to write."""
    _files[name] = flags.DEFINE_string(name, default, f"File to write: {help_text}")
    return _files[name]


def out_folder(default: str | None, help_text: str, required: bool = False) -> flags.FlagHolder:
    """Defines --out, a folder to write into."""
    text = f"Folder to write: {help_text}"
    _folders["out"] = flags.DEFINE_string("out", default, text, required=required)
    return _folders["out"]


def out_below(folder: str, help_text: str) -> flags.FlagHolder:
    """Defines --out, by default a folder in that of --workdir; `{flag}` stands for its value."""
    place = re.sub(r"{(\w+)}", lambda match: match[1].upper(), folder)
    by_default = "/".join(["WORKDIR", *filter(None, [place])])
    _below["out"] = folder
    return out_folder(None, f"{help_text}; {by_default} by default.")


def tell(written: Iterable[str | Path], then: str = "", **flag_values: Any) -> None:
    """Prints what a command wrote, and the next command that a user might want.

    Args:
        written: The paths.
        then: The name of that command; empty for none.
        flag_values: Its flags.
    """
    for path in written:
        print(f"wrote {path}")
    if then:
        asked = [f"--{name}={value}" for name, value in flag_values.items()]
        print(f"next: {shlex.join(['python', '-m', f'experiments.{then}', *asked])}")


def read(arguments: list[str]) -> None:
    """Parses the command line and refuses values that no command can use.

    Raises:
        flags.Error: A flag is unknown, missing or illegal; `sentence` words it.
        UserError: There is a positional argument, an empty path, a number that is not finite, an
            output that cannot be written, two outputs of one name, or none for several runs.
    """
    try:
        stray = flags.FLAGS(["command", *arguments])[1:]
    except ValueError as error:  # A value for --noflag.
        raise UserError(str(error)) from error
    if stray:
        raise UserError(f"argument {stray[0]!r} is no flag; write flags as --name=value")
    for name in flags.FLAGS:
        value = flags.FLAGS[name].value
        for item in value if isinstance(value, list) else [value]:
            if item == "" and flags.FLAGS[name].present and name not in MAY_BE_EMPTY:
                raise UserError(f"--{name} is empty; give a value or leave it out")
            if isinstance(item, float) and not math.isfinite(item):
                raise UserError(f"--{name} is {item}, but must be finite")
    for name, below in _below.items():
        if flags.FLAGS[name].value is None:
            folder = below.format(**flags.FLAGS.flag_values_dict())
            flags.FLAGS[name].value = str(_workdir() / folder)
    _check_outputs()


def numbers(flag: flags.FlagHolder, kind: type) -> tuple:
    """Returns the value of a flag, a list or a text with commas, as numbers.

    Args:
        flag: The flag.
        kind: int or float.

    Raises:
        UserError: An entry is no such number, or not finite.
    """
    texts = flag.value.split(",") if isinstance(flag.value, str) else flag.value
    try:
        found = tuple(kind(text) for text in texts)
    except ValueError:
        found = (math.nan,)
    if not all(map(math.isfinite, found)):
        whole = "whole " if kind is int else ""
        raise UserError(
            f"--{flag.name} is {','.join(texts)!r}, but must be {whole}numbers with commas"
        )
    return found


def _workdir() -> Path:
    value = flags.FLAGS.workdir
    if isinstance(value, list) and len(value) > 1:
        raise UserError("several runs have no folder in common: give one with --out=FOLDER")
    return Path(value[0] if isinstance(value, list) else value)


def _check_outputs() -> None:
    seen: dict[str, str] = {}
    for name, flag in (_files | _folders).items():
        if flag.value is None:
            continue
        if name in _below and not flags.FLAGS[name].present and not _workdir().is_dir():
            continue  # The error is that there is no such workdir.
        path = Path(flag.value)
        real = os.path.realpath(path)  # Unlike `resolve`, it accepts links that lead in a circle.
        if real in seen:
            raise UserError(f"--{name} and --{seen[real]} both name {path}")
        seen[real] = name
        if name in _files:
            check_replaceable(path)
        elif path.exists() and not path.is_dir():
            raise UserError(f"--{name}={path} is a file, but names a folder; name another place")
        above = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
        above = above.parent if above.is_file() and above == path else above
        if not above.is_dir():
            raise UserError(f"--{name}={path} cannot be written: {above} is not a folder")
        if not os.access(above, os.W_OK | os.X_OK):
            raise UserError(
                f"--{name}={path} cannot be written: no permission in {above}; give another "
                f"place with --{name}"
            )


def sentence(error: flags.Error) -> str:
    """Returns an error of the flag parser in the words of all other errors."""
    text = str(error)
    missing = re.findall(r"^flag --(\w+)=None: Flag --\w+ must have a value", text, re.MULTILINE)
    if missing:
        named = " and ".join(f"--{name}" for name in missing)
        texts = " ".join(flags.FLAGS[name].help for name in missing)
        return f"{named} {'are' if len(missing) > 1 else 'is'} missing: {texts}".rstrip(".")
    if isinstance(error, flags.UnrecognizedFlagError):
        near = difflib.get_close_matches(error.flagname, list(flags.FLAGS), 1)
        advice = f"did you mean --{near[0]}?" if near else "--help lists them all"
        return f"--{error.flagname} is not a flag of this command; {advice}"
    illegal = re.match(r"flag --(\w+)=(.*?): ", text, re.DOTALL)
    if illegal:
        name, value = illegal.groups()
        return f"--{name} is {value[:80]!r}, but must be {_allowed(flags.FLAGS[name].parser)}"
    return re.sub(r"^Missing value for flag (\S+)$", r"\1 needs a value: \1=VALUE", text)


def _allowed(parser: Any) -> str:
    if isinstance(parser, flags.EnumParser):
        return f"one of {', '.join(parser.enum_values)}"
    if isinstance(parser, flags.BooleanParser):
        return "true or false"
    if not isinstance(parser, flags.IntegerParser | flags.FloatParser):
        return parser.syntactic_help or "something else"
    number = "a whole number" if isinstance(parser, flags.IntegerParser) else "a number"
    low, high = parser.lower_bound, parser.upper_bound
    if low is not None and high is not None:
        return f"{number} from {low:,} to {high:,}"
    bound = "" if low is None else f" of at least {low:,}"
    return number + (bound if high is None else f" of at most {high:,}")


def is_required(flag: flags.Flag) -> bool:
    """Returns whether a command refuses to start without the flag."""
    return any("must have a value" in validator.message for validator in flag.validators)


def written(value: Any) -> str:
    """Returns a value as it is written on a command line."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
