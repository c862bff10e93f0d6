"""The rows of random points, and what is measured of them."""

import jax
import numpy as np

from vae_jax.studies.random_latents import (
    CUBE,
    ORTHANT,
    SPHERE,
    Result,
    distances,
    fitted_rows,
    over_seeds,
    page,
    reference_rows,
    split_images,
)


def test_rows_are_what_their_names_say():
    z_dim, count = 200, 100
    rows = reference_rows(jax.random.key(0), count, z_dim)
    kinds = [row.kind for row in rows]
    assert kinds.count("orthant") == 9 and kinds.count("normal") == 1
    assert ORTHANT == (0.5, 2.5, 5, 8, 10, 15, 20, 30, 50)
    by_kind = {kind: [row.z for row in rows if row.kind == kind] for kind in set(kinds)}
    for b, z in zip(ORTHANT, by_kind["orthant"], strict=True):
        assert z.shape == (count, z_dim) and z.min() >= 0 and z.max() <= b
        np.testing.assert_allclose(z.mean(), b / 2, rtol=0.02)
        # The radius of the reference test: b sqrt(Z / 3).
        np.testing.assert_allclose(
            np.linalg.norm(z, axis=1).mean(), b * (200 / 3) ** 0.5, rtol=0.02
        )
    for b, z in zip(CUBE, by_kind["cube"], strict=True):
        assert z.min() < -0.99 * b and 0.99 * b < z.max() <= b
        assert abs(z.mean()) < 0.02 * b
    for factor, z in zip(SPHERE, by_kind["sphere"], strict=True):
        np.testing.assert_allclose(np.linalg.norm(z, axis=1), factor * 200**0.5, rtol=1e-5)
    radii = np.linalg.norm(by_kind["normal"][0], axis=1)
    assert abs(radii.mean() - 14.1) < 0.3 and abs(radii.std() - 0.7) < 0.2


def test_more_points_keep_the_first_ones():
    few, many = (reference_rows(jax.random.key(1), n, 6) for n in (5, 9))
    for a, b in zip(few, many, strict=True):
        np.testing.assert_array_equal(a.z, b.z[:5])


def test_fitted_densities_have_the_aggregate_posteriors_moments():
    rng = np.random.default_rng(0)
    mixing = np.array([[2.0, 0, 0], [1, 0.5, 0], [0, 0, 1]])
    mean = (rng.normal(size=(600, 3)) @ mixing.T + [5, 0, -1]).astype(np.float32)
    log_var = np.full((600, 3), np.log(0.25), np.float32)
    rows, choice = fitted_rows(jax.random.key(2), 4000, mean, log_var)
    wanted = np.cov(mean, rowvar=False) + 0.25 * np.eye(3)
    for row in rows:
        np.testing.assert_allclose(row.z.mean(axis=0), mean.mean(axis=0), atol=0.15)
        np.testing.assert_allclose(np.cov(row.z, rowvar=False), wanted, atol=0.4)
    assert set(choice.held_out) == {1, 2, 5, 10} and choice.components == 1


def test_images_to_encode_and_to_compare_with_are_different_ones():
    own, others = split_images(50, 20, seed=1)
    assert len(set(own) | set(others)) == 40 and len(own) == len(others) == 20
    assert set(own) != set(split_images(50, 20, seed=2)[0])


def test_figures_are_means_with_their_deviation_over_seeds():
    found = over_seeds([{"radius": 1.0}, {"radius": 4.0}])
    assert found == {"radius": 2.5, "radius_std": np.std([1.0, 4.0], ddof=1)}
    assert np.isnan(over_seeds([{"radius": 1.0}])["radius_std"])


def test_distances_of_real_images_to_real_images_fall_with_their_count():
    images = np.random.default_rng(0).integers(0, 256, (800, 16, 16, 3)).astype(np.uint8)
    few, many = (distances(images[:n], images[n : 2 * n], jax.random.key(0)) for n in (50, 400))
    # 192 numbers per image: from 50 of them a covariance is singular, and the distance mostly bias.
    for name in few:
        assert few[name] > 1.5 * many[name] > 0


def row(name, kind, radius, distance):
    figures = {
        "radius": radius, "sliced_wasserstein": distance, "frechet_pixels": 2 * distance,
        "sliced_wasserstein_contrast": 3 * distance, "re_encoded": 3.0, "re_encoded_relative": 0.5,
    }  # fmt: skip
    spread = {f"{key}_std": 0.01 for key in figures}
    return {"name": name, "kind": kind} | figures | spread


def test_the_page_has_a_table_per_run_that_ends_with_its_floor():
    rows = [
        row("encoded images", "codes", 8.0, 0.06), row("N(0, I)", "normal", 8.0, 0.1),
        row("fitted Gaussian", "fitted", 8.5, 0.08),
    ]  # fmt: skip
    floor = {"sliced_wasserstein": 0.05, "sliced_wasserstein_contrast": 0.1, "frechet_pixels": 0.11}
    floor |= {f"{key}_std": 0.004 for key in floor}
    numbers = {
        "points": 1000, "seeds": [0, 1, 2], "z_dim": 64, "kl_weight": 0.3, "rows": rows,
        "floor": floor,
        "held_out": [{"seed": 0, "chosen": 2, "nats_per_point": {1: -90.0, 2: -89.0}}],
    }  # fmt: skip
    shown = [(one["name"], np.zeros((2, 64, 64, 1))) for one in rows]
    one = Result({"seeds": "0, 1, 2"}, numbers, shown)
    made = page({"vae": one, "ae": one})
    assert [section.heading for section in made.sections] == ["Quality against radius", "vae", "ae"]
    table = made.sections[1].tables[0]
    assert table.rows[1][:3] == ["N(0, I)", "8.0 ± 0.0", "0.100 ± 0.010"]
    assert table.rows[-1][:3] == ["real images to real images", "", "0.050 ± 0.004"]
    assert len(table.header) == len(table.rows[-1]) == 7
    assert "3.0 times as far" in made.lead  # N(0, I): 0.3 against 0.1
    assert "(chosen: 2)" in made.sections[1].text
    names = [picture.name for section in made.sections for picture in section.pictures]
    assert len(set(names)) == 6
