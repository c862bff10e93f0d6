"""How images change along paths and with moved components, against linear decoders."""

import jax
import numpy as np
import pytest

from vae_jax.studies import paths


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
