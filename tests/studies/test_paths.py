"""Exact ends and geometry, steps against closed forms, planes judged by codes they never saw."""

import jax
import numpy as np
import pytest

from vae_jax.studies import paths
from vae_jax.types import UserError


def ends(z_dim=7, seed=0):
    return 3 * np.random.default_rng(seed).normal(size=(2, z_dim))


@pytest.mark.parametrize("kind", [paths.linear, paths.spherical])
def test_ends_are_exact_and_the_way_back_is_the_same(kind):
    start, end = ends()
    path = kind(start, end, 9)
    assert path.shape == (9, 7)
    np.testing.assert_array_equal(path[[0, -1]], [start, end])
    np.testing.assert_allclose(kind(end, start, 9)[::-1], path, atol=1e-12)
    batch = kind(np.stack([start, end]), np.stack([end, start]), 9)
    np.testing.assert_allclose(batch[0], path, atol=1e-12)
    with pytest.raises(UserError, match="at least 2"):
        kind(start, end, 1)
    with pytest.raises(ValueError, match="share a shape"):
        kind(start, end[:3], 4)


def test_linear_steps_are_equal():
    start, end = ends()
    steps = np.diff(paths.linear(start, end, 9), axis=0)
    np.testing.assert_allclose(steps, np.tile((end - start) / 8, (8, 1)))


def test_spherical_agrees_with_slerp_for_equal_norms():
    start, end = ends()
    end = end * np.linalg.norm(start) / np.linalg.norm(end)
    angle = np.arccos(start @ end / (start @ start))
    t = np.linspace(0, 1, 9)[:, None]
    expected = (np.sin((1 - t) * angle) * start + np.sin(t * angle) * end) / np.sin(angle)
    np.testing.assert_allclose(paths.spherical(start, end, 9), expected, atol=1e-12)


def test_spherical_radius_and_angle_change_evenly():
    path = paths.spherical(*ends(), 9)
    radii = np.linalg.norm(path, axis=1)
    np.testing.assert_allclose(np.diff(radii, n=2), 0, atol=1e-12)
    unit = path / radii[:, None]
    cosines = np.sum(unit[1:] * unit[:-1], axis=1)
    np.testing.assert_allclose(cosines, cosines[0], atol=1e-12)


@pytest.mark.parametrize("tilt", [0.0, *np.logspace(-8, -2, 13)])
@pytest.mark.parametrize("z_dim", [2, 7, 200])
def test_spherical_between_nearly_opposite_ends_keeps_the_radius(tilt, z_dim):
    rng = np.random.default_rng(3)
    start, across = rng.normal(size=(2, z_dim)).astype(np.float32)
    end = (-start + np.float32(tilt) * across).astype(np.float32)  # as codes are: float32
    path = paths.spherical(start, end, 9)
    radii = np.linalg.norm(np.float64([start, end]), axis=1)
    np.testing.assert_allclose(np.linalg.norm(path, axis=1), np.linspace(*radii, 9), rtol=1e-6)
    # Half a great circle in equal steps, but for the tilt.
    steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
    np.testing.assert_allclose(steps, 2 * radii[0] * np.sin(np.pi / 16), rtol=5 * tilt + 1e-5)


def test_spherical_degenerate_ends_stay_finite():
    start, _ = ends()
    np.testing.assert_allclose(paths.spherical(start, start, 9), np.tile(start, (9, 1)))
    np.testing.assert_allclose(paths.spherical(start, 2 * start, 9)[4], 1.5 * start)
    zero = np.zeros(7)
    np.testing.assert_allclose(paths.spherical(zero, start, 9)[4], start / 2)
    np.testing.assert_array_equal(paths.spherical(zero, zero, 9), np.zeros((9, 7)))
    assert np.all(np.isfinite(paths.spherical(np.array([1.0]), np.array([-1.0]), 3)))


def test_blocks_cover_every_component_once():
    z, values = ends()[0], np.array([1.0, 20.0])
    found = paths.moved_blocks(z, values, 3)
    assert found.shape == (3, 2, 7)
    np.testing.assert_array_equal(np.sum(found[:, 1] != z[None, :], axis=0), np.ones(7))
    np.testing.assert_allclose(found[2, 1], [*z[:6], z[6] + 20])
    np.testing.assert_allclose(paths.moved_blocks(z, values, 1)[:, 0], z + np.eye(7))


def attributes(count=4000, seed=0):
    """Codes with a known effect of two attributes that often occur together."""
    rng = np.random.default_rng(seed)
    first = rng.uniform(size=count) < 0.5
    second = np.where(first, rng.uniform(size=count) < 0.9, rng.uniform(size=count) < 0.2)
    labels = np.stack([first, second], axis=1).astype(np.uint8)
    effects = np.array([[1.0, 0.0, -2.0], [0.0, 3.0, 1.0]])
    z = labels @ effects + 5 + 0.1 * rng.normal(size=(count, 3))
    return z.astype(np.float32), labels, effects


def test_attribute_vectors_are_differences_of_means():
    z, labels, effects = attributes()
    found = paths.attribute_vectors(z, labels)
    for a in range(2):
        expected = z[labels[:, a] == 1].mean(axis=0) - z[labels[:, a] == 0].mean(axis=0)
        np.testing.assert_allclose(found[a], expected, atol=1e-4)
    assert abs(found[0, 1]) > 1  # The second attribute leaks into the first,
    joint = paths.attribute_vectors(z, labels, joint=True)  # and joint fitting removes it.
    np.testing.assert_allclose(joint, effects, atol=0.03)
    alone = (paths.attribute_vectors(z, labels[:, :1], joint=joint) for joint in (False, True))
    np.testing.assert_allclose(*alone, atol=1e-5)


def test_bad_attributes_are_refused():
    z, labels, _ = attributes(50)
    with pytest.raises(UserError, match="same for all 50"):
        paths.attribute_vectors(z, np.ones((50, 1)))
    with pytest.raises(UserError, match="0 or 1"):
        paths.attribute_vectors(z, 2 * labels)


@pytest.mark.parametrize("joint", [False, True])
def test_random_labels_separate_nothing_however_many_dimensions(joint):
    rng = np.random.default_rng(0)
    z = rng.normal(size=(800, 200))
    labels = (rng.uniform(size=(800, 40)) < np.linspace(0.1, 0.5, 40)).astype(np.uint8)
    fit, judge = paths.halves(800, 1)
    assert sorted([*fit, *judge]) == list(range(800))
    found = paths.separation((z[fit], labels[fit]), (z[judge], labels[judge]), joint)
    deviations = (found.shares - 0.5) / found.errors
    assert abs(deviations.mean()) < 4 / 40**0.5 and np.abs(deviations).max() < 4
    assert deviations.std() == pytest.approx(1, abs=0.5)  # the stated error is that of chance
    itself = paths.separation((z, labels), (z, labels), joint).shares
    assert itself.min() > 0.6  # what judging by the fitted codes would claim


def test_separation_of_split_touching_and_mixed_groups():
    z = np.stack([[-3.0, -1.0, 1.0, 3.0], np.zeros(4)], axis=1)
    labels = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    found = paths.separation((z, labels), (z, labels))
    # First: apart. Second: means -1 and 1, the middle is 0, each group has one on each side.
    assert found.shares.tolist() == [1.0, 0.5]
    assert found.errors.tolist() == [0.0, pytest.approx(0.25)]
    # The middle is that of the fitted codes: moved by 2, one without it changes sides.
    assert paths.separation((z, labels), (z + 2, labels)).shares.tolist() == [0.75, 0.75]
    never = np.zeros_like(labels)
    assert np.isnan(paths.separation((z, labels), (z, never)).shares).all()


def test_label_table():
    assert paths.label_table(None, ("a",))[0].shape == (0, 0)
    table, names = paths.label_table(np.array([2, 0, 2]), ("a", "b", "c"))
    assert names == ("a", "c") and table.tolist() == [[0, 1], [1, 0], [0, 1]]
    attributes = np.array([[1, 0, 1], [1, 1, 1], [1, 0, 0]], np.uint8)
    table, names = paths.label_table(attributes, ("always", "some", "most"))
    assert names == ("some", "most") and table.tolist() == [[0, 1], [1, 1], [0, 0]]


def test_smoothness_of_a_cross_fade_and_of_a_jump():
    t = np.linspace(0, 1, 6)[:, None, None, None]
    image = np.random.default_rng(0).uniform(size=(1, 4, 4, 3))
    both = np.stack([(1 - t) * image + t * (1 - image), np.where(t < 0.5, image, 1 - image)])
    found = paths.smoothness(both)
    total = np.sqrt(np.mean((1 - 2 * image) ** 2))
    np.testing.assert_allclose(found["mean_step"], total / 5)
    np.testing.assert_allclose(found["jump"], [1, 5])
    np.testing.assert_allclose(found["path_length"], 1)
    # One step d in five: second differences d, -d in four, so the ratio is sqrt((2/4) / (1/5)).
    np.testing.assert_allclose(found["second_difference"], [0, np.sqrt(2.5)], atol=1e-12)


def test_smoothness_of_flicker_and_of_unrelated_images():
    flicker = np.tile([0.0, 1.0], 20)[None, :, None, None, None] * np.ones((1, 1, 3, 3, 1))
    assert paths.smoothness(flicker)["second_difference"] == pytest.approx(2)
    noise = np.random.default_rng(1).normal(size=(1, 60, 12, 12, 3))
    found = paths.smoothness(noise)
    assert found["second_difference"] == pytest.approx(np.sqrt(3), rel=0.02)
    steps = [np.sqrt(np.mean((a - b) ** 2)) for a, b in zip(noise[0], noise[0, 1:], strict=False)]
    expected = sum(steps) / np.sqrt(np.mean((noise[0, 0] - noise[0, -1]) ** 2))
    assert found["path_length"] == pytest.approx(expected)
    assert np.isnan(paths.smoothness(np.ones((1, 4, 2, 2, 1)))["jump"]).all()
    with pytest.raises(UserError, match="at least 3"):
        paths.smoothness(flicker[:, :2])


def linear_decoder(weights):
    """Images `[N, 2, 2, 1]` that are a linear map of the codes."""
    return lambda z: (z @ weights).reshape(-1, 2, 2, 1)


def test_straight_paths_of_a_linear_decoder_are_even():
    rng = np.random.default_rng(0)
    starts, ends = rng.normal(size=(2, 5, 3))
    weights = rng.normal(size=(3, 4))
    images, figures = paths.interpolate(linear_decoder(weights), starts, ends, steps=6)
    assert set(images) == set(figures) == {"linear", "spherical", "cross-fade"}
    assert images["linear"].shape == (5, 6, 2, 2, 1)
    # A linear decoder makes the straight path and the cross-fade one and the same.
    np.testing.assert_allclose(images["linear"], images["cross-fade"], atol=1e-5)
    changes = np.sqrt(np.mean(((ends - starts) @ weights) ** 2, axis=1)) / 5
    line = figures["linear"]
    assert line["mean_step"] == pytest.approx(changes.mean())
    assert line["mean_step_standard_error"] == pytest.approx(changes.std(ddof=1) / 5**0.5)
    assert line["path_length"] == pytest.approx(1) and line["jump"] == pytest.approx(1)
    assert line["second_difference"] < 1e-6
    arc = figures["spherical"]
    assert arc["path_length"] > 1.01 and arc["second_difference"] > 0.01


def test_the_straight_path_passes_the_middle_and_the_arc_keeps_its_radius():
    starts, ends = np.array([[3.0, 0.0]]), np.array([[0.0, 3.0]])
    _, figures = paths.interpolate(linear_decoder(np.eye(2, 4)), starts, ends, 5)
    assert figures["linear"]["least_radius"] == pytest.approx(np.sqrt(0.5))
    assert figures["spherical"]["least_radius"] == pytest.approx(1)
    assert "least_radius" not in figures["cross-fade"]


def test_a_moved_block_changes_the_image_by_the_root_of_its_size():
    z = np.random.default_rng(1).normal(size=(7, 4)).astype(np.float32)
    changes = paths.change_by_block(
        linear_decoder(np.eye(4, dtype=np.float32)), z, [1, 2, 4], 0.3, jax.random.key(0)
    )
    # One of four pixels moves by 0.3 for each component, in every image.
    for n, found in changes.items():
        assert found["change"] == pytest.approx(0.3 * np.sqrt(n / 4), rel=1e-5)
        assert found["change_standard_error"] < 1e-6


def test_blocks_lie_anywhere_among_neighbours():
    seen = []

    def decode(z):
        seen.append(z)
        return np.zeros((len(z), 1, 1, 1))

    z = np.zeros((300, 5), np.float32)
    assert paths.change_by_block(decode, z, [2], 1.0, jax.random.key(3))[2]["change"] == 0
    moved = seen[-1]
    assert (moved.sum(axis=1) == 2).all()
    firsts = moved.argmax(axis=1)
    assert (moved[np.arange(300), firsts + 1] == 1).all()  # neighbours
    assert np.bincount(firsts, minlength=4).min() > 40  # 75 of each expected
