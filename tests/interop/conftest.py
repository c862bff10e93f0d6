"""Keras' numbers, and the script that made them, which its tests import by name."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parent


def _import_script(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


_SCRIPT = _import_script("make_keras_fixture")


@pytest.fixture(scope="session")
def kept():
    """All arrays of keras_reference.npz."""
    with np.load(FOLDER / "keras_reference.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def formula_arrays():
    """The weights of the script in Keras' order, a list for each network."""

    def draw(roles):
        return [
            [_SCRIPT.draw_weight(*role, seed, i) for i, role in enumerate(roles[network])]
            for seed, network in enumerate(("encoder", "decoder"))
        ]

    return draw
