"""The flag --config=FILE.py, and --config.section.field=value that changes fields of it."""

from __future__ import annotations

import ast
import difflib
import traceback
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from vae_jax.types import UserError

CHECKOUT = Path(__file__).parents[1]
PREFIXES = ("--config.", "-config.", "--noconfig.", "-noconfig.")
EXAMPLES = {
    tuple: "a tuple such as '(0.5, 3.0)', with a comma after a single value: '(0.5,)'",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
}

_overrides: list[str] = []


class ConfigFlag:
    """The flag of one command line; `value` reads the file."""

    def __init__(self, help_text: str, required: bool = True) -> None:
        self._path = flags.DEFINE_string(
            "config",
            None,
            f"{help_text} Change a field with --config.section.field=value.",
            required=required,
        )

    @property
    def path(self) -> str | None:
        """The file that the command line names."""
        return self._path.value

    @property
    def value(self) -> ConfigDict:
        """The config with what the command line changes in it.

        Raises:
            UserError: One sentence about the file or the field.
        """
        config = load(self._path.value or "")
        for text in _overrides:
            override(config, text)
        return config.lock()


def take_overrides(arguments: list[str]) -> list[str]:
    """Returns the arguments without those that change fields, which are kept for `value`."""
    _overrides[:] = [text for text in arguments if text.startswith(PREFIXES)]
    if _overrides and "config" not in flags.FLAGS:
        raise UserError(f"{_overrides[0]} has no meaning here: this command reads no config")
    return [text for text in arguments if text not in _overrides]


def load(path: str) -> ConfigDict:
    """Runs a config file and returns what its `get_config()` returns.

    Raises:
        UserError: The file is missing or fails; names the line and, where it is missing, the
            nearest config of the checkout.
    """
    if not Path(path).is_file():
        raise UserError(_missing(path))
    loader = SourceFileLoader("config", path)
    module = ModuleType("config")
    module.__file__ = path
    try:
        loader.exec_module(module)
        if not callable(getattr(module, "get_config", None)):
            raise UserError(f"--config={path} has no function get_config()")
        config = module.get_config()
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"--config={path} cannot be read: {error}") from error
    except (Exception, SystemExit) as error:
        raise UserError(_failure(path, error)) from error
    if not isinstance(config, ConfigDict):
        kind = type(config).__name__
        raise UserError(f"--config={path}: get_config() returns {kind}, but must return ConfigDict")
    return config


def _missing(path: str) -> str:
    known = {file.stem: file for file in sorted((CHECKOUT / "configs").glob("[a-z]*.py"))}
    stem = Path(path).name.removesuffix(".py")
    near = difflib.get_close_matches(stem, known, 1)
    advice = f"give a file such as {CHECKOUT / 'configs' / 'faces.py'}"
    if near:
        file = known[near[0]]
        inside = file.is_relative_to(Path.cwd())
        advice = f"did you mean --config={file.relative_to(Path.cwd()) if inside else file}?"
    return f"--config={path} is {'not a file' if Path(path).exists() else 'missing'}; {advice}"


def _failure(path: str, error: BaseException) -> str:
    """Says which line of a config file failed, and why."""
    if isinstance(error, SyntaxError | UnicodeDecodeError):
        line = getattr(error, "lineno", None)
        return f"--config={path}{f', line {line}' if line else ''} is not Python: {error}"
    rows = traceback.extract_tb(error.__traceback__)
    place = next((f", line {row.lineno}" for row in reversed(rows) if row.filename == path), "")
    hint = ""
    if isinstance(error, ModuleNotFoundError):
        hint = f"; configs are imported from the folder of the checkout, {CHECKOUT}"
    return f"--config={path}{place} fails with {type(error).__name__}: {error}{hint}"


def override(config: ConfigDict, text: str) -> None:
    """Changes one field of a config.

    Args:
        config: Changed in place.
        text: Such as `--config.train.epochs=5`; `--config.x` and `--noconfig.x` for a bool.

    Raises:
        UserError: There is no such field, or it takes no such value.
    """
    assigned, equals, value = text.lstrip("-").partition("=")
    negated = assigned.startswith("no")
    name = assigned.partition(".")[2]
    *sections, field = name.split(".")
    inner: Any = config
    for section in sections:
        inner = inner.get(section) if isinstance(inner, ConfigDict) else None
    if not isinstance(inner, ConfigDict) or field not in inner:
        raise UserError(f"config.{name} is not a field{_nearest(config, name)}")
    before = inner[field]
    if isinstance(before, ConfigDict):
        raise UserError(f"config.{name} is a section of fields: {', '.join(before)}")
    if not equals:
        if not isinstance(before, bool):
            raise UserError(f"--config.{name} needs a value: --config.{name}=VALUE")
        value = str(not negated)
    try:
        inner[field] = _value(value, before)
    except (ValueError, KeyError, SyntaxError, TypeError, MemoryError, RecursionError):
        wanted = EXAMPLES.get(type(before), f"of type {type(before).__name__}")
        raise UserError(f"config.{name} is {value[:80]!r}, but must be {wanted}") from None


def _value(text: str, before: Any) -> Any:
    """Reads a value as the kind that the field has."""
    if isinstance(before, str):
        return text
    if isinstance(before, bool):
        return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
    if isinstance(before, tuple):
        value = ast.literal_eval(text)
        if not isinstance(value, tuple | list):
            raise ValueError
        return tuple(value)
    return type(before)(text)


def _nearest(config: ConfigDict, name: str) -> str:
    """Names the field that was probably meant."""
    fields = [str(path) for path in _paths(config)]
    near = difflib.get_close_matches(name, fields, 1)
    if not near:  # The right name in another section.
        near = [path for path in fields if path.split(".")[-1] == name.split(".")[-1]]
    return f"; did you mean config.{near[0]}?" if near else "; configs/default.py lists them all"


def _paths(config: ConfigDict, prefix: str = "") -> list[str]:
    paths: list[str] = []
    for name, value in config.items():
        inner = _paths(value, f"{prefix}{name}.") if isinstance(value, ConfigDict) else []
        paths += inner or [prefix + name]
    return paths
