"""The page that compares priors: what a gap is, and that replayed images are seen."""

import numpy as np
import pytest

from vae_jax.report.page import render
from vae_jax.studies import priors
from vae_jax.studies.priors import CODES, REAL, Result, closed, nearest, page, replayed

RNG = np.random.default_rng(0)


def test_nearest_is_the_mean_distance_to_the_nearest():
    points, others = RNG.normal(size=(7, 3)), RNG.normal(size=(9, 3))
    wanted = np.mean([min(np.linalg.norm(p - o) for o in others) for p in points])
    assert nearest(points, others) == pytest.approx(wanted)


def test_images_that_replay_training_images_are_seen():
    train, held_out, fresh = RNG.integers(0, 256, (3, 40, 16, 16, 3)).astype(np.uint8)
    assert replayed(train / 255.0, train, held_out)["nearest_image"] < 1e-6
    assert replayed(fresh / 255.0, train, held_out)["nearest_image"] == pytest.approx(1, abs=0.05)


def row(name, distance):
    figures = {"sliced_wasserstein": distance, "sliced_wasserstein_16x16": distance,
               "nearest_image": 1.0, "nearest_code": 1.0, "draw_seconds": 0.1}  # fmt: skip
    figures |= {f"pixels_8x8_{figure}": 0.5 for figure in priors.IN_SPACE}
    return {"name": name} | figures | {f"{figure}_std": 0.01 for figure in figures}


def test_the_page_says_which_prior_closes_the_gap():
    rows = [row("normal", 0.10), row("gaussian", 0.06), row("flow", 0.052), row(CODES, 0.05),
            row(REAL, 0.03)]  # fmt: skip
    by_name = {each["name"]: each for each in rows}
    assert closed(by_name, "gaussian", "sliced_wasserstein") == pytest.approx(0.8)
    assert closed(by_name, "gaussian", "pixels_8x8_recall") is None
    numbers = {
        "points": 100, "seeds": [0, 1], "z_dim": 4, "kl_weight": 1.0, "spaces": ["pixels_8x8"],
        "levels": ["sliced_wasserstein_16x16"], "rows": rows,
        "priors": {
            "normal": {"kind": "normal"},
            "gaussian": {"kind": "gaussian", "held_out_nats": -3.0, "held_out_codes": 9,
                         "seconds": 0.4},
            "flow": {"kind": "flow", "steps": 900, "held_out_loss": 2.0, "seconds": 11.0},
        },
    }  # fmt: skip
    shown = [(name, np.zeros((2, 16, 16, 3))) for name in by_name]
    made = page(Result({"seeds": "0, 1"}, numbers, shown))
    assert "0.052 from the prior flow, which closes 96% of the gap" in made.lead
    fitting = made.sections[-1].tables[0].rows
    assert fitting[1][1:4] == ["Gaussian", "", "-3 (nats)"]
    assert fitting[2][1:5] == ["flow", "900 steps", "2 (loss)", "11.0 s"]
    assert "Memorisation" in render(made)
