"""The plane of the codes, its grids, and what the page says of bounds and floors."""

import numpy as np
import pytest
from scipy import stats

from vae_jax.metrics.posterior import QQ_PROBABILITIES
from vae_jax.studies import posterior


def test_the_plane_is_that_of_largest_variance():
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    codes = rng.normal(size=(4000, 4)) * [3.0, 2.0, 0.5, 0.1]
    mean = (codes - codes.mean(axis=0)) @ turn + 5
    offset, axes, names = posterior.principal_plane(mean, np.full((4000, 4), np.log(0.01)))
    np.testing.assert_allclose(offset, 5)
    # One deviation each, in the direction of the first two columns.
    np.testing.assert_allclose(np.linalg.norm(axes, axis=1), [3, 2], rtol=0.05)
    np.testing.assert_allclose(np.abs(axes @ turn.T), [[3, 0, 0, 0], [0, 2, 0, 0]], atol=0.15)
    assert names[0] == "principal component 1"
    for z_dim in (1, 2):
        offset, axes, names = posterior.principal_plane(mean[:, :z_dim], mean[:, :z_dim])
        np.testing.assert_array_equal(np.array([[1.5, 0.0]]) @ axes + offset, [[1.5, 0.0][:z_dim]])
        assert names == ("z 0", "z 1")


def test_a_grid_is_laid_out_as_a_plot():
    expected = [(x, y) for y in (2, 0, -2) for x in (-2, 0, 2)]
    np.testing.assert_allclose(posterior.square_grid(np.array([-2, 0, 2])), expected)


def result(information):
    numbers = {
        "images": 800, "z_dim": 3, "kl": 21.5, "kl_standard_error": 0.25, "active_units": 2,
        "offset_norm": 0.25, "mmd": 0.01, "mmd_floor": -0.0002, "mmd_points": 800,
        "active_mask": [True, False, True], "kl_per_dimension": [1.5, 0.0, 5.0],
        "spectrum": [2.0, 1.0, 0.5], "spectrum_of_means": [1.5, 0.5, 0.0001],
        "skewness": [0.1, -0.2, 0.0], "excess_kurtosis": [0.3, 0.0, -0.1],
        "mahalanobis": {
            name: stats.chi2.ppf(QQ_PROBABILITIES, 3) for name in ("chi_square", "observed")
        },
        "variance_of_means": [0.9, 0.0, 0.8], "mean_variance": [0.1, 1.0, 0.2],
        "offset": [0.5, -1.0, 2.0],
        "kl_decomposition": {
            "mutual_information": information, "mutual_information_bound": np.log(800),
            "mutual_information_standard_error": 0.02, "total_correlation": 12.0,
            "total_correlation_standard_error": 0.1, "dimension_kl": 0.5,
            "dimension_kl_standard_error": 0.05,
        },
        "radius": {"mean": 1.6, "std": 0.3, "ks_distance": 0.125},
        "radius_of_means": {"mean": 1.2, "std": 0.4, "ks_distance": 0.25},
        "radius_prior": {"mean": 1.6, "std": 0.7},
    }  # fmt: skip
    rng, images = np.random.default_rng(0), np.zeros((4, 8, 8, 1), np.float32)
    return posterior.Result(
        {"split": "test"}, numbers, rng.uniform(size=800), rng.uniform(size=800),
        rng.normal(size=(800, 2)), ("z 0", "z 1"), rng.integers(0, 2, 800), ("not Hat", "Hat"),
        "Hat is told apart best.", images, images,
    )  # fmt: skip


def test_an_estimate_at_its_bound_is_said_to_be_there():
    at_bound = posterior.page(result(6.68)).sections[0]
    assert "6.68 is at its bound" in at_bound.text and "800 images (6.68)" in at_bound.text
    assert posterior.page(result(3.0)).sections[0].text == ""


def test_numbers_stand_beside_what_the_prior_would_give():
    page = posterior.page(result(3.0))
    rows = {row[0]: row[1:] for row in page.sections[0].tables[0].rows}
    assert rows["KL(q(z|x) || N(0, I)), nats per image"] == ("21.50 ± 0.25", "")
    assert rows["squared MMD to the prior, 800 points"] == ("0.0100", "-0.0002, prior to prior")
    distance = rows["|z| of draws of q(z): Kolmogorov-Smirnov distance"]
    assert distance == ("0.125", f"{0.87 / 800**0.5:.3f}")
    assert "21.5 nats in 2 of 3" in page.lead
    pictures = [p for section in page.sections for p in section.pictures]
    assert len(pictures) == 9 and all(p.caption for p in pictures)
    assert pictures[6].caption.endswith("Hat is told apart best.")


@pytest.mark.parametrize("groups", [None, np.arange(800) % 10])
def test_means_are_drawn_with_and_without_groups(groups):
    one = result(3.0)
    names = tuple(f"class {i}" for i in range(10)) if groups is not None else ()
    changed = posterior.Result(**(vars(one) | {"groups": groups, "group_names": names}))
    assert posterior.page(changed).sections[2].heading == (
        "Means" if groups is None else "Means by label"
    )
