"""Decoded paths, moved blocks and separations, against closed forms of a linear decoder."""

import jax
import numpy as np
import pytest

from vae_jax.latent import path_study


def linear_decoder(weights):
    """Images `[N, 2, 2, 1]` that are a linear map of the codes."""
    return lambda z: (z @ weights).reshape(-1, 2, 2, 1)


def test_straight_paths_of_a_linear_decoder_are_even():
    rng = np.random.default_rng(0)
    starts, ends = rng.normal(size=(2, 5, 3)).astype(np.float32)
    weights = rng.normal(size=(3, 4)).astype(np.float32)
    found = path_study.interpolate(linear_decoder(weights), starts, ends, steps=6)
    assert set(found.images) == set(found.figures) == {"linear", "spherical", "cross-fade"}
    assert found.images["linear"].shape == (5, 6, 2, 2, 1)
    # A linear decoder makes the straight path and the cross-fade one and the same.
    np.testing.assert_allclose(found.images["linear"], found.images["cross-fade"], atol=1e-5)
    changes = np.sqrt(np.mean(((ends - starts) @ weights) ** 2, axis=1))
    line = found.figures["linear"]
    assert line["mean_step"] == pytest.approx(changes.mean() / 5, rel=1e-4)
    assert line["path_length"] == pytest.approx(1, abs=1e-4)
    assert line["jump"] == pytest.approx(1, abs=1e-3)
    assert line["second_difference"] < 1e-3
    arc = found.figures["spherical"]
    assert arc["path_length"] > 1.01 and arc["second_difference"] > 0.01


def test_the_straight_path_passes_the_middle_and_the_arc_keeps_its_radius():
    starts, ends = np.array([[3.0, 0.0]], np.float32), np.array([[0.0, 3.0]], np.float32)
    figures = path_study.interpolate(linear_decoder(np.eye(2, 4)), starts, ends, 5).figures
    assert figures["linear"]["least_radius"] == pytest.approx(np.sqrt(0.5), rel=1e-5)
    assert figures["spherical"]["least_radius"] == pytest.approx(1, rel=1e-5)
    assert "least_radius" not in figures["cross-fade"]


def test_a_moved_block_changes_the_image_by_the_root_of_its_size():
    z = np.random.default_rng(1).normal(size=(7, 4)).astype(np.float32)
    identity = np.eye(4, dtype=np.float32)
    changes = path_study.change_by_block(
        linear_decoder(identity), z, [1, 2, 4], 0.3, jax.random.key(0)
    )
    # One of four pixels moves by 0.3 for each component.
    assert changes == pytest.approx({n: 0.3 * np.sqrt(n / 4) for n in (1, 2, 4)}, rel=1e-5)


def test_blocks_lie_anywhere_among_neighbours():
    seen = []

    def decode(z):
        seen.append(z)
        return np.zeros((len(z), 1, 1, 1))

    z = np.zeros((300, 5), np.float32)
    assert path_study.change_by_block(decode, z, [2], 1.0, jax.random.key(3)) == {2: 0.0}
    moved = seen[-1]
    assert (moved.sum(axis=1) == 2).all()
    firsts = moved.argmax(axis=1)
    assert (moved[np.arange(300), firsts + 1] == 1).all()  # neighbours
    assert np.bincount(firsts, minlength=4).min() > 40  # 75 of each expected


def test_label_table():
    assert path_study.label_table(None, ("a",))[0].shape == (0, 0)
    table, names = path_study.label_table(np.array([2, 0, 2]), ("a", "b", "c"))
    assert names == ("a", "c") and table.tolist() == [[0, 1], [1, 0], [0, 1]]
    attributes = np.array([[1, 0, 1], [1, 1, 1], [1, 0, 0]], np.uint8)
    table, names = path_study.label_table(attributes, ("always", "some", "most"))
    assert names == ("some", "most") and table.tolist() == [[0, 1], [1, 1], [0, 0]]


def test_separation_of_split_touching_and_mixed_groups():
    along = np.array([-3.0, -1.0, 1.0, 3.0])
    z = np.stack([along, np.zeros(4)], axis=1)
    labels = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    vectors = np.array([[1.0, 0.0], [1.0, 0.0]])
    shares = path_study.separation(z, labels, vectors)
    # First: apart. Second: means -1 and 1, the middle is 0, each group has one on each side.
    assert shares.tolist() == [1.0, 0.5]
    far = path_study.separation(z, np.array([[0], [0], [0], [1]]), vectors[:1])
    # Means -1 and 3, middle 1: all without it are on their side, the one at 1 included.
    assert far.tolist() == [1.0]
