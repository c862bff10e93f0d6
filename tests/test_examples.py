"""The examples of docstrings do what they say; `runs/tiny` is a run of configs/tiny.py."""

import doctest
import importlib
from pathlib import Path

import pytest

from configs import tiny
from vae_jax.train.trainer import fit

PACKAGE = Path(__file__).parents[1] / "vae_jax"
WITH_EXAMPLES = sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if ">>> " in path.read_text("utf-8")
)


def test_there_are_examples():
    assert len(WITH_EXAMPLES) >= 9


@pytest.fixture(scope="module")
def home(tmp_path_factory, tiny_store):
    folder, config = tmp_path_factory.mktemp("examples"), tiny.get_config()
    config.data.name, config.data.path, config.train.epochs = "celeba", str(tiny_store), 1
    fit(config, folder / "runs" / "tiny")
    return folder


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_an_example_gives_what_it_shows(name, home, monkeypatch):
    monkeypatch.chdir(home)
    found = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert found.attempted and not found.failed
