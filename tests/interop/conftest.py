"""Keras' numbers, and the weights that they came from."""

from pathlib import Path

import make_keras_fixture
import numpy as np
import pytest

FOLDER = Path(__file__).parent


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
            [
                make_keras_fixture.draw_weight(*role, seed, i)
                for i, role in enumerate(roles[network])
            ]
            for seed, network in enumerate(("encoder", "decoder"))
        ]

    return draw
