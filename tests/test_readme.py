"""What the READMEs and the docstrings tell to run exists: files, flags, config fields."""

import ast
import importlib
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
READMES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in (ROOT / folder / "README.md" for folder in ("", "experiments", "vae_jax", "tests"))
}
SHARED_FLAGS = ("app", "cluster", "pair_flags", "prior_flags", "run_flags")


def commands(text):
    """`(experiment, arguments)` of every `python -m experiments...` in a text."""
    text = re.sub(r"\\?\n\s*--", " --", text)  # continued on the next line
    for line in re.findall(r"python -m experiments\.([^\n`]*)", text):
        experiment, *arguments = shlex.split(line.split(" #")[0], posix=True)
        yield experiment, [a for a in arguments if a.startswith("--")]


def texts():
    yield from READMES.items()
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
    """Names given to the functions that define flags, and those that these have by default."""
    names = (experiment, f"{experiment}/__main__", *SHARED_FLAGS)
    paths = [ROOT / "experiments" / f"{name}.py" for name in names]
    source = "".join(path.read_text() for path in paths if path.exists())
    named = re.findall(r'(?:DEFINE_\w+|command_line\.count)\(\s*"(\w+)"', source)
    named += re.findall(r'command_line\.out_\w+\([^"\n]*".*"(\w+)"\)', source)
    shared = re.findall(r"command_line\.(workdir|step|seed|out)\w*\(", source)
    return {*named, *shared}


def test_commands_were_found():
    assert len([where for where, *_ in COMMANDS if where in READMES]) > 30
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
    text = "".join(READMES.values())
    named = set(re.findall(r"[`(]((?:vae_jax|configs|experiments|tests)/[\w/.-]*\w)", text))
    assert len(named) > 40
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("name", READMES)
def test_links_lead_somewhere(name):
    folder = (ROOT / name).parent
    for address in re.findall(r"\]\(([^)\s]+)\)", READMES[name]):
        path, _, place = address.partition("#")
        target = folder / path if path else ROOT / name
        assert target.exists(), address
        if place:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            assert place in {anchor(heading) for heading in headings}, address


def anchor(heading):
    """What a heading is called in a link."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def test_named_functions_are_where_the_readme_says():
    stations = re.findall(r"`(vae_jax/[\w/]+\.py)`\s+\(`(\w+)`", READMES["vae_jax/README.md"])
    assert len(stations) > 10
    for path, name in stations:
        tree = ast.parse((ROOT / path).read_text())
        assert name in {getattr(node, "name", None) for node in tree.body}, f"{path}: {name}"


def test_the_first_readme_is_short():
    assert len(READMES["README.md"].splitlines()) <= 200
