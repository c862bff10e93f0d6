"""The forecast of a linear VAE beside the members of a sweep, against numbers by hand."""

import numpy as np
import pytest

from tests.studies.test_ablation import member, plain
from vae_jax.metrics.linear_vae import forecast, image_spectrum
from vae_jax.studies.cells import make_cells
from vae_jax.studies.linear_forecast import forecast_section


def test_the_forecast_is_reverse_water_filling():
    """Images with two directions only: the left half and the right half, grey 64 +- 32, +- 8."""
    signs = np.array([(a, b) for a in (-1, 1) for b in (-1, 1)] * 8)
    halves = (64 + signs * (32, 8)).astype(np.uint8)
    images = np.repeat(halves, 4, axis=1).reshape(32, 2, 4, 1)
    first, second = (4 * np.square(np.array([32, 8]) / 255)).tolist()
    found = forecast(image_spectrum(images), 2, second, "squared_error", 0.1)
    # The water level is half of beta: both directions are coded.
    assert found["kl"] == pytest.approx(0.5 * np.log(2 * first / second) + 0.5 * np.log(2))
    assert found["recon"] == pytest.approx(second, rel=1e-4)
    assert found["active_units"] == 2
    assert found["first_collapse"] == pytest.approx(2 * second)
    assert found["last_collapse"] == pytest.approx(2 * first)
    assert forecast(image_spectrum(images), 2, 4 * first, "squared_error", 0.1)["kl"] == 0


def made(kl_weight, active, **own):
    """A cell of one member with KL 10, recon 50 and beta as its weight."""
    figures = {"beta": kl_weight, "kl": 10.0, "recon": 50.0, "active_units": active} | own
    return member(kl_weight, 4, 0, test=figures)


def test_the_page_sets_measured_beside_forecast():
    linear = {"linear_active_units": 2.0, "linear_first_collapse": 0.5, "linear_last_collapse": 3.0}
    members = [
        made(0.0, 4),
        made(1.0, 4, linear_kl=12.0, linear_recon=50.0, **linear),
        made(2.0, 1, linear_kl=9.0, linear_recon=51.0, **linear),
    ]
    cells = make_cells(members)
    section = forecast_section(cells)
    table, collapse = section.tables
    assert [row[4] for row in table.rows] == ["+20%", "-10%"]
    assert [row[7] for row in table.rows] == ["-2.00", "+1.00"]  # of R + beta KL
    assert "off by 15%, its active units by 75%" in section.text
    assert plain(section.text).endswith("w = 2.")
    assert [plain(cell) for cell in collapse.rows[0]] == [
        "Z = 4", "0.5", "1 to 2", "3", "above 2",
    ]  # fmt: skip
    assert forecast_section(cells[:1]) is None
