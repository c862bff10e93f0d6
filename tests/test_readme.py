"""What README.md and the docstrings tell to run exists: files, flags, config fields."""

import ast
import importlib
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SHARED_FLAGS = ("app", "cluster", "command_line", "run_flags")


def commands(text):
    """`(experiment, arguments)` of every `python -m experiments...` in a text."""
    text = re.sub(r"\\?\n\s*--", " --", text)  # continued on the next line
    for line in re.findall(r"python -m experiments\.([^\n`]*)", text):
        experiment, *arguments = shlex.split(line.split(" #")[0], posix=True)
        yield experiment, [a for a in arguments if a.startswith("--")]


def texts():
    yield "README.md", README
    for folder in ("configs", "experiments", "experiments/speed"):
        for path in sorted((ROOT / folder).glob("*.py")):
            yield f"{folder}/{path.name}", ast.get_docstring(ast.parse(path.read_text())) or ""


COMMANDS = sorted(
    {
        (where, experiment, *arguments)
        for where, text in texts()
        for experiment, arguments in commands(text)
    }
)


def defined_flags(experiment):
    names = (experiment, f"{experiment}/__main__", *SHARED_FLAGS)
    paths = [ROOT / "experiments" / f"{name}.py" for name in names]
    source = "".join(path.read_text() for path in paths if path.exists())
    return set(re.findall(r'DEFINE_\w+\(\s*"(\w+)"', source))


def test_commands_were_found():
    assert len([where for where, *_ in COMMANDS if where == "README.md"]) > 30
    assert {experiment for _, experiment, *_ in COMMANDS} >= {"train", "ablation", "speed"}


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_command_has_its_flags_and_fields(command):
    _, experiment, *arguments = command
    flags, config = defined_flags(experiment), None
    for argument in arguments:
        name, _, value = argument.removeprefix("--").partition("=")
        if name == "config":
            assert (ROOT / value).is_file(), argument
            config = importlib.import_module(f"configs.{Path(value).stem}").get_config()
        elif name.startswith("config."):
            field = config
            for part in name.split(".")[1:]:
                assert part in field, argument
                field = field[part]
        else:
            assert name in flags or name.removeprefix("no") in flags, argument


def test_named_files_exist():
    named = set(re.findall(r"[`(]((?:vae_jax|configs|experiments|tests)/[\w/.-]*\w)", README))
    assert len(named) > 40
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_named_functions_are_where_the_readme_says():
    stations = re.findall(r"`(vae_jax/[\w/]+\.py)`\s+\(`(\w+)`", README)
    assert len(stations) > 10
    for path, name in stations:
        tree = ast.parse((ROOT / path).read_text())
        assert name in {getattr(node, "name", None) for node in tree.body}, f"{path}: {name}"
