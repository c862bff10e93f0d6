"""Choice of images, spaces of features, and the Inception hook."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import tiny
from vae_jax.data.splits import piece_of
from vae_jax.evaluate.feature_spaces import inception_activations, small_pixels
from vae_jax.evaluate.run_metrics import fid_of_file, finite_or_none, reconstruction_metrics
from vae_jax.evaluate.subject import chosen_images, encode_subject, make_subject
from vae_jax.models.vae import make_vae
from vae_jax.types import ImageSet, UserError
from vae_jax.workdir import Run

REFERENCE_33 = [1460, 4686, 6268, 2663, 4776]


@pytest.fixture(scope="module")
def grey_run():
    """An untrained tiny model of grey images that are binarised anew in every step."""
    config = tiny.get_config()
    config.data.image_shape, config.data.binarize = (16, 16, 1), "stochastic"
    model = make_vae(config.model, config.data.image_shape)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 16, 16, 1)), False, False)
    return Run(Path(), config, 0, model, variables, ())


def test_the_reference_choice_is_reproduced():
    wanted = np.random.RandomState(np.random.MT19937(np.random.SeedSequence(33))).randint(0, 99, 8)
    np.testing.assert_array_equal(chosen_images(8, 99, 33, reference=True), wanted)
    # Recorded once: neither NumPy's nor our choice may drift.
    assert chosen_images(5, 10_000, 33, reference=True).tolist() == REFERENCE_33


def test_our_choice_has_no_repetitions_and_extends():
    many = chosen_images(50, 50, 1)
    assert sorted(many) == list(range(50))
    np.testing.assert_array_equal(chosen_images(7, 50, 1), many[:7])
    assert len(chosen_images(9, 4, 0)) == 4


def test_small_pixels_are_averages():
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    small = small_pixels(None, images, None).reshape(3, 8, 8, 3)
    assert small.min() >= 0 and small.max() <= 1
    np.testing.assert_allclose(small.mean((1, 2)), images.mean((1, 2)) / 255, atol=0.02)
    flat = np.full((2, 16, 16, 1), 51, np.uint8)
    np.testing.assert_allclose(small_pixels(None, flat, None), 0.2, rtol=1e-5)


def test_equal_images_and_a_known_error():
    x = np.full((70, 16, 16, 1), 0.5, np.float32)
    y = x.copy()
    y[:35] += 0.1
    metrics = reconstruction_metrics(x, y)
    assert metrics["mse"] == pytest.approx(0.005)
    assert set(metrics) == {"mse", "psnr", "ssim"}
    assert finite_or_none({"a": [float("inf"), 1.0], "b": float("nan")}) == {
        "a": [None, 1.0], "b": None,
    }  # fmt: skip


def test_fid_only_of_inception_activations(tmp_path):
    rng = np.random.default_rng(0)
    real = np.zeros((4, 2048), np.float32)
    real[:, :3] = rng.normal(size=(4, 3))
    np.savez(tmp_path / "a.npz", real=real, fake=real + np.eye(1, 2048, dtype=np.float32))
    assert fid_of_file(tmp_path / "a.npz")["fid"] == pytest.approx(1.0, abs=1e-6)
    np.savez(tmp_path / "b.npz", real=real[:, :64], fake=real[:, :64])
    with pytest.raises(UserError, match="2048 pool3 features"):
        inception_activations(tmp_path / "b.npz")
    with pytest.raises(UserError, match="arrays real and fake"):
        inception_activations(tmp_path / "absent.npz")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:5000])
    with pytest.raises(UserError, match="cut.npz must be a .npz with the arrays real and fake"):
        inception_activations(tmp_path / "cut.npz")


def test_a_piece_of_a_split_is_shown_as_it_is_within_the_whole(grey_run):
    images = np.random.default_rng(0).integers(0, 256, (70, 16, 16, 1)).astype(np.uint8)
    split = ImageSet(images, np.arange(70), np.arange(70))
    whole = encode_subject(make_subject(grey_run, split))
    assert set(np.unique(whole.inputs)) == {0.0, 1.0}
    assert np.array_equal(whole.inputs, whole.targets)
    # The law of each pixel: deviations from its grey level are a fair draw's.
    assert abs(float(whole.targets.mean()) - images.mean() / 255) < 0.01
    part = piece_of(split, 64, 9)
    assert part.labels.tolist() == list(range(64, 70))
    seen = encode_subject(make_subject(grey_run, part), first=64)
    np.testing.assert_array_equal(seen.inputs, whole.inputs[64:])
    np.testing.assert_array_equal(seen.mean, whole.mean[64:])
